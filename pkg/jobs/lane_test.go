package jobs

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/deadletter"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/retry"
)

// within puts a job into a lane, by the name of its key.
func within(key string, whenDead WhenDead) func(*New) {
	return func(n *New) { n.Lane = LaneOf("shop", key, "order-shipped", "tell-carrier", whenDead) }
}

// queueOf gives jobs from to to-1, all of one lane.
func queueOf(key string, whenDead WhenDead, from, to int, change ...func(*New)) []New {
	var list []New
	for n := from; n < to; n++ {
		list = append(list, job(n, append(change, within(key, whenDead))...))
	}
	return list
}

// receiver is an action that notes what succeeded, in order; fails says what does not.
type receiver struct {
	fails func(id string, nth int) error

	mu   sync.Mutex
	nth  map[string]int
	done []string // ids of events
}

func (r *receiver) Do(_ context.Context, effect actions.Effect, _ actions.Request) (actions.Outcome, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.nth == nil {
		r.nth = make(map[string]int)
	}
	r.nth[effect.EventID]++
	if r.fails != nil {
		if err := r.fails(effect.EventID, r.nth[effect.EventID]); err != nil {
			return actions.Outcome{Status: 500}, err
		}
	}
	r.done = append(r.done, effect.EventID)
	return actions.Outcome{Status: 200}, nil
}

func (r *receiver) registry() actions.Registry { return actions.Registry{"test": r} }

func (r *receiver) mend() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fails = nil
}

func (r *receiver) got() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.done)
}

// gets waits until so many have succeeded, and checks that they are these, in this order.
func (r *receiver) gets(t *testing.T, jobs ...New) {
	t.Helper()
	var want []string
	for _, j := range jobs {
		want = append(want, j.Effect.EventID)
	}
	await(t, fmt.Sprintf("%d successes", len(want)), func() bool { return len(r.got()) >= len(want) })
	if got := r.got(); !slices.Equal(got, want) {
		t.Errorf("successes are %v, want %v", got, want)
	}
}

// dies gives the event of a job that fails for good.
func dies(j New) func(string, int) error {
	return func(id string, _ int) error {
		if id == j.Effect.EventID {
			return retry.Permanent(errRefused)
		}
		return nil
	}
}

func (w *world) laneIsEmpty(t *testing.T, j New) {
	t.Helper()
	await(t, "the lane to be empty", func() bool {
		_, err := w.store.First(t.Context(), j.Lane)
		return errors.Is(err, ErrNotFound)
	})
}

func TestJobsOfALaneRunOneAfterTheOther(t *testing.T) {
	w := newWorld(t)
	mine, others := queueOf("42", Park, 0, 6), queueOf("43", Park, 10, 12)
	r := &receiver{fails: func(id string, nth int) error {
		if (id == mine[0].Effect.EventID || id == mine[3].Effect.EventID) && nth < 3 {
			return errRefused
		}
		return nil
	}}
	w.enqueue(t, mine...)
	if _, err := w.store.RunNow(t.Context(), mine[2].Effect.Key); !errors.Is(err, ErrQueued) {
		t.Errorf("RunNow of a job that waits its turn: %v", err)
	}
	w.enqueue(t, mine...) // their events are delivered again
	w.start(t, r.registry())
	r.gets(t, mine...)
	w.laneIsEmpty(t, mine[0])
	w.enqueue(t, mine[2]) // once more, when it has ended
	w.enqueue(t, others...)
	r.gets(t, append(slices.Clone(mine), others...)...)
	w.awaitEmpty(t)
	if n := count(w.metrics.enqueued); n != 8 {
		t.Errorf("%d jobs are counted as enqueued, want 8", n)
	}
}

func TestWhatWaitsBehindADeadJobSkipsIt(t *testing.T) {
	w := newWorld(t)
	mine := queueOf("42", Skip, 0, 4)
	r := &receiver{fails: dies(mine[1])}
	w.start(t, r.registry())
	w.enqueue(t, mine...)
	r.gets(t, mine[0], mine[2], mine[3])
	letter := w.letter(t)
	w.laneIsEmpty(t, mine[0])
	r.mend()
	if got := w.retry(t, letter, Again{}); got != Queued {
		t.Errorf("the retry is %s", got)
	}
	r.gets(t, mine[0], mine[2], mine[3], mine[1])
	w.laneIsEmpty(t, mine[0])
}

