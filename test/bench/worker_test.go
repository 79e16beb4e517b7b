//go:build bench

package bench

import (
	"fmt"
	"net/http"
	"net/http/httptest"
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
	limit := pullAndAck(t, s, events.StreamEvents, n)
	m := startMeter(s, "nats")
	s.Start("worker")
	rate := rateUntil(t, n, 5*time.Minute, func() int { return int(s.Metric("worker", "tributary_worker_effects_total")) })
	cpu := append(m.stop(n), usage{"worker", s.CPU("worker"), n})
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
	limit := signedPosts(t, url, n)
	count.Store(0)
	m := startMeter(s, "nats")
	s.Start("worker")
	rate := rateUntil(t, n, 5*time.Minute, func() int { return int(count.Load()) })
	cpu := append(m.stop(n), usage{"worker", s.CPU("worker"), n})
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
