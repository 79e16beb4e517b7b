package cli

import (
	"errors"
	"strings"
	"testing"

	"github.com/tributary-dev/tributary/internal/config"
	"github.com/tributary-dev/tributary/internal/pgtest"
	"github.com/tributary-dev/tributary/pkg/checkpoint"
	"github.com/tributary-dev/tributary/pkg/events"
)

// mirrored is a deployment whose source has a database with a mirror.
func mirrored(t *testing.T) (*world, *checkpoint.Store) {
	t.Helper()
	w := newWorld(t)
	url := pgtest.Database(t)
	w.config.Sources = []config.Source{{Name: "shop", Postgres: config.NewSecret(url), Slot: "tributary_shop"}}
	store, err := checkpoint.New(url, checkpoint.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	if err := store.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return w, store
}

func TestCheckpointsAreShownWithTheirHistory(t *testing.T) {
	w, store := mirrored(t)
	if out, err := w.run("checkpoint", "show"); !errors.Is(err, checkpoint.ErrNotFound) {
		t.Errorf("without a checkpoint: %v, %s", err, out)
	}
	c := checkpoint.Checkpoint{Source: "shop", Epoch: 3, Incarnation: 1, SystemID: "7", Timeline: 1, Slot: "tributary_shop", Phase: "streaming",
		Commit: 0x300, Index: 1, End: 0x301, Leader: "ingest-a"}
	for range 2 {
		if err := store.Save(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		c.Epoch, c.Leader = c.Epoch+1, "ingest-b"
	}
	w.golden("checkpoint-show", w.must("checkpoint", "show"))
	w.golden("checkpoint-history", w.must("checkpoint", "history", "shop"))
}

func TestASourceIsResetByWhoSaysYes(t *testing.T) {
	w, store := mirrored(t)
	w.lead("ingest-a")
	say := func(answer string, args ...string) (string, error) {
		return run(t, w.config, strings.NewReader(answer), args...)
	}
	var usage *config.UsageError
	if _, err := say("", "snapshot", "--reset", "shop"); !errors.As(err, &usage) {
		t.Errorf("where nobody answers: %v", err)
	}
	if _, err := say("y\n", "snapshot", "--reset", "shop"); err == nil {
		t.Error("it was reset for less than a yes")
	}
	if _, err := say("yes\n", "snapshot", "--reset", "shop", "-o", "json"); !errors.As(err, &usage) {
		t.Errorf("a script is asked: %v", err)
	}
	if changes, err := store.History(t.Context(), "shop", 1); err != nil || len(changes) != 0 {
		t.Fatalf("something changed: %+v, %v", changes, err)
	}
	if out, err := say("yes\n", "snapshot", "--reset", "shop"); err != nil || !strings.Contains(out, "incarnation 2") {
		t.Errorf("%v: %s", err, out)
	}
	saved, err := store.Get(t.Context(), "shop")
	if err != nil || saved.Incarnation != 2 || saved.Epoch < 4 || saved.Commit != events.LSN(0) {
		t.Errorf("the mirror has %+v, %v", saved, err)
	}
}
