package chaos

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/test/harness"
)

const oneEndpoint = `
observers:
  - name: down
    match: {source: shop, entity: public.orders}
    retry: {max_attempts: 50, strategy: fixed, initial: 200ms, max: 1s}
    actions: [{name: tell, type: webhook, url: "${receiver}/down", timeout: 5s}]
`

// TestTenWorkersHearOfAnEndpointThatIsDown lets an endpoint fail under ten workers of their own, and measures from their logs
// how long the last one takes to hear of the circuit that the first has opened, and how many calls failed until then.
func TestTenWorkersHearOfAnEndpointThatIsDown(t *testing.T) {
	const workers, perSecond, mostFailing = 10, 300, 200
	s := harness.New(t, harness.Options{Observers: oneEndpoint, Config: "circuits: {open_for: 1m}\n"})
	s.Start("ingest", "jobrunner")
	var names []string
	for i := range workers {
		names = append(names, fmt.Sprint("worker-", i+1))
	}
	s.Start(names...)
	s.WaitForLeader()
	load := s.WriteSteadily(perSecond, 4, 500, 1)
	harness.Eventually(t, time.Minute, "every worker is ready", func() bool { // one of them may have no partition
		return !slices.ContainsFunc(names, func(name string) bool {
			status, _ := s.Get(name, "/readyz")
			return status != http.StatusOK
		})
	})
	s.Receiver.WaitFor(5*perSecond, time.Minute)
	s.Receiver.Delay(20 * time.Millisecond)
	before := len(s.Receiver.Deliveries())
	s.Receiver.Fail(1)

	heard := regexp.MustCompile(`(?m)^time=(\S+) .*msg="(?:circuit opens: calls are deferred|circuit is open|circuit is probing)"`)
	var first, last time.Time
	harness.Eventually(t, time.Minute, "every worker has the circuit open", func() bool {
		first, last = time.Time{}, time.Time{}
		for _, name := range names {
			found := heard.FindStringSubmatch(s.Process(name).Log())
			if found == nil {
				return false
			}
			at, err := time.Parse(time.RFC3339Nano, found[1])
			if err != nil {
				t.Fatal(err)
			}
			if first.IsZero() || at.Before(first) {
				first = at
			}
			if at.After(last) {
				last = at
			}
		}
		return true
	})
	failing := 0
	for _, d := range s.Receiver.Deliveries()[before:] {
		if d.Status >= 300 {
			failing++
		}
	}
	t.Logf("the last of %d workers had the circuit open %v after the first; %d calls failed in all", workers, last.Sub(first), failing)
	if failing >= mostFailing {
		t.Errorf("%d calls failed, want fewer than %d", failing, mostFailing)
	}
	load.Stop()
}

