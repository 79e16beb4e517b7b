package jobs

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/internal/stall"
	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/deadletter"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/retry"
)

// What comes of runners, and of the server, that go away in the middle.

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

func TestALostRunnerLeavesTheTicketToItsHeir(t *testing.T) {
	w := newWorld(t)
	goOn := make(chan struct{})
	r := w.start(t, newAction(func(_ context.Context, nth int) error {
		if nth == 1 {
			<-goOn
		}
		return nil
	}).registry())
	j := job(1)
	w.enqueue(t, j)
	await(t, "the job to begin", func() bool { return count(r.metrics.running) == 1 })
	w.write(t, j, func(r *Record) { // another runner took it over by the same ticket, and will die
		ticket := r.Ticket
		r.interrupt(time.Now())
		r.begin("heir", ticket, time.Now())
	})
	close(goOn)
	if record := w.await(t, j, in(Done)); record.Interrupted != 2 {
		t.Errorf("%d interruptions", record.Interrupted)
	}
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
	released := stall.Begin(t)
	second := newAction(succeed)
	w.start(t, second.registry())
	w.await(t, j, in(Done))
	released.Within(testAckWait/2, "begun and done")
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
	consumer, err := w.js.Consumer(t.Context(), events.StreamJobs, ConsumerName)
	if err != nil {
		t.Fatal(err)
	}
	if n := consumer.CachedInfo().Delivered.Consumer; n != 1 {
		t.Errorf("its ticket was delivered %d times", n)
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
			record := w.await(t, j, in(Dead))
			if n := len(a.begun(j.Effect.Key)); n != 0 || record.Executions != 1 || record.Interrupted != 0 {
				t.Errorf("it was executed %d times after it had ended: %+v", n, record)
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

func TestACancelledJobWhoseRunnerIsLostIsNotBegunAgain(t *testing.T) {
	w := newWorld(t)
	j := job(1)
	w.enqueue(t, j)
	w.write(t, j, func(r *Record) {
		r.begin("lost", 1, time.Now().Add(-time.Hour))
		r.Cancel = true
	})
	a := newAction(succeed)
	w.start(t, a.registry())
	record := w.await(t, j, func(r *Record) bool { return r.State.Settled() })
	if n := len(a.begun(j.Effect.Key)); n != 0 || record.State != Cancelled {
		t.Errorf("%d runs, state %s", n, record.State)
	}
	w.awaitEmpty(t)
}