func TestALaneWaitsForAPersonWhereAJobDied(t *testing.T) {
	for name, c := range map[string]struct {
		frees   func(t *testing.T, w *world, letter deadletter.Entry)
		retried bool
	}{
		"who retries the dead letter": {func(t *testing.T, w *world, letter deadletter.Entry) {
			if got := w.retry(t, letter, Again{}); got != Queued {
				t.Errorf("the retry is %s", got)
			}
		}, true},
		"who removes the dead letter": {func(t *testing.T, w *world, letter deadletter.Entry) {
			if err := w.store.Remove(t.Context(), letter); err != nil {
				t.Error(err)
			}
		}, false},
		"who removes it by other means": {func(t *testing.T, w *world, letter deadletter.Entry) {
			if err := deadletter.Remove(t.Context(), w.js, letter.Sequence); err != nil {
				t.Error(err)
			}
			w.sweep(t, quickSweeps)
		}, false},
		"who cancels the job": {func(t *testing.T, w *world, letter deadletter.Entry) {
			if _, err := w.store.Cancel(t.Context(), letter.Record.EffectKey, time.Hour); err != nil {
				t.Error(err)
			}
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			mine, others := queueOf("42", Park, 0, 4), queueOf("43", Park, 10, 12)
			r := &receiver{fails: dies(mine[1])}
			w.start(t, r.registry(), func(o *Options) { o.Keep = time.Second })
			w.enqueue(t, mine[:3]...)
			w.await(t, mine[1], in(Dead))
			w.enqueue(t, mine[3])
			w.enqueue(t, others...)
			r.gets(t, mine[0], others[0], others[1])
			for _, j := range mine[2:] {
				w.await(t, j, in(Parked))
			}
			if first, err := w.store.First(t.Context(), mine[0].Lane); err != nil || first != mine[1].Effect.Key {
				t.Errorf("first of the lane is %s, %v", first, err)
			}
			letter := w.letter(t)
			r.mend()
			c.frees(t, w, letter)
			want := []New{mine[0], others[0], others[1], mine[1], mine[2], mine[3]}
			if !c.retried {
				want = slices.Delete(want, 3, 4)
			}
			r.gets(t, want...)
			w.laneIsEmpty(t, mine[0])
			w.awaitEmpty(t)
		})
	}
}

func TestALaneThatDiedWithoutAJobIsHeldAndRetried(t *testing.T) {
	w := newWorld(t)
	mine := queueOf("42", Park, 0, 3)
	r := new(receiver)
	w.start(t, r.registry())
	// As a worker leaves it whose first attempt has failed for good.
	record := newRecord(mine[0], time.Now())
	record.condemn(deadletter.Permanent, "refused", time.Now())
	dead := deadletter.New(w.js)
	sequence, err := dead.Store(t.Context(), record.deadLetter())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // once more, when its event is delivered again
		if again, err := dead.Store(t.Context(), record.deadLetter()); err != nil || again != sequence {
			t.Fatalf("stored again at %d, %v; want %d", again, err, sequence)
		}
		if err := w.store.Hold(t.Context(), mine[0], deadletter.Permanent, "refused", sequence); err != nil {
			t.Fatal(err)
		}
	}
	w.enqueue(t, mine[1:]...)
	w.await(t, mine[2], in(Parked))
	if got := w.retry(t, w.letter(t), Again{}); got != Queued {
		t.Errorf("the retry is %s", got)
	}
	r.gets(t, mine...)
	if n := len(w.letters(t)); n != 0 {
		t.Errorf("%d dead letters are left", n)
	}
}

