package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/test/harness"
)

// The other endpoint of each event stays up.
const twoEndpoints = `
observers:
  - name: up
    match: {source: shop, entity: public.orders}
    actions: [{name: tell, type: webhook, url: "${receiver}/up"}]
  - name: down
    match: {source: shop, entity: public.orders}
    retry: {max_attempts: 50, strategy: fixed, initial: 200ms, max: 1s}
    actions: [{name: tell, type: webhook, url: "%s/down", timeout: 5s}]
`

func TestAnEndpointThatIsDownIsLeftAloneAndCaughtUpInOrder(t *testing.T) {
	down := harness.NewReceiver(t)
	s := harness.New(t, harness.Options{
		Observers: fmt.Sprintf(twoEndpoints, down.URL), Config: "circuits: {open_for: 1s, window: 2s, ramp: 2s}\n",
	})
	s.Start("ingest", "worker-1", "worker-2", "worker-3", "jobrunner")
	s.WaitForLeader()
	load := s.WriteSteadily(200, 4, 40, 1)
	s.Receiver.WaitFor(200, time.Minute)

	down.Delay(20 * time.Millisecond)
	down.Fail(1)
	before := len(down.Deliveries())
	var circuits []struct {
		State  string `json:"state"`
		Parked int    `json:"parked"`
	}
	harness.Eventually(t, 20*time.Second, "its circuit is open, and effects wait", func() bool {
		read(t, s, &circuits, "circuits", "list")
		return len(circuits) == 1 && circuits[0].State != "closed" && circuits[0].Parked > 100
	})
	s.Kill("worker-2") // somebody else keeps what it has parked
	others, commits := s.Receiver.Done(), load.Commits()
	harness.Eventually(t, 30*time.Second, "the other endpoint gets all the same what happens", func() bool {
		return s.Receiver.Done()-others > 500 && s.Receiver.Done() > commits
	})
	if failed := len(down.Deliveries()) - before; failed > 250 {
		t.Errorf("%d calls of an endpoint that was down", failed)
	}

	down.Fail(0)
	from := time.Now()
	waiting := load.Commits() - down.Done()
	harness.Eventually(t, 30*time.Second, "it is called again", func() bool { return load.Commits()-down.Done() < waiting })
	time.Sleep(2 * time.Second) // what is live joins what waits
	changes := load.Stop()
	down.WaitFor(changes, time.Minute)
	s.Receiver.WaitFor(changes, time.Minute)
	if effects, more := down.Repeated(); more > 0 {
		t.Errorf("%d effects came %d times more than once", effects, more)
	}
	if n := down.Done(); n != changes {
		t.Errorf("%d effects are done, want %d", n, changes)
	}
	down.CheckOrder()
	down.CheckBytes()
	s.Receiver.CheckOrder()
	checkRamp(t, down, from)
	harness.Eventually(t, 20*time.Second, "nothing waits any more", func() bool {
		read(t, s, &circuits, "circuits", "list")
		return len(circuits) == 0
	})
}

// checkRamp fails the test where calls came at full speed as soon as the endpoint was back.
func checkRamp(t *testing.T, r *harness.Receiver, from time.Time) {
	t.Helper()
	const first = 300 * time.Millisecond
	var began time.Time
	early := 0
	for _, d := range r.Deliveries() {
		if d.At.Before(from) || d.Status >= 300 {
			continue
		}
		if began.IsZero() {
			began = d.At
		}
		if d.At.Sub(began) < first {
			early++
		}
	}
	t.Logf("%d calls in the first %s", early, first)
	if early > 150 {
		t.Errorf("%d calls came within %s: no ramp", early, first)
	}
}
