package observers_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/actions/secret"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/observers"
	"github.com/tributary-dev/tributary/pkg/retry"
)

// view makes the view of a change in public.orders of shop; images are JSON objects, nil where there is none.
func view(t testing.TB, op events.Op, before, after string) *observers.View {
	t.Helper()
	return viewAt(t, events.Address{Source: "shop", Schema: "public", Table: "orders", Op: op}, before, after)
}

func viewAt(t testing.TB, a events.Address, before, after string) *observers.View {
	t.Helper()
	c := events.Change{
		ID: []byte("shop-1-0000000016B37488-771-3"), Source: a.Source, Op: a.Op, Schema: a.Schema, Table: a.Table,
		Time: time.Date(2026, 11, 23, 8, 45, 53, 123456000, time.UTC), PartitionKey: []byte("public.orders/42"),
		Sequence: events.Sequence{Commit: 0x16B37488, Index: 3}, Key: []byte(`{"id":42}`), InTransaction: true, XID: 771,
	}
	if before != "" {
		c.Before, c.Changed = []byte(before), []string{"status"}
	}
	if after != "" {
		c.After = []byte(after)
	}
	raw := events.AppendChange(nil, &c)
	e, err := events.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return observers.NewView(a, raw, e)
}

const packed, shipped = `{"id":42,"status":"packed","region":"eu/west"}`, `{"id":42,"status":"shipped","region":"eu/west"}`

