package jobs

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/deadletter"
	"github.com/tributary-dev/tributary/pkg/retry"
)

// count reads a counter or gauge.
func count(m prometheus.Metric) int {
	var read dto.Metric
	if err := m.Write(&read); err != nil {
		panic(err)
	}
	return int(read.GetCounter().GetValue() + read.GetGauge().GetValue())
}

func TestAFailingJobIsExecutedAsOftenAsItsPolicySays(t *testing.T) {
	w := newWorld(t)
	refusing := newAction(fail)
	r := w.start(t, refusing.registry())
	for name, c := range map[string]struct {
		strategy retry.Strategy
		attempts int
		before   []deadletter.Attempt
		runs     int
	}{
		"exponential":                         {retry.Exponential, 4, nil, 4},
		"linear":                              {retry.Linear, 3, nil, 3},
		"fixed":                               {retry.Fixed, 2, nil, 2},
		"once":                                {retry.Exponential, 1, nil, 1},
		"less what the worker did":            {retry.Fixed, 3, []deadletter.Attempt{{Number: 1, Error: "status 500"}}, 2},
		"not at all where the worker did all": {retry.Fixed, 1, []deadletter.Attempt{{Number: 1, Error: "status 500"}}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			j := job(1, func(n *New) {
				n.Effect.Key = "shop-1-1~observer~" + name
				n.Policy = retry.Policy{MaxAttempts: c.attempts, Strategy: c.strategy, Initial: 30 * time.Millisecond, Max: time.Second}
				n.Attempts = c.before
			})
			w.enqueue(t, j)
			record := w.await(t, j, in(Dead))
			begun := refusing.begun(j.Effect.Key)
			if len(begun) != c.runs || record.Executions != c.attempts || record.Verdict.Reason != deadletter.Exhausted {
				t.Errorf("%d runs, %d executions, %s", len(begun), record.Executions, record.Verdict.Reason)
			}
			for i := 1; i < len(begun); i++ {
				failed := i + len(c.before)
				if pause, least := begun[i].Sub(begun[i-1]), j.Policy.Delay(failed, 0, nil); pause < least {
					t.Errorf("attempt %d began after %s, before %s", failed+1, pause, least)
				}
			}
		})
	}
	w.awaitEmpty(t)
	if n := len(w.letters(t)); n != 6 {
		t.Errorf("%d dead letters", n)
	}
	if n := count(r.metrics.executions.WithLabelValues(outcomeFailed)); n != 12 {
		t.Errorf("%d failed executions are counted", n)
	}
	if n := count(r.metrics.dead.WithLabelValues("exhausted")); n != 6 {
		t.Errorf("%d deaths are counted", n)
	}
}

func TestDelaysBelowASecondAreHonoured(t *testing.T) {
	w := newWorld(t)
	a := newAction(func(_ context.Context, nth int) error {
		if nth < 4 {
			return errRefused
		}
		return nil
	})
	w.start(t, a.registry())
	j := job(1, func(n *New) {
		n.Policy = retry.Policy{MaxAttempts: 5, Strategy: retry.Fixed, Initial: 100 * time.Millisecond, Max: time.Second}
	})
	w.enqueue(t, j)
	w.await(t, j, in(Done))
	begun := a.begun(j.Effect.Key)
	least := time.Hour // the others may suffer from a busy machine
	for i := 1; i < len(begun); i++ {
		pause := begun[i].Sub(begun[i-1])
		if pause < 100*time.Millisecond {
			t.Errorf("pause %d was %s", i, pause)
		}
		least = min(least, pause)
	}
	if least > 225*time.Millisecond { // the server's schedules would take 250 ms or more
		t.Errorf("the shortest pause was %s", least)
	}
}

func TestWhatIsDueLaterIsScheduledAndNotEarly(t *testing.T) {
	w := newWorld(t)
	a := newAction(succeed)
	w.start(t, a.registry())
	var all []New
	for i := range 9 {
		due := time.Now().Add(1400*time.Millisecond + time.Duration(i)*30*time.Millisecond)
		all = append(all, job(i, func(n *New) { n.NotBefore = due }))
	}
	w.enqueue(t, all...)
	if record := w.await(t, all[0], func(*Record) bool { return true }); record.State != Scheduled {
		t.Errorf("state %s", record.State)
	}
	var late []time.Duration
	for _, j := range all {
		w.await(t, j, in(Done))
		begun := a.begun(j.Effect.Key)
		if len(begun) != 1 || begun[0].Before(j.NotBefore) {
			t.Errorf("begun %v, due %v", begun, j.NotBefore)
		}
		late = append(late, begun[0].Sub(j.NotBefore))
	}
	slices.Sort(late)
	if median := late[len(late)/2]; median > 80*time.Millisecond { // schedules alone are late by more
		t.Errorf("late by %s", late)
	}
	w.awaitEmpty(t)
}

