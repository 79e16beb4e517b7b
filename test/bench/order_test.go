//go:build bench

package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/test/harness"
)

// TestOrderNoneBesideAttempts has a receiver that takes 5 ms, and 20 keys.
func TestOrderNoneBesideAttempts(t *testing.T) {
	const n, keys = 4_000, 20
	rate := func(order string) float64 {
		var count atomic.Int64
		url := newServer(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			time.Sleep(5 * time.Millisecond)
			count.Add(1)
		}))
		s := harness.New(t, harness.Options{Config: "log: {level: warn}\n", Observers: fmt.Sprintf(`
observers:
  - name: tell
    match: {source: shop, entity: public.orders, ops: [update]}
    order: %s
    actions: [{name: receiver, type: webhook, url: "%s/orders"}]
`, order, url)})
		s.Start("ingest")
		s.WaitForLeader()
		s.Exec(fmt.Sprintf(`INSERT INTO orders (id) SELECT i FROM generate_series(1, %d) i`, keys))
		for range n / keys {
			s.Exec(`UPDATE orders SET n = n + 1`)
		}
		s.WaitForEvents(n+keys, time.Minute)
		s.Start("worker")
		return rateUntil(t, n, 2*time.Minute, func() int { return int(count.Load()) })
	}
	attempts := rate("attempts")
	figure{"order: none, 20 keys at 5 ms", rate("none"), attempts, "order: attempts", nil}.print()
	figure{"order: strict, 20 keys at 5 ms", rate("strict"), attempts, "order: attempts", nil}.print()
}

// TestOthersBesideAHungEndpoint compares the p99 from commit to webhook of one observer while the endpoint of another one
// answers, and while it hangs.
func TestOthersBesideAHungEndpoint(t *testing.T) {
	var hangs atomic.Bool
	var mu sync.Mutex
	var took []time.Duration
	url := newServer(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var event struct{ Time time.Time }
		if json.Unmarshal(body, &event) == nil {
			mu.Lock()
			took = append(took, time.Since(event.Time))
			mu.Unlock()
		}
	}))
	// The one that may hang is another origin.
	other := newServer(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if hangs.Load() {
			<-r.Context().Done()
		}
	}))
	s := harness.New(t, harness.Options{Config: "log: {level: warn}\n", Observers: fmt.Sprintf(`
observers:
  - name: well
    match: {source: shop, entity: public.orders}
    actions: [{name: receiver, type: webhook, url: "%s/well", timeout: 5s}]
  - name: other
    match: {source: shop, entity: public.orders}
    actions: [{name: receiver, type: webhook, url: "%s/other", timeout: 5s}]
`, url, other)})
	s.Start("ingest", "worker", "jobrunner")
	s.WaitForLeader()
	waitForPartitions(t, s)
	p99 := func() time.Duration {
		load := s.WriteSteadily(300, 4, 1000, 1)
		time.Sleep(3 * time.Second) // until it is steady
		mu.Lock()
		took = nil
		mu.Unlock()
		time.Sleep(15 * time.Second)
		mu.Lock()
		sample := slices.Sorted(slices.Values(took))
		mu.Unlock()
		load.Stop()
		if len(sample) == 0 {
			t.Fatal("nothing was received")
		}
		return sample[len(sample)*99/100]
	}
	before := p99()
	hangs.Store(true)
	after := p99()
	hangs.Store(false)
	fmt.Printf("p99 from commit to webhook: %v while another endpoint answers, %v while it hangs: %.2f times\n",
		before.Round(100*time.Microsecond), after.Round(100*time.Microsecond), after.Seconds()/before.Seconds())
}