func parse(t testing.TB, text string) *observers.Set {
	t.Helper()
	set, err := observers.Parse("observers.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// names lists matches, those whose condition failed with a ! behind.
func names(matches []observers.Match) string {
	var b strings.Builder
	for _, m := range matches {
		b.WriteString(" " + m.Observer.Name)
		if m.Err != nil {
			b.WriteString("!")
		}
	}
	return strings.TrimPrefix(b.String(), " ")
}

func TestMatch(t *testing.T) {
	orders := func(op events.Op) events.Address {
		return events.Address{Source: "shop", Schema: "public", Table: "orders", Op: op}
	}
	tests := map[string]struct {
		rule    string // of the observer, beside its name and action
		address events.Address
		want    bool
	}{
		"no match takes everything":                   {"", orders(events.OpTruncate), true},
		"an empty match takes everything":             {"match: {}", orders(events.OpTruncate), true},
		"the exact source, entity and op":             {"match: {source: shop, entity: public.orders, ops: [update]}", orders(events.OpUpdate), true},
		"another source":                              {"match: {source: crm}", orders(events.OpUpdate), false},
		"another entity":                              {"match: {entity: public.customers}", orders(events.OpUpdate), false},
		"another op":                                  {"match: {ops: [insert, delete]}", orders(events.OpUpdate), false},
		"one of several ops":                          {"match: {ops: [insert, update]}", orders(events.OpUpdate), true},
		"only the entity":                             {"match: {entity: public.orders}", orders(events.OpUpdate), true},
		"every table of a schema":                     {"match: {entity: public.*}", orders(events.OpUpdate), true},
		"every schema":                                {`match: {entity: "*.orders"}`, orders(events.OpUpdate), true},
		"a star within a part":                        {"match: {entity: public.o*r*s}", orders(events.OpUpdate), true},
		"a star that stands for nothing":              {"match: {entity: public.orders*}", orders(events.OpUpdate), true},
		"a star does not reach over a dot":            {"match: {entity: pub*}", orders(events.OpUpdate), false},
		"a star alone is one part":                    {`match: {entity: "*"}`, orders(events.OpUpdate), false},
		"more parts than there are":                   {`match: {entity: "*.*.*"}`, orders(events.OpUpdate), false},
		"a star does not match what is elsewhere":     {"match: {entity: public.order*x}", orders(events.OpUpdate), false},
		"pieces may not overlap":                      {"match: {entity: public.orders*s}", orders(events.OpUpdate), false},
		"a star in the source":                        {"match: {source: sh*, entity: public.orders}", orders(events.OpUpdate), true},
		"any source by a star":                        {`match: {source: "*"}`, orders(events.OpUpdate), true},
		"a pattern and another op":                    {"match: {entity: public.*, ops: [insert]}", orders(events.OpUpdate), false},
		"names are compared with their case":          {"match: {entity: public.Orders}", orders(events.OpUpdate), false},
		"an application's entity and type":            {"match: {entity: cart.checked-out}", events.Address{Source: "web", Schema: "cart", Table: "checked-out", Op: events.OpMessage}, true},
		"an application's entity that holds dots":     {"match: {entity: a.b.*}", events.Address{Source: "web", Schema: "a.b", Table: "c", Op: events.OpMessage}, true},
		"a logical message's prefix":                  {"match: {entity: outbox, ops: [message]}", events.Address{Source: "shop", Table: "outbox", Op: events.OpMessage}, true},
		"a logical message's prefix, by a lone star":  {`match: {entity: "*"}`, events.Address{Source: "shop", Table: "outbox", Op: events.OpMessage}, true},
		"another table under a pattern of the source": {"match: {source: s*, entity: public.orders}", events.Address{Source: "shop", Schema: "public", Table: "x", Op: events.OpInsert}, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			set := parse(t, "observers:\n  - name: it\n    actions: [{name: note, type: log, message: x}]\n    "+test.rule+"\n")
			if got := names(set.Match(viewAt(t, test.address, "", ""))); (got == "it") != test.want {
				t.Errorf("%s beside %+v matched %q", test.rule, test.address, got)
			}
		})
	}
}

func TestMatchEvaluatesConditions(t *testing.T) {
	set := parse(t, `
observers:
  - {name: to-shipped, match: {ops: [update]}, when: 'changed_to("status", "shipped")', actions: [{name: n, type: log, message: x}]}
  - {name: to-packed, match: {ops: [update]}, when: 'changed_to("status", "packed")', actions: [{name: n, type: log, message: x}]}
  - {name: broken, when: after.colour == "red", actions: [{name: n, type: log, message: x}]}
  - {name: always, match: {entity: public.*}, actions: [{name: n, type: log, message: x}]}
`)
	matches := set.Match(view(t, events.OpUpdate, packed, shipped))
	if got := names(matches); got != "always broken! to-shipped" {
		t.Errorf("an update matched %q", got)
	}
	if got := fmt.Sprint(matches[1].Err); got != "evaluate when of broken: no such key: colour" {
		t.Errorf("the failed condition says %q", got)
	}
	if got := names(set.Match(view(t, events.OpUpdate, "", shipped))); got != "always broken! to-packed! to-shipped!" {
		t.Errorf("an update without its old row matched %q", got)
	}
	if got := names(set.Match(view(t, events.OpInsert, "", shipped))); got != "always broken!" {
		t.Errorf("an insert matched %q", got)
	}
}

func TestDefaults(t *testing.T) {
	set := parse(t, "observers:\n  - name: it\n    actions: [{name: hook, type: webhook, url: \"https://a.example/\"}]\n")
	o := set.Observers()[0]
	if o.Order != observers.OrderAttempts || o.OnFailure != observers.OnFailureDeadLetter || o.Retry != retry.Default() {
		t.Errorf("observer is %+v", o)
	}
	if a := o.Actions[0]; a.Async || a.Timeout != 10*time.Second || a.Type != "webhook" {
		t.Errorf("action is %+v", a)
	}
}

func TestSettingsAreRead(t *testing.T) {
	set := parse(t, `
observers:
  - name: it
    order: none
    on_failure: alert
    retry: {max_attempts: 3, strategy: linear, initial: 50us, max: 1m30s, jitter: 0}
    actions:
      - {name: note, type: log, message: x, async: true, timeout: 1500ms}
`)
	o := set.Observers()[0]
	want := retry.Policy{MaxAttempts: 3, Strategy: retry.Linear, Initial: 50 * time.Microsecond, Max: 90 * time.Second}
	if o.Order != observers.OrderNone || o.OnFailure != observers.OnFailureAlert || o.Retry != want {
		t.Errorf("observer is %+v", o)
	}
	if a := o.Actions[0]; !a.Async || a.Timeout != 1500*time.Millisecond {
		t.Errorf("action is %+v", a)
	}
}

const webhooks = `
observers:
  - name: it
    actions:
      - {name: plain, type: webhook, url: "http://Hooks.example/all"}
      - name: rich
        type: webhook
        url: https://hooks.example:8443/${after.region}/orders?id=${after.id}
        method: PUT
        timeout: 3s
        headers:
          X-Region: "region ${after.region}"
          Authorization: env:TOKEN
          X-Escaped: $${after.region}
        secrets: [env:NEW_SECRET, file:/run/secrets/old]
        body: '{"order": after.id, "state": after.status, "was": before.?status}'
        content_type: application/vnd.order+json
        permanent: [404, 400, 404]
      - {name: note, type: log, message: "order ${after.id} is \"${after.status}\"", level: warn}
`

func TestRender(t *testing.T) {
	list := parse(t, webhooks).Observers()[0].Actions
	v := view(t, events.OpUpdate, packed, shipped)
	raw := events.AppendChange(nil, &events.Change{
		ID: []byte("shop-1-0000000016B37488-771-3"), Source: "shop", Op: events.OpUpdate, Schema: "public", Table: "orders",
		Time: time.Date(2026, 11, 23, 8, 45, 53, 123456000, time.UTC), PartitionKey: []byte("public.orders/42"),
		Sequence: events.Sequence{Commit: 0x16B37488, Index: 3}, Key: []byte(`{"id":42}`), InTransaction: true, XID: 771,
		Before: []byte(packed), After: []byte(shipped), Changed: []string{"status"},
	})
	want := []actions.Request{
		{
			Type: "webhook", Endpoint: "http://hooks.example:80", Method: "POST", URL: "http://Hooks.example/all",
			Header: []actions.Header{{Name: "Content-Type", Value: "application/cloudevents+json"}},
			Body:   raw, Timeout: 10 * time.Second, Permanent: []int{400, 410, 422},
		},
		{
			Type: "webhook", Endpoint: "https://hooks.example:8443", Method: "PUT",
			URL: "https://hooks.example:8443/eu%2Fwest/orders?id=42",
			Header: []actions.Header{
				{Name: "Content-Type", Value: "application/vnd.order+json"},
				{Name: "Authorization", Value: secret.Mark("env:TOKEN")},
				{Name: "X-Escaped", Value: "${after.region}"},
				{Name: "X-Region", Value: "region eu/west"},
			},
			Body:    []byte(`{"order":42,"state":"shipped","was":"packed"}`),
			Timeout: 3 * time.Second, Secrets: []string{"env:NEW_SECRET", "file:/run/secrets/old"}, Permanent: []int{400, 404},
		},
		{Type: "log", Method: "WARN", Body: []byte(`"order 42 is \"shipped\""`), Timeout: 10 * time.Second},
	}
	for i, a := range list {
		got, err := a.Render(v)
		if err != nil {
			t.Errorf("%s: %v", a.Name, err)
			continue
		}
		if diff := cmp.Diff(want[i], got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", a.Name, diff)
		}
	}
}

func TestRenderThatFails(t *testing.T) {
	tests := map[string]struct{ action, want string }{
		"a URL":     {"{name: a, type: webhook, url: 'https://a.example/${after.colour}'}", "url: ${after.colour}: no such key: colour"},
		"a segment": {"{name: a, type: webhook, url: 'https://a.example/${after.up}'}", `url: a path segment can't be ".."`},
		"a header":  {"{name: a, type: webhook, url: 'https://a.example/', headers: {X-A: '${after.lines}'}}", `header X-A: ${after.lines}: a header can't hold the character '\n'`},
		"a secret's name in data is only data": {"{name: a, type: webhook, url: 'https://a.example/', headers: {X-A: '${after.mark}'}}",
			`header X-A: ${after.mark}: a header can't hold the character '\x01'`},
		"a body":    {"{name: a, type: webhook, url: 'https://a.example/', body: before.id}", "body: no such key: id: this event (insert) has no before"},
		"a message": {"{name: a, type: log, message: '${after}'}", "message: ${after}: a text takes a string, a number or a bool, this event gave a map"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			set := parse(t, "observers:\n  - name: it\n    actions:\n      - "+test.action+"\n")
			v := view(t, events.OpInsert, "", `{"id":1,"up":"..","lines":"a\nb","mark":"\u0001env:HOME\u0001"}`)
			if got, err := set.Observers()[0].Actions[0].Render(v); err == nil || err.Error() != test.want {
				t.Errorf("Render gave %+v, %v, want the error %s", got, err, test.want)
			}
		})
	}
}

// TestDataCanNotNameASecret: what an action resolves is what the file names, whatever the row holds.
func TestDataCanNotNameASecret(t *testing.T) {
	t.Setenv("HOME_SECRET", "hush")
	set := parse(t, "observers:\n  - name: it\n    actions:\n      - {name: a, type: webhook, url: 'https://a.example/', headers: {X-A: '${after.note}', X-B: env:HOME_SECRET}}\n")
	request, err := set.Observers()[0].Actions[0].Render(view(t, events.OpInsert, "", `{"note":"env:HOME_SECRET"}`))
	if err != nil {
		t.Fatal(err)
	}
	var resolver secret.Resolver
	for i, want := range []string{"application/cloudevents+json", "env:HOME_SECRET", "hush"} {
		if got, err := resolver.Expand(request.Header[i].Value); err != nil || got != want {
			t.Errorf("header %s is sent as %q, %v, want %q", request.Header[i].Name, got, err, want)
		}
	}
}

func TestViewIsSharedSafely(t *testing.T) {
	set := parse(t, webhooks)
	v := view(t, events.OpUpdate, packed, shipped)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for _, m := range set.Match(v) {
				for _, a := range m.Observer.Actions {
					if _, err := a.Render(v); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	all.Wait()
}
