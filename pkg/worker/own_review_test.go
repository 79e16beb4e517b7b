package worker_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/tributary-dev/tributary/internal/natskv"
	"github.com/tributary-dev/tributary/pkg/dedupkv"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/jobs"
	"github.com/tributary-dev/tributary/pkg/retry"
	"github.com/tributary-dev/tributary/pkg/worker"
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
				claim, err := dedup.Claim(ctx, c.effect.Key, dedupkv.Owner{Worker: "other", Pin: "later"}, "")
				if err != nil {
					return err
				}
				if err := dedup.Settle(ctx, c.effect.Key, claim, dedupkv.Done); err != nil {
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
