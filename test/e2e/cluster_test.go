package e2e

import (
	"testing"
	"time"

	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/test/harness"
)

// The deployment of docker-compose.yml, as processes.
var (
	ingests    = []string{"ingest-1", "ingest-2"}
	workers    = []string{"worker-1", "worker-2", "worker-3"}
	jobRunners = []string{"jobrunner-1", "jobrunner-2"}
	indexers   = []string{"indexer-1"}
)

func TestClusterLosesNothingOverKills(t *testing.T) {
	s := harness.New(t, harness.Options{Cluster: true})
	s.Receiver.Fail(0.1)
	services := [][]string{ingests, workers, jobRunners, indexers}
	for _, names := range services {
		s.Start(names...)
	}
	s.WaitForLeader()

	changes := 0
	victims := []struct {
		what string
		find func() string
	}{
		{"the NATS server that leads EVENTS", func() string { return s.LeaderOf(events.StreamEvents) }},
		{"the ingest that leads", func() string { return s.Leading(ingests...) }},
		{"a worker", func() string { return "worker-2" }},
		{"a jobrunner", func() string { return "jobrunner-1" }},
	}
	for i, victim := range victims {
		load := s.Write(3000, 8, 500, uint64(i))
		s.WaitForEvents(changes+500, time.Minute)
		name := ""
		harness.Eventually(t, time.Minute, "there is "+victim.what, func() bool {
			name = victim.find()
			return name != ""
		})
		s.Kill(name)
		before := s.Receiver.Done()
		killed := time.Now()
		s.Receiver.WaitFor(before+500, time.Minute)
		t.Logf("killed %s (%s) after %d transactions of 3000; the next 500 effects were done within %v",
			name, victim.what, load.Commits(), time.Since(killed).Round(100*time.Millisecond))
		s.Start(name)
		changes = load.Wait()
	}
	s.Receiver.WaitFor(changes, 3*time.Minute)

	s.CheckStream(changes)
	s.Receiver.CheckOrder()
	s.Receiver.CheckBytes()
	if done := s.Receiver.Done(); done != changes {
		t.Errorf("%d effects were done for %d changes", done, changes)
	}
	effects, more := s.Receiver.Repeated()
	t.Logf("%d changes, %d effects in doubt were repeated %d times", changes, effects, more)
	if effects > 2*harness.Concurrency {
		t.Errorf("%d effects were repeated: more than were in doubt", effects)
	}
	harness.Eventually(t, time.Minute, "every event is indexed", func() bool {
		return s.Metric(indexers[0], "tributary_indexer_indexed_total") >= float64(changes)
	})
	for _, names := range services {
		for _, name := range names {
			if !s.Process(name).Running() {
				t.Errorf("%s has ended", name)
			}
		}
		s.Stop(names...)
	}
}
