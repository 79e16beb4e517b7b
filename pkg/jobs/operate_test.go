package jobs

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/internal/natsread"
)

// inAnHour keeps a job waiting.
func inAnHour(n *New) { n.NotBefore = time.Now().Add(time.Hour) }

func TestCancelledJobsAreNotExecuted(t *testing.T) {
	w := newWorld(t)
	a := newAction(succeed)
	w.start(t, a.registry())
	waiting := job(1, inAnHour)
	w.enqueue(t, waiting)
	record, err := w.store.Cancel(t.Context(), waiting.Effect.Key, time.Hour)
	if err != nil || record.State != Cancelled {
		t.Fatalf("Cancel gave %+v, %v", record, err)
	}
	if _, err := w.store.Cancel(t.Context(), waiting.Effect.Key, time.Hour); err != nil {
		t.Errorf("a second Cancel: %v", err)
	}
	if _, err := w.store.RunNow(t.Context(), waiting.Effect.Key); !errors.Is(err, ErrSettled) {
		t.Errorf("RunNow of a cancelled job: %v", err)
	}
	w.write(t, waiting, func(r *Record) { r.Due = time.Now() }) // a ticket that comes all the same
	if err := w.store.publishTicket(t.Context(), record, time.Hour); err != nil {
		t.Fatal(err)
	}
	await(t, "the ticket to be dropped", func() bool { return w.messages(t) <= 1 }) // the schedule stays
	if times := a.begun(waiting.Effect.Key); len(times) > 0 {
		t.Errorf("it was executed %d times", len(times))
	}
}

func TestCancellingWaitsForTheAttemptThatRuns(t *testing.T) {
	for name, c := range map[string]struct {
		ends error
		want State
	}{
		"which fails":    {errRefused, Cancelled},
		"which succeeds": {nil, Done},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			begun, end := make(chan struct{}), make(chan struct{})
			a := newAction(func(context.Context, int) error {
				close(begun)
				<-end
				return c.ends
			})
			w.start(t, a.registry())
			j := job(1)
			w.enqueue(t, j)
			<-begun
			record, err := w.store.Cancel(t.Context(), j.Effect.Key, time.Hour)
			if err != nil || record.State != Running || !record.Cancel {
				t.Errorf("Cancel gave %+v, %v", record, err)
			}
			if _, err := w.store.RunNow(t.Context(), j.Effect.Key); !errors.Is(err, ErrRunning) {
				t.Errorf("RunNow of a running job: %v", err)
			}
			close(end)
			last := w.await(t, j, func(r *Record) bool { return r.State.Settled() })
			if last.State != c.want || last.Executions != 1 || len(last.Attempts) != 1 {
				t.Errorf("it ended as %+v", last)
			}
			w.awaitEmpty(t)
			if n := len(a.begun(j.Effect.Key)); n != 1 {
				t.Errorf("it was executed %d times", n)
			}
			if len(w.letters(t)) > 0 {
				t.Error("a cancelled job left a dead letter")
			}
		})
	}
}

func TestCancelledJobOfALostRunnerIsNotTakenOver(t *testing.T) {
	w := newWorld(t)
	j := job(1)
	w.enqueue(t, j)
	w.write(t, j, func(r *Record) {
		r.begin("lost", 1, time.Now().Add(-time.Hour)) // by the ticket that is there
		r.Cancel = true
	})
	a := newAction(succeed)
	w.start(t, a.registry())
	last := w.await(t, j, in(Cancelled))
	if last.Interrupted != 1 || len(a.begun(j.Effect.Key)) > 0 {
		t.Errorf("it was executed %d times: %+v", len(a.begun(j.Effect.Key)), last)
	}
	w.awaitEmpty(t)
}

func TestRunNowDoesNotWaitForTheSchedule(t *testing.T) {
	w := newWorld(t)
	a := newAction(succeed)
	w.start(t, a.registry())
	j := job(1, inAnHour)
	w.enqueue(t, j)
	if _, err := w.store.RunNow(t.Context(), j.Effect.Key); err != nil {
		t.Fatal(err)
	}
	w.await(t, j, in(Done))
	if _, err := w.store.RunNow(t.Context(), j.Effect.Key); !errors.Is(err, ErrSettled) {
		t.Errorf("RunNow of a job that is done: %v", err)
	}
	if _, err := w.store.Cancel(t.Context(), j.Effect.Key, time.Hour); !errors.Is(err, ErrSettled) {
		t.Errorf("Cancel of a job that is done: %v", err)
	}
	if _, err := w.store.RunNow(t.Context(), "nobody"); !errors.Is(err, ErrNotFound) {
		t.Errorf("RunNow of no job: %v", err)
	}
	if n := len(a.begun(j.Effect.Key)); n != 1 {
		t.Errorf("it was executed %d times", n)
	}
}

func TestEachGivesTheJobsOfAFilter(t *testing.T) {
	w := newWorld(t)
	other := job(3, inAnHour, func(n *New) { n.Effect.Observer = "other" })
	w.enqueue(t, job(1), job(2, inAnHour), other)
	if _, err := w.store.records.Put(t.Context(), "junk", []byte("junk"), 0); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		filter Filter
		want   int
	}{
		"all":                    {Filter{}, 3},
		"of a state":             {Filter{States: []State{Scheduled}}, 2},
		"of states":              {Filter{States: []State{Scheduled, Ready}}, 3},
		"of an observer":         {Filter{Observer: "other"}, 1},
		"of a state and another": {Filter{States: []State{Ready}, Observer: "other"}, 0},
		"of an action":           {Filter{Action: "tell-carrier"}, 3},
		"of an event":            {Filter{EventID: "shop-1-2"}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			got := 0
			unreadable, err := w.store.Each(t.Context(), c.filter, func(*Record) error {
				got++
				return nil
			})
			if err != nil || got != c.want || unreadable != 1 {
				t.Errorf("%d jobs, %d unreadable, %v; want %d", got, unreadable, err, c.want)
			}
		})
	}
	got := 0
	_, err := w.store.Each(t.Context(), Filter{}, func(*Record) error {
		got++
		return natsread.ErrStop
	})
	if err != nil || got != 1 {
		t.Errorf("after enough: %d jobs, %v", got, err)
	}
}
