package observers_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/observers"
	"github.com/tributary-dev/tributary/pkg/retry"
)

const lookingUp = `
observers:
  - name: o
    lookup:
      - name: customer
        type: http
        url: https://crm.example/customers/${after.region}?of=${after.id}
        headers: {X-Region: "${after.region}", Authorization: env:CRM_TOKEN}
        ttl: 30s
      - {name: stock, type: sql, url: env:STOCK_URL, select: "SELECT level FROM stock WHERE owner = $1", args: [lookup.customer.id], key: "stock/${lookup.customer.id}", rows: all}
    when: lookup.customer.vip && after.status == "shipped"
    actions:
      - {name: a, type: webhook, url: "https://x.example/${lookup.customer.name}", body: '{"stock": lookup.stock, "credit": lookup.customer.credit * 2}'}
`

// answers are what a test's lookups answer, by name: JSON, or an error.
type answers map[string]any

func (a answers) fetch(asked *[]observers.Lookup) observers.Fetch {
	return func(_ context.Context, q observers.Lookup) ([]byte, error) {
		*asked = append(*asked, q)
		if err, ok := a[q.Name].(error); ok {
			return nil, err
		}
		text, _ := a[q.Name].(string)
		return []byte(text), nil
	}
}

var good = answers{"customer": `{"id":"7/8","vip":true,"name":"a b","credit":19.90}`, "stock": `[{"level":3}]`}

func TestLookupsAreAskedInTurnWithWhatTheEventHolds(t *testing.T) {
	o := parse(t, lookingUp).Observers()[0]
	v := view(t, events.OpUpdate, packed, shipped)
	var asked []observers.Lookup
	answered, found, err := o.LookUp(t.Context(), v, good.fetch(&asked))
	if err != nil || len(found) != 2 {
		t.Fatalf("%d answers, %v", len(found), err)
	}
	for i := range asked {
		if i == 0 && (!strings.HasPrefix(asked[i].Key, "lookup/") || len(asked[i].Key) != len("lookup/")+64) {
			t.Errorf("the key is %q", asked[i].Key)
		}
	}
	asked[0].Key = ""
	want := []observers.Lookup{{
		Name: "customer", Type: "http", Endpoint: "https://crm.example:443", URL: "https://crm.example/customers/eu%2Fwest?of=42",
		Header:  []actions.Header{{Name: "Authorization", Value: "\x01env:CRM_TOKEN\x01"}, {Name: "X-Region", Value: "eu/west"}},
		Timeout: 5 * time.Second, TTL: 30 * time.Second, NegativeTTL: 5 * time.Second,
	}, {
		Name: "stock", Type: "sql", Key: "stock/7%2F8", Endpoint: "sql:env:STOCK_URL", URL: "env:STOCK_URL", Select: "SELECT level FROM stock WHERE owner = $1",
		Args: [][]byte{[]byte(`"7/8"`)}, AllRows: true, Timeout: 5 * time.Second, TTL: time.Minute, NegativeTTL: 5 * time.Second,
	}}
	if diff := cmp.Diff(want, asked); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
	request, err := o.Actions[0].Render(answered)
	if err != nil || request.URL != "https://x.example/a%20b" || string(request.Body) != `{"credit":39.80,"stock":[{"level":3}]}` {
		t.Errorf("%s %s, %v", request.URL, request.Body, err)
	}
}

// TestPendingRequestsAreResolved goes the way of a job: through the pending request's own bytes.
func TestPendingRequestsAreResolved(t *testing.T) {
	busy := errors.New("busy")
	tests := map[string]struct {
		change    func(string) string
		answers   answers
		want      string // the URL
		err       error
		condition bool // the error is one of rendering, of the condition
		render    bool // or of the rest
	}{
		"all is answered":                  {nil, good, "https://x.example/a%20b", nil, false, false},
		"the condition is false":           {nil, answers{"customer": `{"id":1,"vip":false}`, "stock": `[]`}, "", actions.ErrNotDue, false, false},
		"the condition fails":              {nil, answers{"customer": `{"id":1}`, "stock": `[]`}, "", nil, true, false},
		"the body fails":                   {nil, answers{"customer": `{"id":1,"vip":true,"name":"x"}`, "stock": `[]`}, "", nil, false, true},
		"a lookup fails for now":           {nil, answers{"customer": busy}, "", busy, false, false},
		"a lookup fails for good":          {nil, answers{"customer": retry.Permanent(busy)}, "", busy, true, false},
		"a question can't be made":         {nil, answers{"customer": `{"vip":true}`}, "", nil, true, false},
		"nothing is found":                 {nil, answers{"customer": observers.ErrNoAnswer}, "", nil, true, false},
		"nothing is found that has to be":  {required, answers{"customer": observers.ErrNoAnswer}, "", observers.ErrNoAnswer, true, false},
		"an error that is ignored is null": {ignored, answers{"customer": busy, "stock": `[]`}, "", actions.ErrNotDue, false, false},
		"an answer that is no JSON":        {nil, answers{"customer": `{`}, "", nil, true, false},
		"without a condition it is rendering": {
			func(s string) string { return strings.Replace(s, "when: lookup.customer.vip && ", "when: ", 1) },
			answers{"customer": retry.Permanent(busy)}, "", busy, false, true,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			source := lookingUp
			if test.change != nil {
				source = test.change(source)
			}
			set := parse(t, source)
			again, err := observers.Parse("again", set.Source())
			if err != nil || again.Generation() != set.Generation() {
				t.Fatalf("the canonical form is another: %v", err)
			}
			v := view(t, events.OpUpdate, packed, shipped)
			matches := set.Match(v)
			if len(matches) != 1 || matches[0].Err != nil {
				t.Fatalf("matches %+v", matches)
			}
			pending, err := matches[0].Observer.Actions[0].Render(v)
			if err != nil || pending.Type != actions.Pending || pending.Endpoint != "https://crm.example:443" || pending.Timeout != 20*time.Second {
				t.Fatalf("pending %+v, %v", pending, err)
			}
			parsed, err := observers.ParsePending(pending, "events.000.shop.public.orders.update", raw(t), func(_ []byte, parse func() (*observers.Action, error)) (*observers.Action, error) {
				return parse()
			})
			if err != nil {
				t.Fatal(err)
			}
			var asked []observers.Lookup
			got, err := parsed.Resolve(t.Context(), test.answers.fetch(&asked))
			var unrendered *actions.RenderError
			isRender := errors.As(err, &unrendered)
			if got.URL != test.want || test.want == "" && err == nil || test.err != nil && !errors.Is(err, test.err) ||
				isRender != (test.condition || test.render) || isRender && unrendered.Condition != test.condition {
				t.Errorf("%q, %v (of rendering: %t)", got.URL, err, isRender)
			}
		})
	}
}