func TestHowAJobDies(t *testing.T) {
	for name, c := range map[string]struct {
		do      func(context.Context, int) error
		failure OnFailure
		reason  deadletter.Reason
		runs    int
		letters int
		alerts  int
	}{
		"at once where no attempt mends it": {func(context.Context, int) error { return retry.Permanent(errRefused) }, "", deadletter.Permanent, 1, 1, 0},
		"by panics, which are failures":     {func(context.Context, int) error { panic("oops") }, DeadLetter, deadletter.Exhausted, 3, 1, 0},
		"with an alert":                     {fail, Alert, deadletter.Exhausted, 3, 1, 1},
		"without a dead letter":             {fail, Drop, deadletter.Exhausted, 3, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			a := newAction(c.do)
			r := w.start(t, a.registry())
			j := job(1, func(n *New) { n.OnFailure = c.failure })
			w.enqueue(t, j)
			record := w.await(t, j, in(Dead))
			if record.Verdict.Reason != c.reason || len(a.begun(j.Effect.Key)) != c.runs {
				t.Errorf("%s after %d runs", record.Verdict.Reason, len(a.begun(j.Effect.Key)))
			}
			letters := w.letters(t)
			if len(letters) != c.letters {
				t.Fatalf("%d dead letters", len(letters))
			}
			for _, letter := range letters {
				l := letter.Record
				if l.Reason != c.reason || l.EffectKey != j.Effect.Key || string(l.Event) != string(j.Event) || l.Request.Type != "test" || len(l.Attempts) != c.runs {
					t.Errorf("dead letter %+v", l)
				}
			}
			w.awaitEmpty(t)
			if n := count(r.metrics.alerts); n != c.alerts {
				t.Errorf("%d alerts", n)
			}
		})
	}
}

func TestTicketsTooManyExecuteNothingTwice(t *testing.T) {
	w := newWorld(t)
	goOn := make(chan struct{})
	a := newAction(func(ctx context.Context, nth int) error {
		select {
		case <-goOn:
		case <-ctx.Done():
		}
		if nth == 1 {
			return errRefused
		}
		return nil
	})
	j := job(1)
	for range 50 {
		w.enqueue(t, j) // each but the first is a ticket too many
	}
	first, second := w.start(t, a.registry()), w.start(t, a.registry())
	await(t, "the doubles to be dropped", func() bool { return count(first.metrics.stale)+count(second.metrics.stale) == 49 })
	close(goOn)
	if record := w.await(t, j, in(Done)); record.Executions != 2 || record.Interrupted != 0 {
		t.Errorf("%d executions, %d interrupted", record.Executions, record.Interrupted)
	}
	if n := len(a.begun(j.Effect.Key)); n != 2 {
		t.Errorf("%d runs", n)
	}
	w.awaitEmpty(t)
}

func TestAnOldTicketSetsNoAttemptBack(t *testing.T) {
	w := newWorld(t)
	j := job(1, func(n *New) {
		n.Policy = retry.Policy{MaxAttempts: 2, Strategy: retry.Fixed, Initial: time.Hour, Max: time.Hour}
	})
	w.enqueue(t, j)
	a := newAction(fail)
	r := w.start(t, a.registry())
	waiting := w.await(t, j, in(Scheduled))
	old := *waiting
	old.Executions, old.Due = 0, time.Now()
	if err := w.store.publishTicket(t.Context(), &old, near); err != nil {
		t.Fatal(err)
	}
	await(t, "the old ticket to be dropped", func() bool { return count(r.metrics.stale) == 1 })
	record, err := w.store.Get(t.Context(), j.Effect.Key)
	if err != nil || record.Executions != 1 || !record.Due.Equal(waiting.Due) || len(a.begun(j.Effect.Key)) != 1 {
		t.Errorf("%+v %v", record, err)
	}
	await(t, "its schedule alone to stay", func() bool { return w.messages(t) == 1 })
}

