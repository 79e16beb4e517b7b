package e2e

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/test/harness"
)

const strictObservers = `
observers:
  - name: park
    match: {source: shop, entity: public.orders}
    order: strict
    retry: {max_attempts: 20, strategy: fixed, initial: 20ms, max: 1s}
    actions: [{name: tell, type: webhook, url: "${receiver}/park/${string(key.id)}", timeout: 5s}]
  - name: skip
    match: {source: shop, entity: public.orders}
    order: strict
    when_dead: skip
    retry: {max_attempts: 20, strategy: fixed, initial: 20ms, max: 1s}
    actions: [{name: tell, type: webhook, url: "${receiver}/skip/${string(key.id)}", timeout: 5s}]
`

// TestStrictOrderUnderKills has two observers of 20 keys, of which one is refused for good until it is mended.
func TestStrictOrderUnderKills(t *testing.T) {
	const keys, each, refused = 20, 26, 7
	s := harness.New(t, harness.Options{Observers: strictObservers})
	parked, skipped := fmt.Sprintf("/park/%d", refused), fmt.Sprintf("/skip/%d", refused)
	var mended atomic.Bool
	s.Receiver.Fail(0.05)
	s.Receiver.Answer(func(r *http.Request) int {
		if !mended.Load() && (r.URL.Path == parked || r.URL.Path == skipped) {
			return http.StatusGone
		}
		return http.StatusOK
	})
	s.Start("ingest", "worker-1", "worker-2", "jobrunner-1", "jobrunner-2")
	s.WaitForLeader()
	s.Exec(fmt.Sprintf(`INSERT INTO orders (id) SELECT i FROM generate_series(1, %d) i`, keys))
	for i := range each - 1 {
		s.Exec(`UPDATE orders SET n = n + 1`)
		switch i {
		case 8:
			s.Kill("worker-1", "jobrunner-1")
		case 16:
			s.Start("worker-1", "jobrunner-1")
			s.Receiver.WaitFor(2*(keys-1)*8, time.Minute)
			s.Kill("worker-2", "jobrunner-2")
		}
	}
	s.Start("worker-2", "jobrunner-2")
	s.Receiver.WaitFor(2*(keys-1)*each, time.Minute)
	harness.Eventually(t, time.Minute, "what is skipped has its dead letters", func() bool { return s.CountDeadLetters() == each+1 })

	var park, skip []string
	for key := range keys {
		park, skip = append(park, fmt.Sprintf("/park/%d", key+1)), append(skip, fmt.Sprintf("/skip/%d", key+1))
	}
	others := append(append([]string{}, park[:refused-1]...), park[refused:]...)
	others = append(append(others, skip[:refused-1]...), skip[refused:]...)
	s.Receiver.CheckStrict(each, others...)
	attempted := map[string]bool{}
	for _, d := range s.Receiver.Deliveries() {
		if d.Path == parked {
			attempted[d.Key] = true
		}
	}
	if len(attempted) != 1 {
		t.Errorf("%d effects of the key that is parked were tried, want the first one alone", len(attempted))
	}
	var waiting []struct{ Behind string }
	read(t, s, &waiting, "jobs", "list", "--state", "parked", "--limit", "100")
	for _, job := range waiting {
		if !attempted[job.Behind] {
			t.Errorf("a job waits behind %q, want %v", job.Behind, attempted)
		}
	}
	if len(waiting) != each-1 {
		t.Errorf("%d jobs wait, want %d", len(waiting), each-1)
	}

	mended.Store(true)
	if retried := tributary(t, s, "dlq", "retry-all", "--observer", "park"); retried.status != 0 {
		t.Fatalf("retry-all: %s", retried.stderr)
	}
	s.Receiver.WaitFor((2*keys-1)*each, time.Minute)
	s.Receiver.CheckStrict(each, append(others, parked)...)
	s.Receiver.CheckBytes()
	effects, more := s.Receiver.Repeated()
	t.Logf("%d effects in doubt were repeated, %d times", effects, more)
}
