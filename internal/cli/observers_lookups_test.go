package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tributary-dev/tributary/internal/config"
	"github.com/tributary-dev/tributary/pkg/observers"
)

const asking = `
observers:
  - name: of-a-vip
    lookup:
      - {name: customer, type: http, url: "https://crm.example/${after.id}", key: "customers/${after.id}"}
      - {name: stock, type: sql, url: env:STOCK, select: SELECT level FROM stock WHERE sku = $1, args: [lookup.customer.sku]}
    when: lookup.customer.vip
    actions:
      - {name: tell, type: webhook, url: "https://crm.example/vip", body: '{"stock": lookup.stock}'}
  - name: of-nobody
    lookup: [{name: customer, type: http, url: "https://crm.example/${after.id}"}]
    when: lookup.customer.vip && after.id == 0
    actions: [{name: tell, type: log, message: x}]
  - name: of-a-failure
    lookup: [{name: gone, type: http, url: "https://crm.example/gone"}]
    actions: [{name: tell, type: log, message: x}]
`

const insertOfOne = `{"specversion":"1.0","id":"shop-1-0000000016B37488-771-3","source":"/tributary/shop","type":"tributary.row.insert.v1",
 "partitionkey":"public.orders/42","sequence":"0000000016B37488.0000000003",
 "data":{"op":"insert","schema":"public","table":"orders","key":{"id":42},"after":{"id":42}}}`

func TestLookupsAreShownAndAskedOnlyWhereThatIsWanted(t *testing.T) {
	folder := t.TempDir()
	rules, event := filepath.Join(folder, "observers.yaml"), filepath.Join(folder, "event.json")
	for path, text := range map[string]string{rules: asking, event: insertOfOne} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	asked := 0
	cfg := config.Config{Observers: rules}
	answering := func(config.Config) (observers.Fetch, func(), error) {
		return func(_ context.Context, q observers.Lookup) ([]byte, error) {
			asked++
			switch q.Name {
			case "customer":
				return []byte(`{"vip":true,"sku":"a"}`), nil
			case "stock":
				return []byte(`{"level":19.90}`), nil
			default:
				return nil, fmt.Errorf("status %d", 503)
			}
		}, func() {}, nil
	}
	tests := []struct {
		flags []string
		asked int
		want  []string
	}{
		{nil, 0, []string{
			"of-a-vip: matches, if its condition is true of what its lookups answer", "http https://crm.example/42",
			"not asked: --lookups asks it, and those behind it", "rendered when its lookups are answered",
		}},
		{[]string{"--lookups"}, 4, []string{
			"of-a-vip: matches, its condition is true", `"level": 19.90`, `args ["a"]`, `"stock": {`,
			"of-nobody: its condition is false", "of-a-failure: its lookup failed", "status 503",
		}},
		{[]string{"--lookups", "-o", "json"}, 8, []string{`"asked": true`, `"key": "customers/42"`, `"failed": "condition"`}},
	}
	for _, test := range tests {
		got, err := runWith(t, &Invocation{Config: cfg, Lookups: answering}, append([]string{"observers", "test", event}, test.flags...)...)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range test.want {
			if !strings.Contains(got, want) {
				t.Errorf("%v: %q is not in\n%s", test.flags, want, got)
			}
		}
		if asked != test.asked {
			t.Errorf("%v: %d lookups were asked, want %d", test.flags, asked, test.asked)
		}
	}
}
