package e2e

import (
	"testing"
	"time"

	"github.com/tributary-dev/tributary/test/harness"
)

// One failover of nearly each kind; test/chaos does a hundred.
func TestFailoversLoseAndRepeatNothing(t *testing.T) {
	s := harness.New(t, harness.Options{Source: harness.SourceOfFailovers})
	names := []string{"ingest-1", "ingest-2"}
	for _, name := range names {
		s.Through(name)
	}
	s.Start(names...)
	s.WaitForLeader()
	leaders := s.WatchLeaders(names...)
	load := s.WriteSteadily(200, 4, 200, 6)
	took := harness.Took{}
	for _, f := range harness.Failovers() {
		if f.Name == "cut off from NATS" {
			continue // as from its leases, which is the harder one: it could still write
		}
		stored := s.CountEvents("shop")
		s.WaitForEvents(stored+50, 30*time.Second) // it reads, so that there is something to take over
		took[f.Name] = append(took[f.Name], f.Run(leaders, 300*time.Millisecond))
	}
	changes := load.Stop()
	s.WaitForEvents(changes, time.Minute)
	s.Settle()
	s.CheckStream(changes)
	looks := leaders.Check()
	t.Logf("%d changes; %d looks at the status; %v", changes, looks, took)
	s.Stop(names...)
}
