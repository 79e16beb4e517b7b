package worker_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/internal/stall"
	"github.com/tributary-dev/tributary/pkg/dedupkv"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/worker"
)

// spread waits until the partitions are assigned to the workers, each its share. One without events is not pinned.
func spread(t *testing.T, partitions int, workers ...*running) {
	t.Helper()
	share := (partitions + len(workers) - 1) / len(workers)
	eventually(t, fmt.Sprintf("%d workers have %d partitions", len(workers), partitions), func() bool {
		sum := 0
		for _, w := range workers {
			n := len(w.Status().Partitions)
			if n > share {
				return false
			}
			sum += n
		}
		return sum == partitions
	})
}

func TestKilledWorkersPartitionsMoveWithinFiveSeconds(t *testing.T) {
	const partitions = 8
	r := newRig(t, partitions, hook)
	workers := []*running{r.start("w1"), r.start("w2"), r.start("w3")}
	r.insert(keys(400, 40)...)
	spread(t, partitions, workers...)
	eventually(t, "the first events are done", func() bool { return r.sink.done() == 400 })
	r.settled()

	// The victim dies with effects under way: these, and only these, may come twice.
	victim := workers[0]
	var hold atomic.Bool
	hold.Store(true)
	died := make(chan struct{})
	r.sink.answer = func(ctx context.Context, c call) error {
		if c.worker == victim && hold.Load() {
			select {
			case <-died:
			case <-ctx.Done():
			}
		}
		return nil
	}
	r.insert(keys(400, 40)...)
	eventually(t, "the victim is at work", func() bool { return victim.Status().InFlight > 0 })
	eventually(t, "the others are done", func() bool {
		return workers[1].Status().InFlight == 0 && workers[2].Status().InFlight == 0 && r.sink.count() > 500
	})
	inDoubt := make(map[string]bool)
	for _, c := range r.sink.seen() {
		if c.worker == victim && !c.done {
			inDoubt[c.effect.Key] = true
		}
	}
	killed := stall.Begin(t)
	victim.kill()
	hold.Store(false)
	eventually(t, "what was under way is begun again", func() bool {
		times := r.sink.times()
		for key := range inDoubt {
			if times[key] < 2 {
				return false
			}
		}
		return true
	})
	killed.Within(5*time.Second, fmt.Sprintf("partitions moved, %d effects in doubt", len(inDoubt)))
	close(died)
	r.settled()
	r.sink.inOrder(t)
	times := r.sink.times()
	if len(times) != 800 {
		t.Errorf("%d effects, want 800", len(times))
	}
	for key, n := range times {
		if n > 1 && !inDoubt[key] {
			t.Errorf("effect %s was done, and began %d times", key, n)
		}
	}
}

func TestWorkersComeAndGoUnderLoad(t *testing.T) {
	const partitions = 8
	r := newRig(t, partitions, hook)
	r.sink.answer = func(ctx context.Context, _ call) error {
		select {
		case <-time.After(time.Millisecond): // some work
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	workers := []*running{r.start("w1")}
	var load sync.WaitGroup
	stop := make(chan struct{})
	load.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				r.insert(keys(50, 25)...)
			}
			eventually(t, "the workers keep up", func() bool { return r.sink.count() > r.published-500 })
		}
	})
	spread(t, partitions, workers...)
	for i := range 4 {
		workers = append(workers, r.start(fmt.Sprintf("w%d", i+2)))
	}
	spread(t, partitions, workers...)
	for _, w := range workers[:3] {
		w.stop()
	}
	spread(t, partitions, workers[3], workers[4])
	close(stop)
	load.Wait()
	r.settled()
	r.sink.once(t, r.published)
	r.sink.inOrder(t)
}

func TestHotKeyLeavesTheOthersOfItsPartition(t *testing.T) {
	const each = 150
	r := newRig(t, 1, hook)
	hot, release := "public.orders/hot", make(chan struct{})
	r.sink.answer = func(ctx context.Context, c call) error {
		if c.key != hot {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond): // slow
		case <-release:
		case <-ctx.Done():
		}
		return nil
	}
	r.start("w1")
	for i := range each { // half of all events are of one key
		r.insert("hot", fmt.Sprint(i%30))
	}
	done := func() (ofHot, ofOthers int) {
		for _, c := range r.sink.seen() {
			switch {
			case !c.done:
			case c.key == hot:
				ofHot++
			default:
				ofOthers++
			}
		}
		return ofHot, ofOthers
	}
	eventually(t, "the others are done", func() bool { _, others := done(); return others == each })
	if n, _ := done(); n > each*2/3 {
		t.Errorf("the others waited for %d of %d effects of the hot key", n, each)
	}
	close(release)
	r.settled()
	r.sink.once(t, 2*each)
	r.sink.inOrder(t)
}

