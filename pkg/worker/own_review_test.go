package worker_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/internal/natskv"
	"github.com/tributary-dev/tributary/internal/stall"
	"github.com/tributary-dev/tributary/pkg/dedupkv"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/jobs"
	"github.com/tributary-dev/tributary/pkg/retry"
	"github.com/tributary-dev/tributary/pkg/worker"
	"github.com/tributary-dev/tributary/streams"
)

// A pull ends when its bytes are spent. What one effect that hangs holds up is its lane, and not the next pull.
func TestHungEffectDoesNotHoldUpWhatComesAfterAFullPull(t *testing.T) {
	const others = 300
	r := newRig(t, 1, hook)
	release := make(chan struct{})
	r.sink.answer = func(ctx context.Context, c call) error {
		if !strings.HasSuffix(c.key, "/hung") {
			return nil
		}
		select {
		case <-release:
		case <-ctx.Done():
		}
		return nil
	}
	r.insert("hung")
	r.insert(keys(others, 50)...)
	r.start("w1", func(_ *worker.Parts, o *worker.Options) { o.PartitionBytes = 32 << 10 }) // about 40 events
	eventually(t, "all others are done", func() bool { return r.sink.done() == others })
	close(release)
	r.settled()
}

// Who was frozen while it sent a request hears of a failure when it wakes. By then somebody else has settled the effect.
func TestFailureOfAnEffectThatWasTakenOverMakesNoJob(t *testing.T) {
	cases := map[string]error{
		"it may be tried again": errors.New("the connection was lost"),
		"it is permanent":       retry.Permanent(errors.New("gone")),
	}
	for name, failure := range cases {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 1, hook)
			dedup, err := dedupkv.New(natskv.Open(r.js, events.BucketDedup), dedupkv.Options{})
			if err != nil {
				t.Fatal(err)
			}
			r.sink.answer = func(ctx context.Context, c call) error {
				ctx, cancel := context.WithCancel(ctx)
				ledger := dedup.Ledger(0, nil)
				var running sync.WaitGroup
				running.Go(func() { ledger.Run(ctx) })
				defer running.Wait()
				defer cancel()
				if _, err := ledger.Own(ctx, dedupkv.Owner{Worker: "other", Pin: "later"}, nil); err != nil {
					return err
				}
				claim, err := ledger.Claim(ctx, c.effect.Key, "")
				if err != nil {
					return err
				}
				if err := ledger.Settle(ctx, c.effect.Key, claim, dedupkv.Done); err != nil {
					return err
				}
				return failure
			}
			r.insert("k")
			r.start("w1")
			r.settled()
			_, err = jobs.NewStore(r.js, jobs.StoreOptions{}).Get(t.Context(), effectKey(1, "o", "a"))
			if !errors.Is(err, jobs.ErrNotFound) {
				t.Errorf("the effect that is done became a job (%v)", err)
			}
			if dead := r.deadLetters(); len(dead) != 0 {
				t.Errorf("the effect that is done became a dead letter: %+v", dead)
			}
			r.sink.once(t, 1)
		})
	}
}

// A stream that is made anew gives its sequences, and a database that is made anew its places, to other events.
func TestEventsOfAStreamThatWasMadeAnewAreNotTakenForTheOldOnes(t *testing.T) {
	cases := map[string]struct {
		running bool // the worker, all the time
		hung    bool // the first event is not settled
	}{
		"by a worker that starts":                       {},
		"by a worker that runs":                         {running: true},
		"by a worker with an event that is not settled": {running: true, hung: true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 1, hook)
			release := make(chan struct{})
			r.sink.answer = func(ctx context.Context, call call) error {
				if c.hung && call.at.Commit == 1 && strings.Contains(call.effect.Key, "-7-") {
					<-release
				}
				return nil
			}
			w := r.start("w1")
			r.insert(keys(5, 5)...)
			done := 5
			if c.hung {
				done--
			}
			eventually(t, "the first events are done", func() bool { return r.sink.done() == done })
			if !c.hung {
				r.settled()
			}
			if !c.running {
				w.stop()
			}
			if err := r.js.DeleteStream(t.Context(), events.StreamEvents); err != nil {
				t.Fatal(err)
			}
			if _, err := streams.Apply(t.Context(), r.js, streams.Options{Partitions: 1}); err != nil {
				t.Fatal(err)
			}
			for commit := range uint64(5) {
				subject, data := row(commit+1, "other", 1)
				data = []byte(strings.ReplaceAll(string(data), "-7-1", "-8-1")) // of another transaction
				if _, err := r.js.Publish(t.Context(), subject, data); err != nil {
					t.Fatal(err)
				}
			}
			if !c.running {
				r.start("w2")
			}
			eventually(t, "the other events are done", func() bool { return r.sink.done() == done+5 })
			close(release)
			r.settled()
		})
	}
}

func TestFirstEventAfterARestartOfTheServerIsNotKeptWaiting(t *testing.T) {
	r := newRig(t, 2, hook)
	w := r.start("w1")
	eventually(t, "both partitions wait for an event", func() bool {
		s := w.Status()
		return len(s.Partitions) == 2 && s.Partitions[0].Held && s.Partitions[1].Held
	})
	r.server.Restart(t)
	eventually(t, "all are connected again", func() bool { return r.js.Conn().IsConnected() && w.conn.IsConnected() })
	began := stall.Begin(t)
	r.insert(keys(20, 20)...)
	eventually(t, "all are done", func() bool { return r.sink.done() == 20 })
	began.Within(5*time.Second, "the first events after the restart")
}

func TestEventsAboveOneThatHangsAreBounded(t *testing.T) {
	const others, room, bound = 1000, 8, 32 * 8
	r := newRig(t, 1, hook)
	release := make(chan struct{})
	r.sink.answer = func(ctx context.Context, c call) error {
		if !strings.HasSuffix(c.key, "/hung") {
			return nil
		}
		select {
		case <-release:
		case <-ctx.Done():
		}
		return nil
	}
	r.insert("hung")
	r.insert(keys(others, 50)...)
	w := r.start("w1", func(_ *worker.Parts, o *worker.Options) { o.MaxAckPending = room })
	eventually(t, "there is no more room", func() bool {
		s := w.Status()
		return len(s.Partitions) == 1 && s.Partitions[0].Events >= bound
	})
	eventually(t, "what came is done", func() bool { return r.sink.done() == w.Status().Partitions[0].Events-1 })
	if n := r.sink.done(); n > bound+room {
		t.Errorf("%d events are in hand above one that hangs, want %d at most", n, bound+room)
	}
	close(release)
	r.settled()
	r.sink.once(t, others+1)
}
