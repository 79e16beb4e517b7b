package worker_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/deadletter"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/jobs"
	"github.com/tributary-dev/tributary/pkg/retry"
	"github.com/tributary-dev/tributary/pkg/worker"
)

// strict is hook in strict order.
func strict(whenDead string, attempts int) string {
	return fmt.Sprintf(`
observers:
  - name: o
    order: strict
    when_dead: %s
    retry: {max_attempts: %d, strategy: fixed, initial: 10ms, max: 1s}
    actions:
      - {name: a, type: webhook, url: "http://a.example/"}
`, whenDead, attempts)
}

// runJobs runs jobs with the rig's sink until the test ends, or until kill.
func (r *rig) runJobs() (kill func()) {
	r.t.Helper()
	conn := r.connect()
	js, err := jetstream.New(conn)
	if err != nil {
		r.t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	store := jobs.NewStore(js, jobs.StoreOptions{Log: log})
	runner, err := jobs.NewRunner(js, store, actions.Registry{"webhook": r.sink.of(nil)}, deadletter.New(js), jobs.Options{
		AckWait: time.Second, ShutdownTimeout: 100 * time.Millisecond,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.t.Context()))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := runner.Run(ctx); err != nil && conn.IsConnected() {
			r.t.Error(err)
		}
	}()
	r.t.Cleanup(func() {
		cancel()
		<-ended
	})
	return func() { conn.Close() }
}

func (r *rig) store() *jobs.Store { return jobs.NewStore(r.js, jobs.StoreOptions{}) }

// succeeded gives the commits of what succeeded, by key, in the order in which it came, repetitions left out.
func (s *sink) succeeded() map[string][]uint64 {
	byKey := make(map[string][]uint64)
	seen := make(map[string]bool)
	for _, c := range s.seen() {
		if c.done && !seen[c.effect.Key] {
			seen[c.effect.Key] = true
			byKey[c.key] = append(byKey[c.key], c.at.Commit)
		}
	}
	return byKey
}

// ascend checks that of each key the successes came in the order of the commits, and that there are n.
func (s *sink) ascend(t testing.TB, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d effects succeed", n), func() bool {
		sum := 0
		for _, commits := range s.succeeded() {
			sum += len(commits)
		}
		return sum >= n
	})
	for key, commits := range s.succeeded() {
		for i := 1; i < len(commits); i++ {
			if commits[i] <= commits[i-1] {
				t.Errorf("%s: %d succeeded after %d", key, commits[i], commits[i-1])
			}
		}
	}
}

func TestStrictOrderHoldsForSuccessesWhateverDies(t *testing.T) {
	const partitions = 4
	r := newRig(t, partitions, strict("park", 10))
	r.sink.answer = func(_ context.Context, c call) error {
		if c.at.Commit%10 == 0 && rand.IntN(3) > 0 { // no more often than the policy allows, but for bad luck of 1 in 60
			return errors.New("not now")
		}
		return nil
	}
	w1 := r.start("w1")
	r.start("w2")
	killJobs := r.runJobs()
	for round := range 3 {
		r.insert(keys(400, 20)...)
		eventually(t, "half of it is under way", func() bool { return r.sink.done() > round*400+200 })
		switch round {
		case 0:
			killJobs()
			r.runJobs()
		case 1:
			w1.kill()
			r.start("w3")
		}
	}
	retryAll(t, r)
	r.sink.ascend(t, r.published)
	r.settled()
	r.sink.ascend(t, r.published)
}

// retryAll retries what bad luck has exhausted, until all of it has succeeded.
func retryAll(t *testing.T, r *rig) {
	t.Helper()
	eventually(t, "all effects succeed", func() bool {
		entries, err := deadletter.List(t.Context(), r.js, 0, 1000)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if _, err := r.store().Retry(t.Context(), e, jobs.Again{}); err != nil && !errors.Is(err, deadletter.ErrNotFound) {
				t.Fatal(err)
			}
		}
		n := 0
		for _, commits := range r.sink.succeeded() {
			n += len(commits)
		}
		return n == r.published
	})
}

