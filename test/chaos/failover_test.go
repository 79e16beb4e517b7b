package chaos

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/test/harness"
)

// TestFailoversLoseAndRepeatNothing makes leaders of ingest stop leading, in every way and at any moment, while writers
// write: CHAOS_FAILOVERS times (default 100) on one NATS server, and a fifth of that on three.
func TestFailoversLoseAndRepeatNothing(t *testing.T) {
	failovers := int(setting(t, "CHAOS_FAILOVERS", 100))
	cases := map[string]struct {
		options   harness.Options
		names     []string
		failovers int
	}{
		"two ingests, one NATS server":      {names: []string{"ingest-1", "ingest-2"}, failovers: failovers / 2},
		"three ingests, one NATS server":    {names: []string{"ingest-1", "ingest-2", "ingest-3"}, failovers: failovers - failovers/2},
		"three ingests, three NATS servers": {names: []string{"ingest-1", "ingest-2", "ingest-3"}, failovers: failovers / 5, options: harness.Options{Cluster: true}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			seed := setting(t, "CHAOS_SEED", uint64(time.Now().UnixNano()%1_000_000))
			t.Logf("CHAOS_SEED=%d CHAOS_FAILOVERS=%d", seed, failovers)
			random := rand.New(rand.NewPCG(seed, 0))
			c.options.Source = harness.SourceOfFailovers
			s := harness.New(t, c.options)
			for _, name := range c.names {
				s.Through(name)
			}
			s.Start(c.names...)
			s.WaitForLeader()
			leaders := s.WatchLeaders(c.names...)
			load := s.WriteSteadily(200, 4, 200, seed)
			kinds, took := harness.Failovers(), harness.Took{}
			for n := range c.failovers {
				time.Sleep(time.Duration(200+random.IntN(1300)) * time.Millisecond)
				f := kinds[(n+random.IntN(2))%len(kinds)]
				took[f.Name] = append(took[f.Name], f.Run(leaders, time.Duration(random.IntN(1500))*time.Millisecond))
			}
			changes := load.Stop()
			s.WaitForEvents(changes, 2*time.Minute)
			s.Settle()
			s.CheckStream(changes)
			looks := leaders.Check()
			t.Logf("%d failovers, %d changes, %d looks at the status; %v", c.failovers, changes, looks, took)
			for _, name := range c.names {
				if !s.Process(name).Running() {
					t.Errorf("%s has ended", name)
				}
			}
		})
	}
}
