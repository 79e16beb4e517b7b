package e2e

import (
	"testing"
	"time"

	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/test/harness"
)

// A power cut takes what NATS had not synced: the slot still has it, and gives it under the same ids.
func TestPowerCutsOfNATSLoseAndRepeatNothing(t *testing.T) {
	cases := map[string]struct {
		cut     func(s *harness.System, earlier string)
		inDoubt bool // the records of effects are gone, too
	}{
		"of all streams, which were copied while they were written": {
			cut: func(s *harness.System, earlier string) { s.PowerCut(earlier) }, inDoubt: true,
		},
		"of EVENTS, and the records of effects are there": {
			cut: func(s *harness.System, earlier string) { s.PowerCut(earlier, events.StreamEvents) },
		},
		"in the middle of a write": {
			cut: func(s *harness.System, _ string) { s.Tear(events.StreamEvents, 20_000) },
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := harness.New(t, harness.Options{})
			s.Start("ingest", "worker", "jobrunner")
			s.WaitForLeader()
			load := s.Write(1000, 4, 200, 8)
			harness.Eventually(t, time.Minute, "half is written", func() bool { return load.Commits() > 500 })
			earlier := s.CopyStore()
			changes := load.Wait()
			s.Receiver.WaitFor(changes, time.Minute)
			c.cut(s, earlier)
			held := s.CountEvents("shop")
			s.WaitForEvents(changes, time.Minute)
			load = s.Write(100, 4, 200, 9)
			changes = load.Wait()
			s.Receiver.WaitFor(changes, time.Minute)
			s.Settle()
			s.CheckStream(changes)
			s.Receiver.CheckBytes()
			effects, _ := s.Receiver.Repeated()
			t.Logf("EVENTS came back with %d of %d events or more; %d effects were repeated", held, changes, effects)
			if effects > 0 && !c.inDoubt {
				t.Errorf("%d effects were repeated, which were on record", effects)
			}
			s.Stop("ingest", "worker", "jobrunner")
		})
	}
}
