package ingest_test

import (
	"testing"

	"github.com/tributary-dev/tributary/internal/natstest"
)

// A step that is larger than all the room there is would never be stored, whatever the janitor frees.
func TestStepsShrinkToTheRoomThatEventsHas(t *testing.T) {
	for name, source := range map[string]*generator{
		"events alone":                     {transactions: 2, perTransaction: 450, perBatch: 900},
		"batches that their marks hold":    {transactions: 20, perTransaction: 45, perBatch: 45, marked: true},
		"a batch that is held over a step": {transactions: 2, perTransaction: 450, perBatch: 60, marked: true},
	} {
		t.Run(name, func(t *testing.T) {
			server := natstest.Start(t)
			w := newWorld(t, server)
			w.config.MaxBytes = 100_000 // of about 500,000
			if _, err := w.js.UpdateStream(t.Context(), w.config); err != nil {
				t.Fatal(err)
			}
			w.lead(t, source)
			w.waitFor(t, 50)
			w.config.MaxBytes = 100_000_000
			if _, err := w.js.UpdateStream(t.Context(), w.config); err != nil {
				t.Fatal(err)
			}
			w.waitFor(t, source.total())
			w.verify(t, source.total())
		})
	}
}
