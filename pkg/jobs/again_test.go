package jobs

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/deadletter"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/retry"
)

// once is the policy of jobs that die at their first failure.
func once(n *New) { n.Policy.MaxAttempts = 1 }

// mendable is an action that fails until it is mended.
type mendable struct {
	*action
	mu     sync.Mutex
	mended bool
}

func newMendable() *mendable {
	m := new(mendable)
	m.action = newAction(func(context.Context, int) error {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.mended {
			return nil
		}
		return errRefused
	})
	return m
}

func (m *mendable) mend() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mended = true
}

// die runs a job until it is dead, and gives its dead letter.
func (w *world) die(t *testing.T, j New) deadletter.Entry {
	t.Helper()
	w.enqueue(t, j)
	w.await(t, j, in(Dead))
	return w.letter(t)
}

// letter gives the one dead letter that there is.
func (w *world) letter(t *testing.T) deadletter.Entry {
	t.Helper()
	letters := w.letters(t)
	if len(letters) != 1 {
		t.Fatalf("there are %d dead letters, want 1", len(letters))
	}
	return letters[0]
}

func (w *world) retry(t *testing.T, letter deadletter.Entry, again Again) Retried {
	t.Helper()
	retried, err := w.store.Retry(t.Context(), letter, again)
	if err != nil {
		t.Fatal(err)
	}
	return retried
}

// forget removes a record, as time does.
func (w *world) forget(t *testing.T, j New) {
	t.Helper()
	key := events.KVKey(j.Effect.Key)
	there, err := w.store.records.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.store.records.Delete(t.Context(), key, there.Revision); err != nil {
		t.Fatal(err)
	}
}

func TestDeadLetterIsRetriedOnceHoweverManyAsk(t *testing.T) {
	for name, forgotten := range map[string]bool{"while its job is known": false, "weeks later": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			m := newMendable()
			w.start(t, m.registry())
			j := job(1, once, func(n *New) { n.Subject = "events.003.shop.public.orders.update" })
			letter := w.die(t, j)
			if forgotten {
				w.forget(t, j)
			}
			m.mend()
			const many = 20
			said := make(chan Retried, many)
			var asking sync.WaitGroup
			for range many {
				asking.Go(func() {
					retried, err := w.store.Retry(t.Context(), letter, Again{})
					if err != nil && !errors.Is(err, deadletter.ErrNotFound) {
						t.Error(err)
					}
					said <- retried
				})
			}
			asking.Wait()
			close(said)
			queued := 0
			for retried := range said {
				if retried == Queued {
					queued++
				}
			}
			if queued != 1 {
				t.Errorf("%d of %d were told that it is queued", queued, many)
			}
			last := w.await(t, j, in(Done))
			if last.Round != 1 || last.Executions != 1 || len(last.Attempts) != 2 || last.Subject == "" {
				t.Errorf("it ended as %+v", last)
			}
			await(t, "the dead letter to go", func() bool { return len(w.letters(t)) == 0 })
			w.awaitEmpty(t)
			if n := len(m.begun(j.Effect.Key)); n != 2 {
				t.Errorf("it was executed %d times, want 2", n)
			}
		})
	}
}

func TestDeadLetterThatDiesAgainIsReplaced(t *testing.T) {
	w := newWorld(t)
	m := newMendable()
	w.start(t, m.registry())
	j := job(1, once)
	first := w.die(t, j)
	if retried := w.retry(t, first, Again{}); retried != Queued {
		t.Fatalf("the retry is %s", retried)
	}
	w.await(t, j, func(r *Record) bool { return r.State == Dead && r.Round == 1 })
	second := w.letter(t)
	if second.Sequence == first.Sequence || second.Record.Round != 1 || len(second.Record.Attempts) != 2 {
		t.Errorf("the dead letter is %+v", second)
	}
	if retried := w.retry(t, first, Again{}); retried != Superseded {
		t.Errorf("a retry of the first one is %s", retried)
	}
	m.mend()
	if retried := w.retry(t, second, Again{}); retried != Queued {
		t.Fatalf("the retry is %s", retried)
	}
	w.await(t, j, in(Done))
	await(t, "the dead letter to go", func() bool { return len(w.letters(t)) == 0 })
}

func TestDryRunOfARetryChangesNothing(t *testing.T) {
	w := newWorld(t)
	m := newMendable()
	w.start(t, m.registry())
	j := job(1, once)
	letter := w.die(t, j)
	m.mend()
	before, err := w.store.records.Get(t.Context(), events.KVKey(j.Effect.Key))
	if err != nil {
		t.Fatal(err)
	}
	if retried := w.retry(t, letter, Again{DryRun: true}); retried != Queued {
		t.Errorf("it would be %s", retried)
	}
	after, err := w.store.records.Get(t.Context(), events.KVKey(j.Effect.Key))
	if err != nil || after.Revision != before.Revision {
		t.Errorf("the record was written: %v", err)
	}
	w.awaitEmpty(t)
	w.letter(t)
	if n := len(m.begun(j.Effect.Key)); n != 1 {
		t.Errorf("it was executed %d times, want 1", n)
	}
}

