package worker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/internal/natskv"
	"github.com/tributary-dev/tributary/pkg/actions/circuit"
	"github.com/tributary-dev/tributary/pkg/deadletter"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/jobs"
	"github.com/tributary-dev/tributary/pkg/worker"
)

// twoHooks are observers of all rows with endpoints of their own; what fails at first is a job at once, and stays one.
const twoHooks = `
observers:
  - name: down
    retry: {max_attempts: 2, strategy: fixed, initial: 1h, max: 1h}
    actions: [{name: a, type: webhook, url: "http://down.example/"}]
  - name: up
    actions: [{name: a, type: webhook, url: "http://up.example/"}]
`

// outage lets the endpoint down.example fail while it lasts.
type outage struct {
	atomic.Bool
	failed atomic.Int64
}

var errDown = errors.New("connection refused")

func (o *outage) answer(_ context.Context, c call) error {
	if c.effect.Observer == "down" && o.Load() {
		o.failed.Add(1)
		return errDown
	}
	return nil
}

// withCircuits gives a worker circuits that open after five calls, and are probed soon.
func withCircuits(r *rig, change ...func(*circuit.Options)) func(*worker.Parts, *worker.Options) {
	return func(parts *worker.Parts, options *worker.Options) {
		settings := circuit.Options{
			MinCalls: 5, Window: 10 * time.Second, OpenFor: 100 * time.Millisecond, Probes: 2, Ramp: 100 * time.Millisecond,
			Owner: options.ID, Log: options.Log,
		}
		for _, f := range change {
			f(&settings)
		}
		js, err := jetstream.New(r.connect())
		if err != nil {
			r.t.Fatal(err)
		}
		circuits, err := circuit.New(natskv.Open(js, events.BucketCircuits), settings)
		if err != nil {
			r.t.Fatal(err)
		}
		parts.Circuits = circuits
		ctx, cancel := context.WithCancel(context.WithoutCancel(r.t.Context()))
		var running sync.WaitGroup
		running.Go(func() { _ = circuits.Run(ctx) })
		r.t.Cleanup(func() {
			cancel()
			running.Wait()
		})
	}
}

// of gives what a sink saw of an observer.
func (s *sink) seenBy(observer string) []call {
	return slices.DeleteFunc(s.seen(), func(c call) bool { return c.effect.Observer != observer })
}

// ranges lists what is parked.
func (r *rig) ranges() []worker.ParkedRange {
	r.t.Helper()
	list, err := worker.ParkedRanges(r.t.Context(), r.js)
	if err != nil {
		r.t.Fatal(err)
	}
	return list
}

// doneOnce checks that every effect of an observer succeeded once, but for those that became jobs.
func (r *rig) doneOnce(observer string, want int, jobs int64) {
	r.t.Helper()
	done := make(map[string]int)
	for _, c := range r.sink.seenBy(observer) {
		if c.done {
			done[c.effect.Key]++
		}
	}
	for key, n := range done {
		if n > 1 {
			r.t.Errorf("%s was done %d times", key, n)
		}
	}
	if int64(len(done))+jobs != int64(want) {
		r.t.Errorf("%d effects of %s are done and %d are jobs, want %d", len(done), observer, jobs, want)
	}
}

func TestOpenCircuitParksAndDrainsInOrder(t *testing.T) {
	r := newRig(t, 2, twoHooks)
	down := new(outage)
	down.Store(true)
	r.sink.answer = down.answer
	r.start("w1", withCircuits(r))
	r.insert(keys(300, 10)...)
	eventually(t, "what is up is done", func() bool { return len(r.sink.seenBy("up")) == 300 })
	eventually(t, "both partitions have a range", func() bool { return len(r.ranges()) == 2 })
	r.settledBut(1) // though nobody takes what the endpoint would
	if failed := down.failed.Load(); failed > 100 {
		t.Errorf("%d calls were made to an endpoint that is down", failed)
	}
	down.Store(false)
	r.insert(keys(200, 10)...)
	eventually(t, "all is drained", func() bool { return len(r.ranges()) == 0 })
	r.settled()
	eventually(t, "all is done", func() bool { return len(r.sink.seenBy("up")) == 500 })
	r.doneOnce("down", 500, down.failed.Load())
	r.sink.inOrder(t)
	r.insert(keys(20, 10)...)
	eventually(t, "what is new is done", func() bool { return len(r.sink.seenBy("up")) == 520 })
	r.settled()
	r.doneOnce("down", 520, down.failed.Load())
}

func TestParkedRangeIsTakenOver(t *testing.T) {
	r := newRig(t, 1, twoHooks)
	down := new(outage)
	down.Store(true)
	r.sink.answer = down.answer
	long := func(o *circuit.Options) { o.OpenFor = 300 * time.Millisecond }
	first := r.start("w1", withCircuits(r, long))
	r.insert(keys(100, 5)...)
	eventually(t, "there is a range", func() bool { return len(r.ranges()) == 1 })
	r.settledBut(1)
	first.kill()
	r.insert(keys(100, 5)...)
	second := r.start("w2", withCircuits(r, long))
	eventually(t, "the second worker keeps the range", func() bool {
		list := r.ranges()
		return len(list) == 1 && len(r.sink.seenBy("up")) == 200
	})
	down.Store(false)
	eventually(t, "it drains", func() bool { return len(r.sink.seenBy("down"))-int(down.failed.Load()) > 20 })
	second.kill() // in the middle
	r.start("w3", withCircuits(r, long))
	eventually(t, "all is drained", func() bool { return len(r.ranges()) == 0 })
	r.settled()
	r.sink.inOrder(t)
	seen := make(map[string]bool)
	for _, c := range r.sink.seenBy("down") {
		seen[c.effect.Key] = true
	}
	if len(seen) != 200 {
		t.Errorf("%d effects were called for, want 200", len(seen))
	}
}

