package observers

import (
	"strings"
	"testing"

	"github.com/tributary-dev/tributary/pkg/events"
)

const explained = `
observers:
  - {name: a-source, match: {source: web}, actions: [{name: x, type: log, message: hi}]}
  - {name: b-entity, match: {source: sh*, entity: public.items}, actions: [{name: x, type: log, message: hi}]}
  - {name: c-op, match: {entity: public.*, ops: [delete, insert]}, actions: [{name: x, type: log, message: hi}]}
  - {name: d-false, when: after.status == "lost", actions: [{name: x, type: log, message: hi}]}
  - {name: e-error, when: after.nothing == 1, actions: [{name: x, type: log, message: hi}]}
  - {name: f-match, match: {entity: public.orders}, when: after.status == "shipped", actions: [{name: x, type: log, message: hi}]}
`

func TestExplainSaysAtWhichStepAnObserverFails(t *testing.T) {
	set, err := Parse("observers.yaml", []byte(explained))
	if err != nil {
		t.Fatal(err)
	}
	raw := []byte(`{"specversion":"1.0","id":"shop-1-1","source":"/tributary/shop","type":"tributary.row.update.v1",` +
		`"partitionkey":"public.orders/1","sequence":"0000000000000001.0000000001",` +
		`"data":{"op":"update","schema":"public","table":"orders","after":{"id":1,"status":"shipped"}}}`)
	event, err := events.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	view := NewView(events.Address{Source: "shop", Schema: "public", Table: "orders", Op: events.OpUpdate}, raw, event)
	want := map[string]Step{
		"a-source": StepSource, "b-entity": StepEntity, "c-op": StepOp, "d-false": StepCondition, "e-error": StepCondition, "f-match": "",
	}
	matching := map[string]bool{}
	for _, m := range set.Match(view) {
		matching[m.Observer.Name] = m.Err == nil
	}
	for _, f := range set.Explain(view) {
		name := f.Observer.Name
		if f.Failed != want[name] || f.Matches != (want[name] == "") {
			t.Errorf("%s: %+v, want step %q", name, f, want[name])
		}
		if failed := f.Err != nil; failed != (name == "e-error") {
			t.Errorf("%s: error %v", name, f.Err)
		}
		if f.Matches != matching[name] {
			t.Errorf("%s: Match says %t", name, matching[name])
		}
		delete(want, name)
	}
	if len(want) > 0 {
		t.Errorf("nothing is said of %v", want)
	}
}

func TestAsksForChangeFindsTheFunctions(t *testing.T) {
	webhook := func(keys string) string {
		return `observers: [{name: o, actions: [{name: x, type: webhook, ` + keys + `}]}]`
	}
	for name, c := range map[string]struct {
		yaml string
		want bool
	}{
		"nowhere":               {webhook(`url: "https://a.example/${op}"`), false},
		"in a text that is one": {`observers: [{name: o, when: 'op != "changed(x)"', actions: [{name: x, type: log, message: changed}]}]`, false},
		"in a condition":        {`observers: [{name: o, when: 'op == "insert" || changed("a")', actions: [{name: x, type: log, message: hi}]}]`, true},
		"in a message":          {`observers: [{name: o, actions: [{name: x, type: log, message: '${changed_to("a", 1)}'}]}]`, true},
		"in a path":             {webhook(`url: 'https://a.example/${changed("a")}'`), true},
		"in a query":            {webhook(`url: 'https://a.example/?q=${changed("a")}'`), true},
		"in a header":           {webhook(`url: "https://a.example/", headers: {X-A: '${changed_from("a", 1)}'}`), true},
		"in a body":             {webhook(`url: "https://a.example/", body: '{"a": [changed("a")]}'`), true},
	} {
		t.Run(name, func(t *testing.T) {
			set, err := Parse("observers.yaml", []byte(strings.TrimSpace(c.yaml)))
			if err != nil {
				t.Fatal(err)
			}
			if got := set.Observers()[0].AsksForChange(); got != c.want {
				t.Errorf("got %t", got)
			}
		})
	}
}
