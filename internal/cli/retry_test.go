package cli

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/deadletter"
)

func TestWhatCannotBeRetriedKeepsNothingBack(t *testing.T) {
	w := newWorld(t)
	dead := deadletter.New(w.js)
	for i := range 50 {
		id := fmt.Sprintf("broken-%d", i)
		if err := dead.Write(t.Context(), deadletter.Record{ID: id, Reason: deadletter.Undecodable, Raw: []byte("{"), Error: "broken"}); err != nil {
			t.Fatal(err)
		}
	}
	err := dead.Write(t.Context(), deadletter.Record{
		ID: "e~orders~tell", Reason: deadletter.Exhausted, Observer: "orders", Action: "tell", Error: "status 503",
		Effect:  &actions.Effect{Key: "e~orders~tell", EventID: "e", Observer: "orders", Action: "tell"},
		Request: &actions.Request{Type: "webhook", Method: "POST", URL: "https://carrier.example/9"},
	})
	if err != nil {
		t.Fatal(err)
	}
	out, err := w.run("dlq", "retry-all", "--dry-run")
	if err == nil || !strings.Contains(err.Error(), "and 30 more") {
		t.Errorf("of 50 that can't be retried: %v", err)
	}
	if !strings.Contains(out, "1  would be queued") || !strings.Contains(out, "50  not tried again") {
		t.Errorf("the last of all is\n%s", out)
	}
}