// TestAnEndpointIsDownForLong keeps an endpoint down for CHAOS_SECONDS (default 180) at CHAOS_RATE transactions a second
// (default 1,000, of about two changes each), and prints what that costs in NATS and in the worker; then it comes back.
func TestAnEndpointIsDownForLong(t *testing.T) {
	down := time.Duration(setting(t, "CHAOS_SECONDS", 180)) * time.Second
	rate := int(setting(t, "CHAOS_RATE", 1000))
	s := harness.New(t, harness.Options{Observers: oneEndpoint, Config: "circuits: {open_for: 2s, window: 5s, ramp: 3s}\n"})
	s.Start("ingest", "worker-1", "worker-2", "jobrunner")
	s.WaitForLeader()
	load := s.WriteSteadily(rate, 8, 2000, 1)
	s.Receiver.WaitFor(2*rate, time.Minute)
	s.Receiver.Fail(1)
	began, failing := time.Now(), len(s.Receiver.Deliveries())

	var costs []cost
	for time.Since(began) < down {
		time.Sleep(down / 6)
		c := costOf(t, s)
		c.after = time.Since(began)
		costs = append(costs, c)
		t.Log(c)
	}
	called := len(s.Receiver.Deliveries()) - failing
	changes := load.Stop()
	waiting := changes - s.Receiver.Done()
	t.Logf("%d effects wait, in %s; the endpoint was called %d times meanwhile", waiting, size(costs[len(costs)-1].circuits), called)
	early, late := costs[0], costs[len(costs)-1]
	if late.circuits > 64<<10 {
		t.Errorf("KV circuits has %s for %d effects, want kilobytes", size(late.circuits), waiting)
	}
	if late.jobs > 2*early.jobs+1<<20 || late.tickets > early.tickets+200 {
		t.Errorf("jobs have grown with the events: from %v to %v", early, late)
	}
	for i := range late.resident {
		if late.resident[i] > early.resident[i]+100<<20 {
			t.Errorf("a worker has grown from %s to %s", size(early.resident[i]), size(late.resident[i]))
		}
	}

	s.Receiver.Fail(0)
	again := time.Now()
	s.Receiver.WaitFor(changes, 10*time.Minute)
	t.Logf("all were done %v after it was back: %.0f/s; %v", time.Since(again).Round(time.Second),
		float64(waiting)/time.Since(again).Seconds(), costOf(t, s))
	logRamp(t, s.Receiver, again)
	if effects, more := s.Receiver.Repeated(); more > 0 {
		t.Errorf("%d effects came %d times more than once", effects, more)
	}
	if done := s.Receiver.Done(); done != changes {
		t.Errorf("%d effects are done, want %d", done, changes)
	}
	if letters := s.CountDeadLetters(); letters > 0 {
		t.Errorf("there are %d dead letters", letters)
	}
	s.Receiver.CheckOrder()
	s.Receiver.CheckBytes()
}

// cost is what an outage takes, in bytes but for the tickets.
type cost struct {
	after                          time.Duration
	events, circuits, jobs, ledger int64
	tickets                        uint64
	resident                       []int64 // of the workers
}

func (c cost) String() string {
	text := fmt.Sprintf("after %v: EVENTS %s, KV circuits %s, KV jobs %s, JOBS %d tickets, KV dedup %s, workers", c.after.Round(time.Second),
		size(c.events), size(c.circuits), size(c.jobs), c.tickets, size(c.ledger))
	for _, bytes := range c.resident {
		text += " " + size(bytes)
	}
	return text
}

func size(bytes int64) string {
	if bytes < 1<<20 {
		return fmt.Sprintf("%.1f kB", float64(bytes)/(1<<10))
	}
	return fmt.Sprintf("%d MB", bytes>>20)
}

func costOf(t *testing.T, s *harness.System) cost {
	t.Helper()
	state := func(name string) jetstream.StreamState {
		stream, err := s.JetStream().Stream(context.Background(), name)
		if err != nil {
			t.Fatal(err)
		}
		return stream.CachedInfo().State
	}
	bytes := func(name string) int64 { return int64(state(name).Bytes) }
	c := cost{
		events: bytes("EVENTS"), circuits: bytes("KV_circuits"), jobs: bytes("KV_jobs"), ledger: bytes("KV_dedup"), tickets: state("JOBS").Msgs,
	}
	for _, name := range []string{"worker-1", "worker-2"} {
		c.resident = append(c.resident, int64(s.Process(name).ResidentBytes()))
	}
	return c
}

// logRamp prints how the calls came back.
func logRamp(t *testing.T, r *harness.Receiver, from time.Time) {
	t.Helper()
	var began time.Time
	perHalfSecond := make([]int, 10)
	for _, d := range r.Deliveries() {
		if d.At.Before(from) || d.Status >= 300 {
			continue
		}
		if began.IsZero() {
			began = d.At
		}
		if at := int(d.At.Sub(began) / (500 * time.Millisecond)); at < len(perHalfSecond) {
			perHalfSecond[at]++
		}
	}
	t.Logf("calls in each half second since the first that succeeded: %v", perHalfSecond)
}
