package jobs

import (
	"context"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/retry"
)

// sweep runs a sweeper until the test ends.
func (w *world) sweep(t testing.TB, options SweepOptions) {
	t.Helper()
	js := w.server.JetStream(t)
	store, metrics := w.newStore(js)
	w.metrics.swept = metrics.swept
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- RunSweeper(ctx, store, options) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

var quickSweeps = SweepOptions{Every: 50 * time.Millisecond, Margin: 300 * time.Millisecond, AckWait: 100 * time.Millisecond}

func TestTheSweeperMendsJobsWithoutTickets(t *testing.T) {
	for name, c := range map[string]struct {
		job   New
		leave func(*Record) // what the record says when its ticket is lost
		state State
		runs  int
	}{
		"ready":     {job(1), func(*Record) {}, Done, 1},
		"scheduled": {job(1, func(n *New) { n.NotBefore = time.Now().Add(1200 * time.Millisecond) }), func(*Record) {}, Done, 1},
		"failed, and overdue": {job(1), func(r *Record) {
			r.begin("lost", 1, time.Now().Add(-time.Hour))
			r.end(actions.Outcome{}, errRefused, time.Now().Add(-time.Hour), nil)
		}, Done, 1},
		"running, for longer than it may": {job(1), func(r *Record) { r.begin("lost", 1, time.Now().Add(-time.Hour)) }, Done, 1},
		"condemned, and not dead": {job(1), func(r *Record) {
			r.begin("lost", 1, time.Now().Add(-time.Hour))
			r.end(actions.Outcome{}, retry.Permanent(errRefused), time.Now(), nil)
		}, Dead, 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.enqueue(t, c.job)
			w.write(t, c.job, c.leave)
			w.purgeTickets(t)
			a := newAction(succeed)
			w.start(t, a.registry(), func(o *Options) { o.AckWait = 300 * time.Millisecond })
			w.sweep(t, quickSweeps)
			w.await(t, c.job, in(c.state))
			if begun := a.begun(c.job.Effect.Key); len(begun) != c.runs || c.runs > 0 && begun[0].Before(c.job.NotBefore) {
				t.Errorf("%d runs", len(begun))
			}
			w.awaitEmpty(t)
		})
	}
}

func TestTheSweeperLeavesAQueueThatOnlyWaits(t *testing.T) {
	w := newWorld(t)
	goOn := make(chan struct{})
	a := newAction(func(ctx context.Context, _ int) error {
		select {
		case <-goOn:
		case <-ctx.Done():
		}
		return nil
	})
	var all []New
	for i := range 50 {
		all = append(all, job(i))
	}
	w.enqueue(t, all...)
	r := w.start(t, a.registry(), func(o *Options) { o.Concurrency = 1 })
	w.sweep(t, quickSweeps)
	await(t, "one to begin", func() bool { return count(r.metrics.running) == 1 })
	// A job that did lose its ticket shows that the sweeper has been round often enough.
	lost := job(1000)
	w.enqueue(t, lost)
	w.write(t, lost, func(r *Record) { r.begin("lost", 1, time.Now().Add(-time.Hour)) })
	await(t, "the lost one to be found twice", func() bool { return count(w.metrics.swept) >= 2 })
	if n := w.messages(t); n > 50+1+4+4 {
		t.Errorf("%d tickets for 51 jobs", n)
	}
	close(goOn)
	for _, j := range append(all, lost) {
		w.await(t, j, in(Done))
		if n := len(a.begun(j.Effect.Key)); n != 1 {
			t.Errorf("%d runs", n)
		}
	}
}

func TestTheSweeperReadsOnlyWhatChanged(t *testing.T) {
	w := newWorld(t)
	s := &sweeper{store: w.store, open: make(map[string]*openJob), every: time.Second, margin: time.Hour, grace: time.Hour}
	for i := range 200 {
		w.enqueue(t, job(i))
	}
	if err := s.sweep(t.Context()); err != nil || len(s.open) != 200 || s.seen != 200 {
		t.Fatalf("%d open jobs, seen until %d, %v", len(s.open), s.seen, err)
	}
	w.write(t, job(7), func(r *Record) { r.rest(Done, time.Now(), time.Now()) })
	if err := s.sweep(t.Context()); err != nil || len(s.open) != 199 || s.seen != 201 {
		t.Errorf("%d open jobs, seen until %d, %v", len(s.open), s.seen, err)
	}
}

func TestTheSweeperGivesOneJobTicketsEverMoreRarely(t *testing.T) {
	w := newWorld(t)
	w.enqueue(t, job(1))
	s := &sweeper{store: w.store, open: make(map[string]*openJob), every: time.Minute, margin: -time.Hour}
	for range 5 {
		if err := s.sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := w.messages(t); n != 1 {
		t.Fatalf("%d tickets where no runner has come", n)
	}
	idle, err := NewRunner(w.js, w.store, actions.Registry{}, nil, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := idle.consumer(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.purgeTickets(t)
	for range 5 {
		if err := s.sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := w.messages(t); n != 1 {
		t.Errorf("%d tickets after five sweeps", n)
	}
}