func TestStrictKeyWhoseEffectDies(t *testing.T) {
	for name, c := range map[string]struct {
		whenDead string
		attempts int
		fail     func() error
		blocked  []uint64 // commits of key "bad" that succeed before a person helps
	}{
		"parks, by the worker":    {"park", 5, func() error { return retry.Permanent(errors.New("never")) }, []uint64{1}},
		"parks, by a runner":      {"park", 2, func() error { return errors.New("not now") }, []uint64{1}},
		"is skipped, by a worker": {"skip", 5, func() error { return retry.Permanent(errors.New("never")) }, []uint64{1, 5, 7}},
		"is skipped, by a runner": {"skip", 2, func() error { return errors.New("not now") }, []uint64{1, 5, 7}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			r := newRig(t, 1, strict(c.whenDead, c.attempts))
			mended := make(chan struct{})
			r.sink.answer = func(_ context.Context, call call) error {
				select {
				case <-mended:
					return nil
				default:
				}
				if call.at.Commit == 3 {
					return c.fail()
				}
				return nil
			}
			w := r.start("w1")
			r.runJobs()
			r.insert("bad", "good", "bad", "good", "bad", "good", "bad", "good") // commits 1 to 8
			r.settled()
			eventually(t, "there is a dead letter", func() bool { return len(r.deadLetters()) == 1 })
			bad, good := "public.orders/bad", "public.orders/good"
			eventually(t, "what may succeed has", func() bool {
				done := r.sink.succeeded()
				return len(done[good]) == 4 && len(done[bad]) == len(c.blocked)
			})
			if c.whenDead == "park" {
				for _, commit := range []uint64{5, 7} {
					if state := r.job(effectKey(commit, "o", "a")).State; state != jobs.Parked {
						t.Errorf("%d is %s", commit, state)
					}
				}
				w.stop() // the next worker has to find it out
				r.start("w2")
				r.insert("bad") // 9
				r.settled()
				if state := r.job(effectKey(9, "o", "a")).State; state != jobs.Parked {
					t.Errorf("9 is %s", state)
				}
			}
			close(mended)
			retryAll(t, r)
			if c.whenDead == "park" {
				r.sink.ascend(t, r.published)
			}
			eventually(t, "the dead letter goes", func() bool { return len(r.deadLetters()) == 0 })
			lane := jobs.LaneOf("shop", bad, "o", "a", jobs.Park)
			eventually(t, "the lane is empty", func() bool {
				_, err := r.store().First(t.Context(), lane)
				return errors.Is(err, jobs.ErrNotFound)
			})
			r.insert("bad") // and from now on it is as before
			r.settled()
			eventually(t, "the next one is done", func() bool { return r.sink.done() >= r.published })
			if _, err := r.store().Get(t.Context(), effectKey(r.commit, "o", "a")); !errors.Is(err, jobs.ErrNotFound) {
				t.Errorf("an effect whose lane is free became a job (%v)", err)
			}
		})
	}
}

func TestStrictEffectThatCanNotBeRenderedHoldsItsKey(t *testing.T) {
	r := newRig(t, 1, `
observers:
  - name: o
    order: strict
    actions:
      - {name: a, type: webhook, url: "http://a.example/${after.n == 2 ? after.missing : string(after.n)}"}
`)
	r.start("w1")
	r.runJobs()
	r.insert("k", "k", "k")
	r.settled()
	eventually(t, "there is a dead letter", func() bool { return len(r.deadLetters()) == 1 })
	if n := r.sink.done(); n != 1 {
		t.Errorf("%d effects are done, want 1", n)
	}
	entries, err := deadletter.List(t.Context(), r.js, 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.store().Remove(t.Context(), entries[0]); err != nil {
		t.Fatal(err)
	}
	r.sink.ascend(t, 2)
}

// stuckQueue stops when it has enqueued a job, until it is let go on, with an error.
type stuckQueue struct {
	*jobs.Store
	after      string // the effect key
	stuck, end chan struct{}
}

func (q *stuckQueue) Enqueue(ctx context.Context, n jobs.New) error {
	if err := q.Store.Enqueue(ctx, n); err != nil || n.Effect.Key != q.after {
		return err
	}
	close(q.stuck)
	<-q.end
	return errors.New("the worker is dead")
}

func TestStrictHandoverIsCompletedByTheNextWorker(t *testing.T) {
	r := newRig(t, 1, strict("park", 5))
	r.sink.answer = func(_ context.Context, c call) error {
		if c.worker != nil && c.at.Commit == 1 {
			return errors.New("not now")
		}
		return nil
	}
	stream, err := r.js.Stream(t.Context(), "KV_"+events.BucketJobs)
	if err != nil {
		t.Fatal(err)
	}
	second := effectKey(2, "o", "a")
	queue := &stuckQueue{Store: r.store(), after: second, stuck: make(chan struct{}), end: make(chan struct{})}
	w := r.start("w1", func(p *worker.Parts, _ *worker.Options) { p.Jobs = queue })
	r.insert("k", "k", "k")
	<-queue.stuck
	w.kill()
	if err := stream.Purge(t.Context(), jetstream.WithPurgeSubject("$KV.jobs.lane.*."+events.KVKey(second))); err != nil {
		t.Error(err)
	}
	close(queue.end)
	<-w.ended
	r.start("w2")
	r.settled()
	r.runJobs()
	r.sink.ascend(t, 3)
	if times := r.sink.times(); times[effectKey(1, "o", "a")] != 2 || times[second] != 1 {
		t.Errorf("attempts are %v", times)
	}
}
