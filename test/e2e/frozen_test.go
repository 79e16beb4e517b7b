package e2e

import (
	"net/http"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/test/harness"
)

// What was under way as the worker froze is in doubt, and comes again under its key; nothing else does, though the worker wakes
// with a full pipeline while another one does its work.
func TestAWorkerThatWakesAfterItsTimeRepeatsNothingButWhatWasInDoubt(t *testing.T) {
	s := harness.New(t, harness.Options{})
	s.Start("ingest", "worker-1", "worker-2", "jobrunner")
	s.WaitForLeader()
	harness.Eventually(t, 30*time.Second, "both workers hold partitions", func() bool {
		first, _ := s.Get("worker-1", "/readyz")
		second, _ := s.Get("worker-2", "/readyz")
		return first == http.StatusOK && second == http.StatusOK
	})
	load := s.WriteSteadily(300, 4, 400, 1)
	s.Receiver.WaitFor(500, time.Minute)
	s.Process("worker-1").Freeze()
	at := time.Now()
	harness.Eventually(t, 30*time.Second, "the other worker holds every partition, and all that was written is done", func() bool {
		done, commits := s.Receiver.Done(), load.Commits() // of about two changes each
		return time.Since(at) > 4*time.Second && done >= commits
	})
	s.Process("worker-1").Thaw()
	before := s.Receiver.Done()
	harness.Eventually(t, 30*time.Second, "the work goes on", func() bool { return s.Receiver.Done() > before+600 })
	changes := load.Stop()
	s.Receiver.WaitFor(changes, time.Minute)
	s.Settle()
	s.Receiver.CheckOrder()
	s.Receiver.CheckBytes()
	if done := s.Receiver.Done(); done != changes {
		t.Errorf("%d effects are done, want %d", done, changes)
	}
	effects, more := s.Receiver.Repeated()
	t.Logf("%d effects came %d times more than once", effects, more)
	if more > effects || effects > harness.Concurrency {
		t.Errorf("%d effects came %d times more than once, and %d could be in doubt, once", effects, more, harness.Concurrency)
	}
}