func TestACancelledJobIsPassedOver(t *testing.T) {
	w := newWorld(t)
	mine := queueOf("42", Park, 0, 4)
	mine[0].NotBefore = time.Now().Add(time.Hour)
	w.enqueue(t, mine...)
	for _, j := range []New{mine[2], mine[0]} {
		if _, err := w.store.Cancel(t.Context(), j.Effect.Key, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	r := new(receiver)
	w.start(t, r.registry())
	r.gets(t, mine[1], mine[3])
	w.laneIsEmpty(t, mine[0])
}

// TestWhatIsLeftUndoneInALaneIsMended leaves a lane as one who died between two writes would.
func TestWhatIsLeftUndoneInALaneIsMended(t *testing.T) {
	mine := queueOf("42", Park, 0, 3)
	put := func(t *testing.T, w *world, j New, change func(*Record)) {
		t.Helper()
		record := newRecord(j, time.Now())
		if change != nil {
			change(record)
		}
		value, err := record.encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.store.records.Create(t.Context(), events.KVKey(record.ID), value, 0); err != nil {
			t.Fatal(err)
		}
	}
	queue := func(t *testing.T, w *world, j New) {
		t.Helper()
		if _, err := w.store.records.Create(t.Context(), j.Lane.entry(j.Effect.Key), []byte(j.Effect.Key), 0); err != nil {
			t.Fatal(err)
		}
	}
	ended := func(r *Record) { r.rest(Done, time.Now(), time.Now()) }
	cases := map[string]struct {
		leave func(t *testing.T, w *world)
		want  []New
	}{
		"a record without a place": {func(t *testing.T, w *world) { put(t, w, mine[0], nil) }, mine[:1]},
		"a first one that nobody made ready": {func(t *testing.T, w *world) {
			put(t, w, mine[0], nil)
			queue(t, w, mine[0])
		}, mine[:1]},
		"a first one that has ended": {func(t *testing.T, w *world) {
			for _, j := range mine {
				put(t, w, j, nil)
				queue(t, w, j)
			}
			w.write(t, mine[0], ended)
		}, mine[1:]},
		"a first one whose record has expired": {func(t *testing.T, w *world) {
			queue(t, w, mine[0])
			put(t, w, mine[1], nil)
			queue(t, w, mine[1])
		}, mine[1:2]},
		"a first one that was made ready without a ticket": {func(t *testing.T, w *world) {
			for _, j := range mine {
				put(t, w, j, nil)
				queue(t, w, j)
			}
			w.write(t, mine[0], func(r *Record) { r.rest(Ready, time.Now(), time.Now()) })
		}, mine},
	}
	for name, c := range cases {
		t.Run(name+", by the sweeper", func(t *testing.T) {
			w := newWorld(t)
			c.leave(t, w)
			r := new(receiver)
			w.start(t, r.registry())
			w.sweep(t, quickSweeps)
			r.gets(t, c.want...)
			w.laneIsEmpty(t, mine[0])
		})
		t.Run(name+", by a redelivery", func(t *testing.T) {
			w := newWorld(t)
			c.leave(t, w)
			r := new(receiver)
			w.start(t, r.registry())
			for _, j := range c.want {
				if err := w.store.Resume(t.Context(), j.Effect.Key); err != nil {
					t.Error(err)
				}
			}
			r.gets(t, c.want...)
			w.laneIsEmpty(t, mine[0])
		})
	}
}

func TestLanesKeepTheirOrderWhateverDies(t *testing.T) {
	const lanes, each = 8, 25
	w := newWorld(t)
	random := rand.New(rand.NewPCG(1, 2))
	r := &receiver{fails: func(_ string, nth int) error { // under the receiver's lock
		if random.IntN(4) == 0 && nth < 3 {
			return errRefused
		}
		return nil
	}}
	w.sweep(t, quickSweeps)
	more := func(o *Options) { o.AckWait = 300 * time.Millisecond; o.ShutdownTimeout = 50 * time.Millisecond }
	victims := []*runner{w.start(t, r.registry(), more), w.start(t, r.registry(), more), w.start(t, r.registry(), more)}
	var all sync.WaitGroup
	for lane := range lanes {
		all.Go(func() {
			jobs := queueOf(fmt.Sprint(lane), Park, lane*100, lane*100+each, func(n *New) { n.Policy.MaxAttempts = 10 })
			for _, j := range jobs {
				if err := w.store.Enqueue(t.Context(), j); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i, victim := range victims {
		await(t, "some of it to be done", func() bool { return len(r.got()) > (i+1)*lanes*each/6 })
		victim.js.Conn().Close()
		w.start(t, r.registry(), more)
	}
	all.Wait()
	unique := func() []string {
		seen := make(map[string]bool)
		return slices.DeleteFunc(r.got(), func(id string) bool { // in doubt when its runner died: it may come twice
			again := seen[id]
			seen[id] = true
			return again
		})
	}
	await(t, "all of it to be done", func() bool { return len(unique()) == lanes*each })
	next := make(map[int]int)
	for _, id := range unique() {
		var n int
		if _, err := fmt.Sscanf(id, "shop-1-%d", &n); err != nil {
			t.Fatal(err)
		}
		if lane := n / 100; n%100 != next[lane] {
			t.Errorf("lane %d: %d came for %d", lane, n%100, next[lane])
		}
		next[n/100]++
	}
	for lane := range lanes {
		w.laneIsEmpty(t, queueOf(fmt.Sprint(lane), Park, 0, 1)[0])
	}
}