func TestParkedForTooLongIsADeadLetter(t *testing.T) {
	r := newRig(t, 1, twoHooks)
	down := new(outage)
	down.Store(true)
	r.sink.answer = down.answer
	never := func(o *circuit.Options) { o.OpenFor = time.Hour }
	r.start("w1", withCircuits(r, never), func(_ *worker.Parts, o *worker.Options) { o.ParkMaxAge = 500 * time.Millisecond })
	r.insert(keys(50, 5)...)
	eventually(t, "there is a range", func() bool { return len(r.ranges()) == 1 })
	r.settledBut(1)
	want := 50 - int(down.failed.Load())
	eventually(t, "what waits is given up", func() bool { return len(r.deadLetters()) == want && len(r.ranges()) == 0 })
	for _, letter := range r.deadLetters() {
		if letter.Reason != deadletter.Exhausted || letter.Request == nil || letter.Request.URL != "http://down.example/" {
			t.Errorf("dead letter %s: %s, request %+v", letter.ID, letter.Reason, letter.Request)
		}
	}
}

func TestEventsThatAreGoneAreOrphaned(t *testing.T) {
	r := newRig(t, 1, twoHooks)
	down := new(outage)
	down.Store(true)
	r.sink.answer = down.answer
	w := r.start("w1", withCircuits(r))
	r.insert(keys(100, 5)...)
	eventually(t, "there is a range", func() bool { return len(r.ranges()) == 1 })
	r.settledBut(1)
	stream, err := r.js.Stream(t.Context(), events.StreamEvents)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(t.Context(), jetstream.WithPurgeSequence(80)); err != nil {
		t.Fatal(err)
	}
	down.Store(false)
	eventually(t, "all is drained", func() bool { return len(r.ranges()) == 0 })
	letters := r.deadLetters()
	if len(letters) != 1 || letters[0].Reason != deadletter.Orphaned || letters[0].Observer != "down" {
		t.Errorf("dead letters: %+v", letters)
	}
	for _, letter := range letters {
		lost := letter.Lost
		if lost == nil || lost.From < 1 || lost.To != 79 || lost.Effects != int(80-lost.From) || lost.Since.IsZero() ||
			!strings.Contains(letter.Error, fmt.Sprintf("sequences %d to 79 are gone", lost.From)) {
			t.Errorf("the letter tells of %+v: %s", lost, letter.Error)
		}
		if _, err := jobs.NewStore(r.js, jobs.StoreOptions{}).Retry(t.Context(), deadletter.Entry{Record: letter}, jobs.Again{}); !errors.Is(err, jobs.ErrNotRetriable) {
			t.Errorf("a retry says %v", err)
		}
	}
	const metric = "tributary_worker_parked_lost_total"
	if n := w.counter(metric); n != 1 {
		t.Errorf("%s is %v, want 1", metric, n)
	}
}

// settledBut waits until all but so many events of each partition are acknowledged.
func (r *rig) settledBut(most int) {
	r.t.Helper()
	stream, err := r.js.Stream(r.t.Context(), events.StreamEvents)
	if err != nil {
		r.t.Fatal(err)
	}
	for partition := range r.partitions {
		eventually(r.t, "nearly all is acknowledged", func() bool {
			consumer, err := stream.Consumer(r.t.Context(), worker.ConsumerName(partition))
			return err == nil && consumer.CachedInfo().NumPending == 0 && consumer.CachedInfo().NumAckPending <= most
		})
	}
}

// counter gives a counter of the worker.
func (w *running) counter(name string) float64 {
	w.t.Helper()
	families, err := w.gather.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == name {
			return family.GetMetric()[0].GetCounter().GetValue()
		}
	}
	w.t.Fatalf("the worker does not tell of %s", name)
	return 0
}

func TestOrderHoldsWhileACircuitFlaps(t *testing.T) {
	r := newRig(t, 1, twoHooks)
	down := new(outage)
	r.sink.answer = func(ctx context.Context, c call) error {
		err := down.answer(ctx, c)
		if c.effect.Observer == "down" {
			wait := time.NewTimer(2 * time.Millisecond) // what a call takes
			defer wait.Stop()
			<-wait.C
		}
		return err
	}
	r.start("w1", withCircuits(r, func(o *circuit.Options) { o.OpenFor, o.Window = 30*time.Millisecond, time.Second }))
	const rounds, each = 200, 6
	for round := range rounds { // it is down for twenty rounds, then up for as many
		down.Store(round/20%2 == 0)
		r.insert(keys(each, each)...)
		want := (round + 1) * each
		eventually(t, "the other endpoint is served", func() bool { return len(r.sink.seenBy("up")) == want })
	}
	down.Store(false)
	eventually(t, "all is drained", func() bool { return len(r.ranges()) == 0 })
	r.settled()
	r.sink.inOrder(t)
	r.doneOnce("down", rounds*each, down.failed.Load())
}
