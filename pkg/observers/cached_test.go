package observers_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tributary-dev/tributary/pkg/actions"
)

func TestResultsThatAreKept(t *testing.T) {
	for name, test := range map[string]struct {
		keys string
		want *actions.Cache
	}{
		"not at all":              {`type: webhook, url: "https://a.example/"`, nil},
		"for a minute":            {`type: webhook, url: "https://a.example/", cache: {}`, &actions.Cache{TTL: time.Minute}},
		"for so long":             {`type: sql, url: env:DB, function: a.b, cache: {ttl: 90s}`, &actions.Cache{TTL: 90 * time.Second}},
		"by a key that stays one": {`type: nats, subject: a, cache: {ttl: 1s, key: "orders/${after.name}"}`, &actions.Cache{TTL: time.Second, Key: "orders/a%22b%0D%0AX%3A%20y"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := renderOne(t, test.keys)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got.Cache); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