func TestWaitingTicketsTakeNoSlotAndNoPlaceOfReadyOnes(t *testing.T) {
	w := newWorld(t)
	a := newAction(succeed)
	w.start(t, a.registry(), func(o *Options) { o.Concurrency, o.Waiting = 2, 5 })
	due := time.Now().Add(700 * time.Millisecond)
	var later []New
	for i := range 60 {
		later = append(later, job(i, func(n *New) { n.NotBefore = due }))
	}
	w.enqueue(t, later...)
	ready := job(1000)
	w.enqueue(t, ready)
	w.await(t, ready, in(Done))
	if begun := a.begun(ready.Effect.Key)[0]; !begun.Before(due) {
		t.Errorf("it waited %s too long for others", begun.Sub(due))
	}
	for _, j := range later {
		w.await(t, j, in(Done))
		if begun := a.begun(j.Effect.Key); len(begun) != 1 || begun[0].Before(due) {
			t.Errorf("begun %d times, first %s before it was due", len(begun), due.Sub(begun[0]))
		}
	}
	w.awaitEmpty(t)
}

func TestAThousandJobsSettleOnceEach(t *testing.T) {
	w := newWorld(t)
	var successes, deaths atomic.Int64
	a := newAction(func(context.Context, int) error {
		switch n := rand.IntN(10); {
		case n == 0:
			deaths.Add(1)
			return retry.Permanent(errRefused)
		case n < 4:
			return errRefused
		default:
			successes.Add(1)
			return nil
		}
	})
	runners := []*runner{w.start(t, a.registry()), w.start(t, a.registry())}
	var all []New
	for i := range 1000 {
		all = append(all, job(i, func(n *New) {
			n.Policy = retry.Policy{MaxAttempts: 30, Strategy: retry.Fixed, Initial: 5 * time.Millisecond, Max: time.Second, Jitter: 0.5}
		}))
	}
	w.enqueue(t, all...)
	settled := map[State]int{}
	for _, j := range all {
		record := w.await(t, j, func(r *Record) bool { return r.State.Settled() })
		settled[record.State]++
		if n := len(a.begun(j.Effect.Key)); n != record.Executions || record.Interrupted != 0 {
			t.Errorf("%d runs, %d executions, %d interrupted", n, record.Executions, record.Interrupted)
		}
	}
	if settled[Done] != int(successes.Load()) || settled[Dead] != int(deaths.Load()) || settled[Done]+settled[Dead] != 1000 {
		t.Errorf("settled %v, %d successes, %d deaths", settled, successes.Load(), deaths.Load())
	}
	if n := len(w.letters(t)); n != settled[Dead] {
		t.Errorf("%d dead letters for %d dead jobs", n, settled[Dead])
	}
	w.awaitEmpty(t)
	for _, r := range runners {
		if n := count(r.metrics.running) + count(r.metrics.waiting); n != 0 {
			t.Errorf("the gauges end at %d", n)
		}
	}
}

func TestWhatCannotBeReadIsNeitherExecutedNorInTheWay(t *testing.T) {
	w := newWorld(t)
	j := job(1)
	w.enqueue(t, j)
	bucket, err := w.js.KeyValue(t.Context(), "jobs")
	if err != nil {
		t.Fatal(err)
	}
	record, err := w.store.Get(t.Context(), j.Effect.Key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bucket.PutString(t.Context(), record.ticketFor().Key, "no record"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.js.Publish(t.Context(), "jobs.ready.default", []byte("no ticket")); err != nil {
		t.Fatal(err)
	}
	w.start(t, newAction(succeed).registry())
	w.awaitEmpty(t)
	if letters := w.letters(t); len(letters) != 1 || letters[0].Record.Reason != deadletter.Undecodable || string(letters[0].Record.Raw) != "no record" {
		t.Errorf("%d dead letters", len(letters))
	}
}

func TestSettledRecordsGoAfterAWhile(t *testing.T) {
	w := newWorld(t)
	w.start(t, newAction(succeed).registry(), func(o *Options) { o.Keep = time.Second })
	j := job(1)
	w.enqueue(t, j)
	w.await(t, j, in(Done))
	await(t, "the record to go", func() bool {
		_, err := w.store.Get(t.Context(), j.Effect.Key)
		return errors.Is(err, ErrNotFound)
	})
}

func TestSettingsAreChecked(t *testing.T) {
	_, err := NewRunner(nil, &Store{}, actions.Registry{}, nil, Options{Concurrency: -1})
	if err == nil || err.Error() != "jobs.concurrency must not be negative, got -1" {
		t.Error(err)
	}
}
