package cli

import (
	"errors"
	"strings"
	"testing"

	"github.com/tributary-dev/tributary/pkg/observers"
)

func TestObserversArePausedAndResumed(t *testing.T) {
	w := newWorld(t)
	if _, err := w.run("observers", "pause", "orders"); err == nil || !strings.Contains(err.Error(), "write paused: true there") {
		t.Errorf("where a file is configured: %v", err)
	}
	file := w.config.Observers
	w.config.Observers = ""
	before := w.must("observers", "apply", file)
	name := "orders"
	if out := w.must("observers", "pause", name); !strings.Contains(out, "~ "+name) || !strings.Contains(out, "is in force, number 2") {
		t.Errorf("pause says:\n%s", out)
	}
	if out := w.must("observers", "pause", name); !strings.Contains(out, "in force already") {
		t.Errorf("pause says again:\n%s", out)
	}
	if out := w.must("observers", "list"); !strings.Contains(out, name+" (paused)") {
		t.Errorf("list says:\n%s", out)
	}
	w.must("observers", "resume", name)
	if out := w.must("observers", "apply", file); !strings.Contains(out, "in force already") {
		t.Errorf("what is resumed is not what was applied (%s):\n%s", before, out)
	}
	if _, err := w.run("observers", "pause", "unknown"); !errors.Is(err, observers.ErrNoObserver) {
		t.Errorf("an observer that is not there: %v", err)
	}
}
