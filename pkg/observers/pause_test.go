package observers_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/tributary-dev/tributary/pkg/observers"
)

func TestPausingChangesNothingElse(t *testing.T) {
	live := parse(t, `
observers:
  - name: a
    when: 'after.total > 12.50 && after.note == "<&>"'
    actions: [{name: note, type: log, message: "a"}]
  - name: b
    dry_run: true
    actions: [{name: note, type: log, message: "b"}]
`)
	paused, err := live.SetPaused("a", true)
	if err != nil {
		t.Fatal(err)
	}
	if paused.Generation() == live.Generation() || !paused.Paused("a") || paused.Paused("b") || live.Paused("a") || paused.Paused("c") {
		t.Errorf("paused set is %s", paused.Source())
	}
	if want := strings.Replace(string(live.Source()), `"on_failure":"deadletter",`, `"on_failure":"deadletter","paused":true,`, 1); string(paused.Source()) != want {
		t.Errorf("paused set is %s, want %s", paused.Source(), want)
	}
	again, err := paused.SetPaused("a", false)
	if err != nil || again.Generation() != live.Generation() {
		t.Errorf("resumed set is %v, %v", again, err)
	}
	if _, err := live.SetPaused("c", true); !errors.Is(err, observers.ErrNoObserver) {
		t.Errorf("pausing an observer that is not there gives %v", err)
	}
}
