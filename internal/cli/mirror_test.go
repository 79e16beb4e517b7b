package cli

import (
	"strings"
	"testing"

	"github.com/tributary-dev/tributary/internal/config"
	"github.com/tributary-dev/tributary/pkg/checkpoint"
	"github.com/tributary-dev/tributary/pkg/events"
)

// The mirror is told beside the position of EVENTS, with what the two explain together.
func TestStatusAndDoctorTellOfTheMirror(t *testing.T) {
	w, store := mirrored(t)
	w.config.Ingest.Checkpoints = true
	look := func(state result, says, status string) {
		t.Helper()
		e, _ := w.examine()
		found := false
		for _, c := range e.Checks {
			if c.Area != "source shop" || c.Check != "mirror" {
				continue
			}
			found = true
			if c.Result != state || !strings.Contains(c.Detail, says) {
				t.Errorf("doctor says %s: %s, want %s: …%s…", c.Result, c.Detail, state, says)
			}
		}
		if !found {
			t.Error("doctor does not look at the mirror")
		}
		if out := w.must("status"); !strings.Contains(strings.Join(strings.Fields(out), " "), status) {
			t.Errorf("status does not say %q:\n%s", status, out)
		}
	}
	look("ok", "nothing to mirror yet", "")
	w.lead("ingest-a")
	look("warn", "nothing is mirrored yet", "mirror: nothing is mirrored yet")
	w.insert(1) // at 0x100
	save := func(incarnation uint64, commit events.LSN) {
		t.Helper()
		err := store.Save(t.Context(), checkpoint.Checkpoint{
			Source: "shop", Epoch: 3, Incarnation: incarnation, SystemID: "7", Timeline: 1, Slot: "tributary_shop", Phase: "streaming",
			Commit: commit, Index: 1, End: commit + 8, Leader: "ingest-a",
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	save(1, 0x80) // the commands run 90 minutes later
	look("warn", "it does not follow: mirrored to 0/88", "mirrored to 0/88, 1h30m ago, 121 B behind")
	save(1, 0x100)
	look("ok", "mirrored to 0/108, 1h30m ago, 0 B behind", "mirrored to 0/108, 1h30m ago, 0 B behind")
	save(1, 0x200)
	look("warn", "bytes ahead: EVENTS lost its end", "bytes ahead: EVENTS lost its end, which ingest reads again from the slot")
	save(2, 0x300)
	look("warn", "EVENTS was restored from before a reset", "it knows set-up 2, and EVENTS ends in set-up 1")

	w.config.Ingest.Checkpoints = false
	if out := w.must("status"); strings.Contains(out, "mirror") {
		t.Errorf("without a mirror status speaks of it:\n%s", out)
	}
	w.config.Ingest.Checkpoints = true
	w.config.Sources = append(w.config.Sources, config.Source{Name: "new", Postgres: w.config.Sources[0].Postgres, Slot: "tributary_new"})
	if out := w.must("status"); strings.Contains(out, "new: mirror") {
		t.Errorf("of a source that was never read the mirror says something:\n%s", out)
	}
}
