package jobs

import (
	"context"
	"errors"
	"math/rand/v2"
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
	for i := 1; i < len(begun); i++ {
		// The server's schedules would be a quarter of a second late.
		if pause := begun[i].Sub(begun[i-1]); pause < 100*time.Millisecond || pause > 225*time.Millisecond {
			t.Errorf("pause %d was %s", i, pause)
		}
	}
}

func TestWhatIsDueLaterIsScheduledAndNotEarly(t *testing.T) {
	w := newWorld(t)
	a := newAction(succeed)
	w.start(t, a.registry())
	due := time.Now().Add(1400 * time.Millisecond)
	j := job(1, func(n *New) { n.NotBefore = due })
	w.enqueue(t, j)
	if record := w.await(t, j, func(*Record) bool { return true }); record.State != Scheduled {
		t.Errorf("state %s", record.State)
	}
	w.await(t, j, in(Done))
	if begun := a.begun(j.Effect.Key); len(begun) != 1 || begun[0].Before(due) {
		t.Errorf("begun %v, due %v", begun, due)
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

func TestAnotherRunnerTakesOverFromOneThatDied(t *testing.T) {
	w := newWorld(t)
	began, goOn := make(chan struct{}), make(chan struct{})
	slow := newAction(func(context.Context, int) error {
		close(began)
		<-goOn
		return nil
	})
	lost := w.start(t, slow.registry(), func(o *Options) { o.ShutdownTimeout = 100 * time.Millisecond; o.Owner = "lost" })
	j := job(1)
	w.enqueue(t, j)
	<-began
	lost.js.Conn().Close() // as if the process were gone, but for its action

	quick := newAction(succeed)
	heir := w.start(t, quick.registry(), func(o *Options) { o.Owner = "heir" })
	record := w.await(t, j, in(Done))
	if record.Interrupted != 1 || record.Executions != 1 {
		t.Errorf("interrupted %d times, executed %d times", record.Interrupted, record.Executions)
	}
	if first := record.Attempts[0]; !first.Interrupted || first.Number != 1 || len(record.Attempts) != 2 {
		t.Errorf("attempts %+v", record.Attempts)
	}
	if n := count(heir.metrics.interrupted); n != 1 {
		t.Errorf("%d interruptions are counted", n)
	}
	close(goOn)
	lost.stop(t)
	if n := count(lost.metrics.executions.WithLabelValues(outcomeLost)); n != 1 {
		t.Errorf("%d lost results are counted", n)
	}
	w.awaitEmpty(t)
}

func TestTheResultOfALostRunnerIsDropped(t *testing.T) {
	w := newWorld(t)
	began, goOn := make(chan struct{}), make(chan struct{})
	slow := newAction(func(context.Context, int) error {
		close(began)
		<-goOn
		return retry.Permanent(errRefused)
	})
	zombie := w.start(t, slow.registry())
	j := job(1)
	w.enqueue(t, j)
	<-began
	w.write(t, j, func(r *Record) { // another runner took it over, and was done
		r.interrupt(time.Now())
		r.end(actions.Outcome{}, nil, time.Now(), nil)
	})
	close(goOn)
	await(t, "the result to be dropped", func() bool {
		return count(zombie.metrics.executions.WithLabelValues(outcomeLost)) == 1
	})
	if record := w.await(t, j, in(Done)); record.Executions != 1 {
		t.Errorf("%d executions", record.Executions)
	}
	if n := len(w.letters(t)); n != 0 {
		t.Errorf("a job that is done has %d dead letters", n)
	}
	w.awaitEmpty(t) // its ticket comes again, and is stale
}

func TestAJobThatKillsItsRunnersDies(t *testing.T) {
	w := newWorld(t)
	j := job(1)
	w.enqueue(t, j)
	release := make(chan struct{})
	defer close(release)
	deadly := newAction(func(context.Context, int) error { <-release; return nil })
	for i := range 3 {
		began := w.start(t, deadly.registry(), func(o *Options) { o.ShutdownTimeout = 10 * time.Millisecond })
		await(t, "the job to begin", func() bool { return len(deadly.begun(j.Effect.Key)) == i+1 })
		began.js.Conn().Close()
		t.Cleanup(func() { began.cancel() })
	}
	w.start(t, newAction(succeed).registry())
	record := w.await(t, j, in(Dead))
	if record.Verdict.Reason != deadletter.Crashed || record.Interrupted != 3 || record.Executions != 0 {
		t.Errorf("%+v after %d interruptions, %d executions", record.Verdict, record.Interrupted, record.Executions)
	}
	if letters := w.letters(t); len(letters) != 1 || letters[0].Record.Reason != deadletter.Crashed {
		t.Errorf("%d dead letters", len(letters))
	}
}

func TestAShutdownReleasesWhatDoesNotEnd(t *testing.T) {
	w := newWorld(t)
	hanging := newAction(hang)
	first := w.start(t, hanging.registry(), func(o *Options) { o.ShutdownTimeout = 250 * time.Millisecond })
	j, waits := job(1), job(2, func(n *New) { n.NotBefore = time.Now().Add(900 * time.Millisecond) })
	w.enqueue(t, j, waits)
	await(t, "the job to begin", func() bool { return len(hanging.begun(j.Effect.Key)) == 1 })
	first.stop(t)
	record := w.await(t, j, in(Ready))
	if record.Executions != 0 || record.Interrupted != 0 || record.Owner != "" {
		t.Errorf("it was charged: %+v", record)
	}
	released := time.Now()
	second := newAction(succeed)
	w.start(t, second.registry())
	w.await(t, j, in(Done))
	if took := second.begun(j.Effect.Key)[0].Sub(released); took > testAckWait/2 {
		t.Errorf("it began after %s", took)
	}
	w.await(t, waits, in(Done))
	w.awaitEmpty(t)
}

func TestAShutdownLetsRunningJobsEnd(t *testing.T) {
	w := newWorld(t)
	began, goOn := make(chan struct{}), make(chan struct{})
	r := w.start(t, newAction(func(context.Context, int) error {
		close(began)
		<-goOn
		return nil
	}).registry())
	j := job(1)
	w.enqueue(t, j)
	<-began
	r.cancel()
	close(goOn)
	r.stop(t)
	if record, err := w.store.Get(t.Context(), j.Effect.Key); err != nil || record.State != Done {
		t.Errorf("%+v %v", record, err)
	}
	w.awaitEmpty(t)
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

func TestAJobThatTakesLongerThanAckWaitIsExecutedOnce(t *testing.T) {
	w := newWorld(t)
	slow := newAction(func(ctx context.Context, _ int) error {
		timer := time.NewTimer(testAckWait * 2)
		defer timer.Stop()
		select {
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	w.start(t, slow.registry())
	w.start(t, slow.registry())
	j := job(1)
	w.enqueue(t, j)
	if record := w.await(t, j, in(Done)); record.Interrupted != 0 || len(slow.begun(j.Effect.Key)) != 1 {
		t.Errorf("%d runs, %d interrupted", len(slow.begun(j.Effect.Key)), record.Interrupted)
	}
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

func TestJobsSurviveARestartOfTheServer(t *testing.T) {
	w := newWorld(t)
	restarted := make(chan struct{})
	a := newAction(func(ctx context.Context, nth int) error {
		if nth > 1 {
			return nil
		}
		select { // the first attempts end while the server is away, or after it came back
		case <-restarted:
		case <-time.After(time.Duration(rand.IntN(1500)) * time.Millisecond):
		}
		return errRefused
	})
	w.start(t, a.registry())
	var all []New
	for i := range 40 {
		all = append(all, job(i, func(n *New) { n.Policy.Initial, n.Policy.Max = 1200*time.Millisecond, 2*time.Second }))
	}
	w.enqueue(t, all...)
	await(t, "jobs to be running", func() bool { return len(a.begun(all[0].Effect.Key)) == 1 })
	w.server.Restart(t)
	close(restarted)
	for _, j := range all {
		record := w.await(t, j, in(Done))
		if n := len(a.begun(j.Effect.Key)); n != 2 || record.Executions != 2 {
			t.Errorf("%d runs, %d executions", n, record.Executions)
		}
	}
	w.awaitEmpty(t)
}

func TestADeathThatWasCutOffIsCarriedOut(t *testing.T) {
	for name, written := range map[string]bool{"before its dead letter": false, "after its dead letter": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			j := job(1)
			w.enqueue(t, j)
			w.write(t, j, func(r *Record) {
				r.begin("lost", 1, time.Now())
				r.end(actions.Outcome{Status: 410}, retry.Permanent(errRefused), time.Now(), nil)
				if written {
					if err := deadletter.New(w.js).Write(t.Context(), r.deadLetter()); err != nil {
						t.Fatal(err)
					}
				}
			})
			a := newAction(succeed)
			w.start(t, a.registry())
			w.await(t, j, in(Dead))
			if n := len(a.begun(j.Effect.Key)); n != 0 {
				t.Errorf("it was executed %d times after it had ended", n)
			}
			if letters := w.letters(t); len(letters) != 1 || letters[0].Record.Reason != deadletter.Permanent {
				t.Errorf("%d dead letters", len(letters))
			}
			w.awaitEmpty(t)
		})
	}
}

func TestARunnerThatDiedBeforeItsNextTicketLeavesNoGap(t *testing.T) {
	w := newWorld(t)
	j := job(1)
	w.enqueue(t, j)
	// Somebody takes the ticket, writes the record, and dies.
	lost, err := NewRunner(w.js, w.store, actions.Registry{}, nil, Options{AckWait: testAckWait})
	if err != nil {
		t.Fatal(err)
	}
	consumer, err := lost.consumer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := consumer.Next(); err != nil {
		t.Fatal(err)
	}
	w.write(t, j, func(r *Record) {
		r.begin("lost", 1, time.Now())
		r.end(actions.Outcome{}, errRefused, time.Now(), nil)
	})
	a := newAction(succeed)
	w.start(t, a.registry())
	if record := w.await(t, j, in(Done)); record.Executions != 2 || record.Interrupted != 0 {
		t.Errorf("%d executions, %d interrupted", record.Executions, record.Interrupted)
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