func required(source string) string { return strings.Replace(source, "ttl: 30s", "required: true", 1) }

func ignored(source string) string {
	source = strings.Replace(source, "ttl: 30s", "on_error: ignore", 1)
	source = strings.Replace(source, "when: lookup.customer.vip", "when: lookup.customer != null", 1)
	return strings.ReplaceAll(source, "lookup.customer.id", "after.id")
}

func raw(t *testing.T) []byte {
	t.Helper()
	c := events.Change{
		ID: []byte("shop-1-0000000016B37488-771-3"), Source: "shop", Op: events.OpUpdate, Schema: "public", Table: "orders",
		Time: time.Unix(1700000000, 0), PartitionKey: []byte("public.orders/42"), Sequence: events.Sequence{Commit: 1, Index: 3},
		Key: []byte(`{"id":42}`), Before: []byte(packed), After: []byte(shipped), Changed: []string{"status"},
	}
	return events.AppendChange(nil, &c)
}

func TestConditionThatReadsNoLookupIsJudgedBefore(t *testing.T) {
	set := parse(t, strings.Replace(lookingUp, `when: lookup.customer.vip && after.status == "shipped"`, `when: after.status == "new"`, 1))
	if matches := set.Match(view(t, events.OpUpdate, packed, shipped)); len(matches) != 0 {
		t.Errorf("it matches: %s", names(matches))
	}
	f := parse(t, lookingUp).Explain(view(t, events.OpUpdate, packed, shipped))[0]
	if !f.Matches || !f.Lookups {
		t.Errorf("the finding is %+v", f)
	}
}

// FuzzLookup puts one hostile value everywhere that a question has room for one, and asks the parsers of those who receive it
// whether it stayed there.
func FuzzLookup(f *testing.F) {
	for _, seed := range []string{"42", "../..", "a/b?c=d#e", "x\r\nX-Evil: 1", "' OR true --", "$1", "${after.id}", "é😀", "\x00", "*.>"} {
		f.Add(seed)
	}
	set := parse(f, `
observers:
  - name: o
    lookup:
      - {name: a, type: http, url: "https://crm.example/c/x${after.v}?of=${after.v}", key: "c/${after.v}"}
      - {name: b, type: sql, url: env:DB, select: SELECT $1, args: [after.v]}
    actions: [{name: x, type: log, message: x}]
`)
	f.Fuzz(func(t *testing.T, value string) {
		if value == "" || !utf8.ValidString(value) {
			t.Skip()
		}
		row := append(events.AppendString([]byte(`{"v":`), value), '}')
		var asked []observers.Lookup
		fetch := answers{"a": "1", "b": "1"}.fetch(&asked)
		if _, _, err := set.Observers()[0].LookUp(t.Context(), view(t, events.OpInsert, "", string(row)), fetch); err != nil {
			t.Fatal(err)
		}
		u, err := url.Parse(asked[0].URL)
		if err != nil {
			t.Fatal(err)
		}
		segment, found := strings.CutPrefix(u.EscapedPath(), "/c/x")
		got, err := url.PathUnescape(segment)
		if !found || strings.Contains(segment, "/") || err != nil || got != value || u.Host != "crm.example" || u.Fragment != "" {
			t.Errorf("%q became %s", value, asked[0].URL)
		}
		if query, err := url.ParseQuery(u.RawQuery); err != nil || len(query) != 1 || query.Get("of") != value {
			t.Errorf("%q became the query %s", value, u.RawQuery)
		}
		if rest, _ := strings.CutPrefix(asked[0].Key, "c/"); strings.ContainsAny(rest, "/. *>\r\n\x00") {
			t.Errorf("%q became the key %s", value, asked[0].Key)
		}
		var bound string
		if err := json.Unmarshal(asked[1].Args[0], &bound); err != nil || bound != value || asked[1].Select != "SELECT $1" {
			t.Errorf("%q is bound as %s to %s", value, asked[1].Args[0], asked[1].Select)
		}
	})
}
