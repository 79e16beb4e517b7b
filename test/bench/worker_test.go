//go:build bench

package bench

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/test/harness"
)

func newServer(t *testing.T, handler http.Handler) string {
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.URL
}

// stored starts a system whose EVENTS holds n inserts over many keys, and no worker.
func stored(t *testing.T, n int, observers string) *harness.System {
	t.Helper()
	t.Setenv("BENCH_SECRET", "whsec_c2VjcmV0IG9mIHRoZSBiZW5jaG1hcms=")
	s := harness.New(t, harness.Options{
		Schema: table, Observers: observers, Settings: map[string]string{"synchronous_commit": "off"}, Config: "log: {level: warn}\n",
		Profile: profiles(),
	})
	s.Start("ingest")
	s.WaitForLeader()
	s.Exec(fmt.Sprintf(`INSERT INTO orders SELECT `+row+` FROM generate_series(1, %d) i`, n))
	s.WaitForEvents(n, 3*time.Minute)
	s.Stop("ingest")
	return s
}

func TestStreamToNoOp(t *testing.T) {
	const n = 100_000
	s := stored(t, n, `
observers:
  - name: nothing
    match: {source: shop, entity: public.orders}
    actions: [{name: log, type: log, level: debug, message: nothing}]
`)
	bare := startMeter(s, "nats")
	limit := pullAndAck(t, s, events.StreamEvents, n)
	least := bare.stop(n)[0]
	m := startMeter(s, "nats")
	s.Start("worker")
	effects := func() int { return int(s.Metric("worker", "tributary_worker_effects_total")) }
	defer profile(t, s, "no-op", func() bool { return effects() > 0 }, "nats", "worker")()
	rate := rateUntil(t, n, 5*time.Minute, effects)
	cpu := append(m.stop(n), usage{"worker", s.CPU("worker"), n}, usage{"nats of the limit", least.total, n})
	figure{"stream to no-op action", rate, limit, "pull and ack", cpu}.print()
}

func TestStreamToWebhook(t *testing.T) {
	const n = 60_000
	url, count := fastReceiver(t)
	s := stored(t, n, fmt.Sprintf(`
observers:
  - name: tell
    match: {source: shop, entity: public.orders}
    actions: [{name: receiver, type: webhook, url: "%s/orders", secret: env:BENCH_SECRET}]
`, url))
	before := ownCPU(t)
	limit := signedPosts(t, url, n)
	bare := ownCPU(t) - before
	count.Store(0)
	m := startMeter(s, "nats")
	before = ownCPU(t)
	s.Start("worker")
	defer profile(t, s, "webhook", func() bool { return count.Load() > n/10 }, "worker")()
	rate := rateUntil(t, n, 5*time.Minute, func() int { return int(count.Load()) })
	receiver := ownCPU(t) - before
	cpu := append(m.stop(n), usage{"worker", s.CPU("worker"), n}, usage{"receiver", receiver, n}, usage{"receiver and client of the limit", bare, n})
	figure{"stream to signed loopback webhook", rate, limit, "bare signed POSTs", cpu}.print()
}

func TestEnqueueToSettledJob(t *testing.T) {
	const n = 30_000
	s := stored(t, n, `
observers:
  - name: later
    match: {source: shop, entity: public.orders}
    actions: [{name: log, type: log, level: debug, message: nothing, async: true}]
`)
	limit := workQueue(t, s, n)
	m := startMeter(s, "nats")
	s.Start("jobrunner", "worker")
	rate := rateUntil(t, n, 5*time.Minute, func() int { return int(s.Metric("jobrunner", "tributary_jobs_executions_total")) })
	cpu := append(m.stop(n), usage{"worker", s.CPU("worker"), n}, usage{"jobrunner", s.CPU("jobrunner"), n})
	figure{"enqueue to settled job", rate, limit, "bare work queue", cpu}.print()
}

// waitForPartitions waits until the one worker holds all: an event that comes before waits for that, and not for its turn.
func waitForPartitions(t *testing.T, s *harness.System) {
	t.Helper()
	harness.Eventually(t, time.Minute, "the worker holds all partitions", func() bool {
		return s.Metric("worker", "tributary_worker_partitions_owned") == 16
	})
}

// TestCommitToWebhook measures the time from a commit to the arrival of its signed webhook, as the receiver sees it.
func TestCommitToWebhook(t *testing.T) {
	const perSecond, seconds = 1000, 10
	var mu sync.Mutex
	var delays []time.Duration
	url := newServer(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		now := time.Now()
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		event, err := events.Parse(body)
		if err != nil {
			t.Error(err)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		delays = append(delays, now.Sub(event.Time))
	}))
	t.Setenv("BENCH_SECRET", "whsec_c2VjcmV0IG9mIHRoZSBiZW5jaG1hcms=")
	s := harness.New(t, harness.Options{
		Schema: table, Settings: map[string]string{"synchronous_commit": "on", "fsync": "on"}, Config: "log: {level: warn}\n",
		Observers: fmt.Sprintf(`
observers:
  - name: tell
    match: {source: shop, entity: public.orders}
    actions: [{name: receiver, type: webhook, url: "%s/orders", secret: env:BENCH_SECRET}]
`, url),
	})
	s.Start("ingest", "worker")
	s.WaitForLeader()
	waitForPartitions(t, s)
	const n = perSecond * seconds
	pace(t, s, n, perSecond)
	rateUntil(t, n, time.Minute, func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(delays)
	})
	mu.Lock()
	defer mu.Unlock()
	slices.Sort(delays)
	at := func(q float64) time.Duration {
		return delays[int(q*float64(len(delays)-1))].Round(10 * time.Microsecond)
	}
	fmt.Printf("%-44s p50 %v, p90 %v, p99 %v, max %v\n",
		fmt.Sprintf("commit to webhook at %d/s", perSecond), at(0.5), at(0.9), at(0.99), at(1))
}
