package jobs

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/internal/natskv"
	"github.com/tributary-dev/tributary/pkg/actions/circuit"
	"github.com/tributary-dev/tributary/pkg/deadletter"
	"github.com/tributary-dev/tributary/pkg/events"
)

// circuits opens after five calls, and is probed soon. It shares its state until the test ends.
func (w *world) circuits(t *testing.T, openFor time.Duration, limits ...circuit.Limit) *circuit.Circuits {
	t.Helper()
	c, err := circuit.New(natskv.Open(w.server.JetStream(t), events.BucketCircuits), circuit.Options{
		MinCalls: 5, OpenFor: openFor, Probes: 2, Ramp: 100 * time.Millisecond, Owner: t.Name(), Limits: limits,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = c.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return c
}

func (w *world) tend(t *testing.T, options SweepOptions) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = RunSweeper(ctx, w.store, options) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
}

func at(endpoint string) func(*New) {
	return func(n *New) { n.Request.Endpoint = endpoint }
}

func TestOpenCircuitDefersJobsWithoutACharge(t *testing.T) {
	w := newWorld(t)
	var down atomic.Bool
	var calls atomic.Int64
	down.Store(true)
	a := newAction(func(context.Context, int) error {
		calls.Add(1)
		if down.Load() {
			return errRefused
		}
		return nil
	})
	c := w.circuits(t, 300*time.Millisecond)
	w.start(t, a.registry(), func(o *Options) { o.Circuits = c; o.Concurrency = 4 })
	w.tend(t, SweepOptions{Every: 50 * time.Millisecond, Circuits: c})
	const n = 100
	var list []New
	for i := range n {
		list = append(list, job(i, at("http://down.example:80"), func(j *New) { j.Policy.MaxAttempts = 50 }))
	}
	w.enqueue(t, list...)
	eventuallyTrue(t, "jobs are deferred", func() bool {
		r, err := w.store.Get(t.Context(), list[n-1].Effect.Key)
		return err == nil && r.Deferred == "http://down.example:80"
	})
	stream, err := w.js.Stream(t.Context(), events.StreamJobs)
	if err != nil {
		t.Fatal(err)
	}
	eventuallyTrue(t, "nearly all tickets are gone", func() bool {
		info, err := stream.Info(t.Context())
		return err == nil && info.State.Msgs <= 20
	})
	if made := calls.Load(); made > 50 {
		t.Errorf("%d calls of an endpoint that is down", made)
	}
	down.Store(false)
	for _, j := range list {
		w.await(t, j, func(r *Record) bool { return r.State == Done })
	}
	record, err := w.store.Get(t.Context(), list[n-1].Effect.Key)
	if err != nil || record.Executions != 1 || record.Deferred != "" {
		t.Errorf("the last job has %d executions, deferred %q, %v; want 1", record.Executions, record.Deferred, err)
	}
}

func TestJobDeferredForTooLongDies(t *testing.T) {
	w := newWorld(t)
	c := w.circuits(t, time.Hour)
	if err := circuit.Force(t.Context(), natskv.Open(w.js, events.BucketCircuits), "http://down.example:80", "test", 0); err != nil {
		t.Fatal(err)
	}
	eventuallyTrue(t, "the circuit is open", func() bool { return c.Shut("http://down.example:80") })
	w.start(t, newAction(succeed).registry(), func(o *Options) { o.Circuits, o.ParkMaxAge = c, 200*time.Millisecond })
	w.tend(t, SweepOptions{Every: 50 * time.Millisecond, Circuits: c, ParkMaxAge: 200 * time.Millisecond})
	j := job(1, at("http://down.example:80"))
	w.enqueue(t, j)
	record := w.await(t, j, func(r *Record) bool { return r.State == Dead })
	if record.Verdict == nil || record.Verdict.Reason != deadletter.Exhausted || record.Executions != 0 {
		t.Errorf("verdict %+v after %d executions", record.Verdict, record.Executions)
	}
}

func TestEndpointsAreCalledWithinTheirLimits(t *testing.T) {
	w := newWorld(t)
	var busy, most atomic.Int64
	a := newAction(func(context.Context, int) error {
		if n := busy.Add(1); n > most.Load() {
			most.Store(n)
		}
		defer busy.Add(-1)
		time.Sleep(5 * time.Millisecond) // what a call takes
		return nil
	})
	c := w.circuits(t, time.Second, circuit.Limit{Name: "http://slow.example:80", Rate: "50/s", Concurrency: 2})
	w.start(t, a.registry(), func(o *Options) { o.Circuits = c })
	began := time.Now()
	var list []New
	for i := range 60 {
		list = append(list, job(i, at("http://slow.example:80")))
	}
	w.enqueue(t, list...)
	for _, j := range list {
		w.await(t, j, func(r *Record) bool { return r.State == Done })
	}
	if took := time.Since(began); took < time.Second {
		t.Errorf("60 calls at 50/s took %s", took)
	}
	if most.Load() > 2 {
		t.Errorf("%d calls at the same time, want at most 2", most.Load())
	}
}

func eventuallyTrue(t *testing.T, fact string, holds func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for !holds() {
		select {
		case <-look.C:
		case <-deadline:
			t.Fatalf("never: %s", fact)
		}
	}
}