func TestCleanStopGivesBackWhatItCouldNotEnd(t *testing.T) {
	t.Parallel() // most of it is waiting
	r := newRig(t, 1, hook)
	r.sink.answer = func(ctx context.Context, _ call) error {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	r.insert("a", "b")
	for i := range 2 * dedupkv.MostBegun { // as often as that is no crash
		w := r.start(fmt.Sprintf("w%d", i), func(_ *worker.Parts, o *worker.Options) { o.ShutdownTimeout = 200 * time.Millisecond })
		eventually(t, "both effects are under way", func() bool { return r.sink.count() == 2*(i+1) })
		w.stop()
	}
	r.sink.mu.Lock()
	r.sink.answer = nil
	r.sink.mu.Unlock()
	r.start("last")
	r.settled()
	if n := r.sink.done(); n != 2 {
		t.Errorf("%d effects are done, want 2", n)
	}
	if letters := r.deadLetters(); len(letters) != 0 {
		t.Errorf("dead letters are %+v", letters)
	}
}

func TestEffectWhoseWorkerDiesComesAgainUnderItsKeyThreeTimes(t *testing.T) {
	t.Parallel() // most of it is waiting
	r := newRig(t, 1, hook)
	r.sink.answer = func(_ context.Context, c call) error {
		c.worker.kill() // after the effect, before its record
		return nil
	}
	r.insert("a")
	for i := range dedupkv.MostBegun {
		w := r.start(fmt.Sprintf("w%d", i))
		<-w.ended
		if got := r.sink.count(); got != i+1 {
			t.Fatalf("the effect began %d times, want %d", got, i+1)
		}
	}
	r.start("last")
	r.settled()
	if n := r.sink.count(); n != dedupkv.MostBegun {
		t.Errorf("the effect began %d times, want %d", n, dedupkv.MostBegun)
	}
	calls := r.sink.seen()
	for _, c := range calls {
		if c.effect != calls[0].effect || string(c.request.Body) != string(calls[0].request.Body) {
			t.Errorf("the effect came as %+v, and as %+v", calls[0], c)
		}
	}
	letters := r.deadLetters()
	if len(letters) != 1 || letters[0].Reason != "crashed" || letters[0].Request == nil {
		t.Errorf("dead letters are %+v", letters)
	}
}

func TestRewindRepeatsNothing(t *testing.T) {
	r := newRig(t, 2, hook)
	r.start("w1")
	r.insert(keys(300, 20)...)
	r.settled()
	for partition := range 2 {
		if err := r.js.DeleteConsumer(t.Context(), events.StreamEvents, "worker-"+events.PartitionName(partition)); err != nil {
			t.Fatal(err)
		}
	}
	r.insert(keys(100, 20)...)
	eventually(t, "the new events are done", func() bool { return r.sink.done() == 400 })
	r.settled()
	r.sink.once(t, 400)
	r.sink.inOrder(t)

	// Another worker, which knows of nothing but what is stored.
	if err := r.js.DeleteConsumer(t.Context(), events.StreamEvents, "worker-000"); err != nil {
		t.Fatal(err)
	}
	r.start("w2")
	r.settled()
	r.sink.once(t, 400)
}

func TestServerRestartUnderLoadLosesAndRepeatsNothing(t *testing.T) {
	r := newRig(t, 4, hook)
	r.sink.answer = func(context.Context, call) error {
		<-time.After(2 * time.Millisecond) // some work
		return nil
	}
	r.start("w1")
	r.start("w2")
	r.insert(keys(4000, 50)...)
	eventually(t, "half of it is under way", func() bool { return r.sink.count() > 500 })
	r.server.Restart(t)
	r.settled()
	r.sink.once(t, 4000)
	r.sink.inOrder(t)
}

func TestHungEndpointLeavesTheOthers(t *testing.T) {
	r := newRig(t, 2, `
observers:
  - name: hung
    actions: [{name: a, type: webhook, url: "http://hung.example/"}]
  - name: well
    actions: [{name: a, type: webhook, url: "http://well.example/"}]
`)
	r.sink.answer = func(ctx context.Context, c call) error {
		if c.effect.Observer == "hung" {
			<-ctx.Done()
			return errors.New("no answer")
		}
		return nil
	}
	w := r.start("w1", func(_ *worker.Parts, o *worker.Options) { o.Concurrency, o.ShutdownTimeout = 8, time.Second })
	r.insert(keys(200, 50)...)
	eventually(t, "the other endpoint has all its effects", func() bool { return r.sink.done() == 200 })
	if busy := w.Status().InFlight; busy != 6 { // two thirds of 8, rounded
		t.Errorf("the hung endpoint holds %d slots of 8, want 6", busy)
	}
	r.sink.inOrder(t)
}