func TestCancelledRetryCanBeRetried(t *testing.T) {
	w := newWorld(t)
	m := newMendable()
	first := w.start(t, m.registry())
	j := job(1, once)
	letter := w.die(t, j)
	first.stop(t) // so that nobody takes what is queued
	m.mend()
	w.retry(t, letter, Again{})
	if retried := w.retry(t, letter, Again{}); retried != UnderWay {
		t.Errorf("a second retry is %s", retried)
	}
	if _, err := w.store.Cancel(t.Context(), j.Effect.Key, time.Hour); err != nil {
		t.Fatal(err)
	}
	if retried := w.retry(t, letter, Again{}); retried != Queued {
		t.Errorf("the retry of a cancelled one is %s", retried)
	}
	w.start(t, m.registry())
	if last := w.await(t, j, in(Done)); last.Round != 2 {
		t.Errorf("it ended as %+v", last)
	}
	await(t, "the dead letter to go", func() bool { return len(w.letters(t)) == 0 })
}

// A runner that dies between its two writes leaves its ticket.
func TestDeadLetterGoesThoughTheRunnerWasLostBefore(t *testing.T) {
	w := newWorld(t)
	m := newMendable()
	first := w.start(t, m.registry())
	j := job(1, once)
	letter := w.die(t, j)
	first.stop(t)
	w.retry(t, letter, Again{})
	w.write(t, j, func(r *Record) { r.rest(Done, time.Now(), time.Now()) })
	w.start(t, m.registry())
	await(t, "the dead letter to go", func() bool { return len(w.letters(t)) == 0 })
	w.awaitEmpty(t)
	if n := len(m.begun(j.Effect.Key)); n != 1 {
		t.Errorf("it was executed %d times, want 1", n)
	}
}

func TestDeadLetterOfWhatAJobHasDoneGoesAtTheRetry(t *testing.T) {
	w := newWorld(t)
	w.start(t, newAction(succeed).registry())
	j := job(1)
	w.enqueue(t, j)
	w.await(t, j, in(Done))
	request := j.Request
	if err := deadletter.New(w.js).Write(t.Context(), deadletter.Record{
		Reason: deadletter.Crashed, EffectKey: j.Effect.Key, Effect: &j.Effect, Request: &request,
	}); err != nil {
		t.Fatal(err)
	}
	letter := w.letter(t)
	if retried := w.retry(t, letter, Again{DryRun: true}); retried != Succeeded || len(w.letters(t)) != 1 {
		t.Errorf("it would be %s", retried)
	}
	if retried := w.retry(t, letter, Again{}); retried != Succeeded || len(w.letters(t)) != 0 {
		t.Errorf("the retry is %s, and %d dead letters are left", retried, len(w.letters(t)))
	}
}

func TestRetrySendsWhatWasKeptUnlessItIsRenderedAgain(t *testing.T) {
	w := newWorld(t)
	j := job(1, once)
	bodies := make(chan string, 1)
	w.start(t, performerFunc(func(_ actions.Effect, request actions.Request) error {
		bodies <- string(request.Body)
		return errRefused
	}))
	letter := w.die(t, j)
	if got := <-bodies; got != `{"id":1}` {
		t.Fatalf("sent %s", got)
	}
	w.retry(t, letter, Again{})
	if got := <-bodies; got != `{"id":1}` {
		t.Errorf("the retry sent %s", got)
	}
	w.await(t, j, func(r *Record) bool { return r.State == Dead && r.Round == 1 })
	request := j.Request
	request.Body = []byte("anew")
	policy := retry.Default()
	policy.MaxAttempts = 1
	w.retry(t, w.letter(t), Again{Rendered: &Rendered{Request: request, Policy: policy, OnFailure: Drop, Generation: "new"}})
	if got := <-bodies; got != "anew" {
		t.Errorf("the retry sent %s", got)
	}
	last := w.await(t, j, func(r *Record) bool { return r.State == Dead && r.Round == 2 })
	if last.Generation != "new" || w.letter(t).Record.Round != 2 {
		t.Errorf("it ended as %+v", last)
	}
}

func TestWhatHoldsNoActionIsNotRetried(t *testing.T) {
	w := newWorld(t)
	effect := job(1).Effect
	for name, letter := range map[string]deadletter.Entry{
		"an input that is no event": {Sequence: 1, Record: deadletter.Record{ID: "x", Reason: deadletter.Undecodable}},
		"a request never rendered":  {Sequence: 1, Record: deadletter.Record{Reason: deadletter.Render, Effect: &effect}},
		"what can't be read":        {Sequence: 1, Err: errRefused},
	} {
		if _, err := w.store.Retry(t.Context(), letter, Again{}); !errors.Is(err, ErrNotRetriable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	request := job(1).Request
	gone := deadletter.Entry{Sequence: 77, Record: deadletter.Record{Reason: deadletter.Exhausted, Effect: &effect, Request: &request}}
	if _, err := w.store.Retry(t.Context(), gone, Again{}); !errors.Is(err, deadletter.ErrNotFound) {
		t.Errorf("a dead letter that was removed: %v", err)
	}
}

// performerFunc executes jobs by a function.
type performerFunc func(actions.Effect, actions.Request) error

func (f performerFunc) Do(_ context.Context, effect actions.Effect, request actions.Request) (actions.Outcome, error) {
	return actions.Outcome{}, f(effect, request)
}
