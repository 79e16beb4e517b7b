package cli

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/tributary-dev/tributary/internal/inspect"
	"github.com/tributary-dev/tributary/pkg/actions/circuit"
)

func TestCircuitsAreListedOpenedAndReset(t *testing.T) {
	w := newWorld(t)
	const carrier = "https://carrier.example:443"
	if out := w.must("circuits", "list"); out != "Every circuit is closed.\n" {
		t.Errorf("at first: %s", out)
	}
	if out := w.must("circuits", "open", carrier); out != carrier+" is open until it is reset.\n" {
		t.Errorf("opened: %s", out)
	}
	w.must("circuits", "open", "mail", "--for", "1h")
	if out := w.must("circuits", "list"); !strings.Contains(out, carrier) || !strings.Contains(out, "open, forced") {
		t.Errorf("listed:\n%s", out)
	}
	if out := w.must("status"); !strings.Contains(out, carrier) || !strings.Contains(out, "2 circuits are open or drain") {
		t.Errorf("status:\n%s", out)
	}
	var list []inspect.Circuit
	if err := json.Unmarshal([]byte(w.must("circuits", "list", "-o", "json")), &list); err != nil || len(list) != 2 ||
		list[0].Name != carrier || list[0].State != circuit.Open || !list[0].Forced || list[0].By == "" {
		t.Errorf("as JSON: %+v, %v", list, err)
	}
	if out := w.must("circuits", "reset", carrier); out != carrier+" is closed.\n" {
		t.Errorf("reset: %s", out)
	}
	w.must("circuits", "reset", "--all")
	if out := w.must("circuits", "list"); out != "Every circuit is closed.\n" {
		t.Errorf("at the end: %s", out)
	}
	if out := w.must("circuits", "list", "--all"); !strings.Contains(out, "mail") || !strings.Contains(out, "closed") {
		t.Errorf("with those that were closed lately:\n%s", out)
	}
	for _, args := range [][]string{
		{"circuits", "reset", "https://nobody.example:443"}, {"circuits", "reset"}, {"circuits", "reset", "mail", "--all"},
		{"circuits", "open", "https://carrier.example"}, {"circuits", "open", "https://carrier.example:443/hooks"},
		{"circuits", "open", "https://Carrier.example:443"}, {"circuits", "open", "mail", "--for", "-1s"},
	} {
		if out, err := w.run(args...); err == nil {
			t.Errorf("%v succeeds: %s", args, out)
		}
	}
}
