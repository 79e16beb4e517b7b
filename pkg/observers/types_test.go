package observers_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/observers"
)

// hostile is a row that tries to leave whatever it is put into.
const hostile = `{"id":42,"total":19.5,"name":"a\"b\r\nX: y","region":"eu.>","mail":"a@b.example","first":"events","nothing":null,"list":["a",1]}`

// renderOne renders the only action of an observer whose keys are given, for a hostile row.
func renderOne(t *testing.T, keys string) (actions.Request, error) {
	t.Helper()
	set, err := observers.Parse("observers.yaml", []byte("observers:\n  - name: o\n    actions:\n      - {name: a, "+keys+"}\n"))
	if err != nil {
		t.Fatal(err)
	}
	again, err := observers.Parse("source", set.Source())
	if err != nil || again.Generation() != set.Generation() {
		t.Fatalf("the canonical form is read as %v: %v\n%s", again, err, set.Source())
	}
	raw := []byte(`{"specversion":"1.0","id":"shop-1-0000000016B37488-771-3","source":"/tributary/shop","type":"tributary.row.insert.v1",` +
		`"partitionkey":"public.orders/42","sequence":"0000000016B37488.0000000003",` +
		`"data":{"op":"insert","schema":"public","table":"orders","key":{"id":42},"after":` + hostile + `}}`)
	event, err := events.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	view := observers.NewView(events.Address{Source: "shop", Schema: "public", Table: "orders", Op: events.OpInsert}, raw, event)
	return set.Observers()[0].Actions[0].Render(view)
}

// rendering is what an action's keys are rendered to; an error holds the text of err.
type rendering struct {
	keys string
	want actions.Request
	err  string
}

func testRendering(t *testing.T, tests map[string]rendering) {
	t.Helper()
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := renderOne(t, test.keys)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Fatalf("rendered with %v, want an error with %q", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got.Timeout = 0
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestNATSIsRendered(t *testing.T) {
	json := []actions.Header{{Name: "Content-Type", Value: "application/json"}}
	testRendering(t, map[string]rendering{
		"a value is one token": {
			keys: `type: nats, subject: "orders.${after.region}.x", body: after.name`,
			want: actions.Request{Type: "nats", Endpoint: "nats", URL: "orders.eu%2E%3E.x", Header: json, Body: []byte(`"a\"b\r\nX: y"`)},
		},
		"a header": {
			keys: `type: nats, subject: a, body: "1", headers: {X-Id: "${after.id}"}`,
			want: actions.Request{Type: "nats", Endpoint: "nats", URL: "a", Header: append(json, actions.Header{Name: "X-Id", Value: "42"}), Body: []byte(`1`)},
		},
		"a header of two lines":                 {keys: `type: nats, subject: a, headers: {X-Name: "${after.name}"}`, err: "can't hold the character"},
		"a value that makes an own subject":     {keys: `type: nats, subject: "${after.first}.b"`, err: "begin with events."},
		"values that make an own one in pieces": {keys: `type: nats, subject: "${\"eve\"}nts.b"`, err: "begin with events."},
	})
}

func TestSlackIsRendered(t *testing.T) {
	request := func(body string) actions.Request {
		return actions.Request{Type: "slack", Endpoint: "slack:env:HOOK", URL: "env:HOOK", Body: []byte(body)}
	}
	testRendering(t, map[string]rendering{
		"a value can't mention or link": {
			keys: `type: slack, url: env:HOOK, text: "<https://a.example|order> ${after.region}"`,
			want: request(`{"text":"<https://a.example|order> eu.&gt;"}`),
		},
		"blocks": {
			keys: `type: slack, url: env:HOOK, text: "${after.name}", blocks: '[{"type": "section", "text": {"type": "mrkdwn", "text": mrkdwn(after.region)}}]'`,
			want: request(`{"text":"a\"b\r\nX: y","blocks":[{"text":{"text":"eu.&gt;","type":"mrkdwn"},"type":"section"}]}`),
		},
		"a missing value": {keys: `type: slack, url: env:HOOK, text: "${after.gone}"`, err: "no such key"},
	})
}

func TestSQLIsRendered(t *testing.T) {
	request := func(body string) actions.Request {
		return actions.Request{Type: "sql", Endpoint: "sql:env:DB", URL: "env:DB", Body: []byte(body)}
	}
	testRendering(t, map[string]rendering{
		"values are arguments": {
			keys: `type: sql, url: env:DB, function: billing.on_order, args: [effect_key, after.id, after.name, after.nothing, "after", 1, effect_key]`,
			want: request(`{"function":"billing.on_order","args":[null,42,"a\"b\r\nX: y",null,` +
				`{"first":"events","id":42,"list":["a",1],"mail":"a@b.example","name":"a\"b\r\nX: y","nothing":null,"region":"eu.>","total":19.5},1,null],"effect_key":[1,7]}`),
		},
		"no arguments":    {keys: `type: sql, url: env:DB, function: billing.refresh`, want: request(`{"function":"billing.refresh","args":[]}`)},
		"a missing value": {keys: `type: sql, url: env:DB, function: billing.a, args: [after.gone]`, err: "args[0]: no such key"},
	})
}

func TestCacheIsRendered(t *testing.T) {
	testRendering(t, map[string]rendering{
		"a key is invalidated": {
			keys: `type: cache, key: "user/${after.region}/orders"`,
			want: actions.Request{Type: "cache", Endpoint: "cache", Method: "INVALIDATE", URL: "user/eu%2E%3E/orders"},
		},
		"a prefix is invalidated": {
			keys: `type: cache, prefix: "user/${after.id}/"`,
			want: actions.Request{Type: "cache", Endpoint: "cache", Method: "INVALIDATE-PREFIX", URL: "user/42/"},
		},
		"a value is set": {
			keys: `type: cache, key: "order/${after.id}", value: '{"total": after.total}', ttl: 5m`,
			want: actions.Request{
				Type: "cache", Endpoint: "cache", Method: "SET", URL: "order/42", Body: []byte(`{"total":19.5}`),
				Header: []actions.Header{{Name: "TTL", Value: "5m0s"}},
			},
		},
		"a missing value": {keys: `type: cache, key: "${after.gone}"`, err: "no such key"},
	})
}

func TestEmailIsRendered(t *testing.T) {
	const head = `type: email, url: env:SMTP, from: "Shop <shop@a.example>", `
	testRendering(t, map[string]rendering{
		"a mail": {
			keys: head + `to: ["${after.mail}", b@b.example], subject: "Order ${after.id}", text: "of ${after.name}"`,
			want: actions.Request{
				Type: "email", Endpoint: "email:env:SMTP", URL: "env:SMTP",
				Body: []byte(`{"from":"Shop <shop@a.example>","to":["a@b.example","b@b.example"],"subject":"Order 42","text":"of a\"b\r\nX: y"}`),
			},
		},
		"a subject of two lines":    {keys: head + `to: a@b.example, subject: "${after.name}", text: a`, err: "can't hold the character"},
		"a receiver of two lines":   {keys: head + `to: "${after.name}", subject: a, text: a`, err: "can't hold the character"},
		"a receiver that is none":   {keys: head + `to: "${after.region}", subject: a, text: a`, err: "not one address"},
		"two receivers for one":     {keys: head + `to: "${after.mail}, c@c.example", subject: a, text: a`, err: "not one address"},
		"a receiver that is absent": {keys: head + `to: "${after.gone}", subject: a, text: a`, err: "no such key"},
	})
}
