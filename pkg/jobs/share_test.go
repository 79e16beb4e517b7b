package jobs

import (
	"context"
	"testing"
	"time"
)

func TestAHungEndpointLeavesSlotsToOthers(t *testing.T) {
	for name, waiting := range map[string]int{"with room to wait": 100, "without": 1} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			goOn := make(chan struct{})
			a := newAction(func(ctx context.Context, _ int) error {
				select {
				case <-goOn:
				case <-ctx.Done():
				}
				return nil
			})
			w.start(t, a.registry(), func(o *Options) { o.Concurrency, o.Waiting, o.crowded = 4, waiting, 100*time.Millisecond })
			at := func(endpoint string) func(*New) {
				return func(n *New) { n.Request.Endpoint = endpoint }
			}
			var hung []New
			for i := range 20 {
				hung = append(hung, job(i, at("https://hung.example:443")))
			}
			w.enqueue(t, hung...)
			other := job(1000, at("https://other.example:443"))
			w.enqueue(t, other)
			await(t, "the other to begin", func() bool { return len(a.begun(other.Effect.Key)) == 1 })
			begun := 0
			for _, j := range hung {
				begun += len(a.begun(j.Effect.Key))
			}
			if begun > 2 {
				t.Errorf("%d of 4 slots went to one endpoint", begun)
			}
			close(goOn)
			for _, j := range hung {
				if record := w.await(t, j, in(Done)); len(a.begun(j.Effect.Key)) != 1 || record.Executions != 1 {
					t.Errorf("%d runs", len(a.begun(j.Effect.Key)))
				}
			}
		})
	}
}

func TestSharesAreGivenInOrderAndNothingIsKept(t *testing.T) {
	s := newShares(2, nil)
	if !s.try("a") || s.try("a") || !s.try("b") || !s.try("") || !s.try("") {
		t.Fatal("places are not counted by endpoint")
	}
	given := make(chan int, 2)
	for i := range 2 {
		go func() {
			if s.take(context.Background(), "a") {
				given <- i
			}
		}()
		await(t, "it to wait", func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return len(s.all["a"].waiting) == i+1
		})
	}
	late, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if s.take(late, "a") {
		t.Fatal("a place was given that is not there")
	}
	for i := range 2 {
		s.leave("a")
		if got := <-given; got != i {
			t.Errorf("%d came before %d", got, i)
		}
	}
	s.leave("a")
	s.leave("b")
	if len(s.all) != 0 {
		t.Errorf("%d endpoints are kept", len(s.all))
	}
}
