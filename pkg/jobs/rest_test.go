package jobs

import (
	"sync/atomic"
	"testing"
	"time"
)

func TestJobsOfAPausedObserverWait(t *testing.T) {
	w := newWorld(t)
	var paused atomic.Bool
	paused.Store(true)
	rests := func(observer string) bool { return observer == "order-shipped" && paused.Load() }
	a := newAction(succeed)
	w.start(t, a.registry(), func(o *Options) { o.Rests = rests; o.ParkMaxAge = time.Nanosecond })
	w.tend(t, SweepOptions{Every: 50 * time.Millisecond, Rests: rests, ParkMaxAge: time.Nanosecond})
	waits, goesOn := job(1), job(2, func(n *New) { n.Effect.Observer = "another"; n.Effect.Key = "shop-1-2~another~tell" })
	w.enqueue(t, waits, goesOn)
	w.await(t, goesOn, in(Done))
	record := w.await(t, waits, func(r *Record) bool { return r.Deferred != "" })
	if record.State != Ready || record.Executions != 0 {
		t.Errorf("the job that waits is %+v", record)
	}
	w.awaitEmpty(t) // it has no ticket
	paused.Store(false)
	w.await(t, waits, in(Done))
	if n := len(a.begun(waits.Effect.Key)); n != 1 {
		t.Errorf("%d runs", n)
	}
}
