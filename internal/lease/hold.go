package lease

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/tributary-dev/tributary/internal/natskv"
)

// hold is one Hold of a keeper.
type hold struct {
	keeper *Keeper
	record record
	seen   struct { // another holder's record, and since when it is as it is; of try alone
		revision uint64
		at       time.Time
	}

	mu       sync.Mutex
	revision uint64    // of the last write that was acknowledged; guarded by mu
	sent     time.Time // when that write was first sent; guarded by mu
}

func (h *hold) acknowledged(revision uint64, sent time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.revision, h.sent = revision, sent
}

func (h *hold) last() (revision uint64, sent time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.revision, h.sent
}

// left is for how long the lease surely is ours from now on.
func (h *hold) left() time.Duration {
	_, sent := h.last()
	return h.keeper.sure() - elapsed(sent)
}

// elapsed is the time since t by the clock that saw more of it: the monotonic one stands still while a machine is
// suspended, the other one can be set back.
func elapsed(t time.Time) time.Duration {
	return max(time.Since(t), time.Now().Round(0).Sub(t.Round(0)))
}

// acquire returns when the lease is ours. A release is seen by watching, a death by asking now and then.
func (h *hold) acquire(ctx context.Context) error {
	ours, err := h.try(ctx)
	if ours || err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	freed := make(chan struct{}, 1)
	var watching sync.WaitGroup
	watching.Go(func() { h.watch(ctx, freed) })
	defer watching.Wait()
	defer stop()
	for {
		wait := time.NewTimer(h.keeper.ttl/20 + rand.N(h.keeper.ttl/20))
		select {
		case <-freed:
		case <-wait.C:
		case <-ctx.Done():
		}
		wait.Stop()
		if ours, err := h.try(ctx); ours || err != nil {
			return err
		}
	}
}

// try asks once for the lease.
func (h *hold) try(ctx context.Context) (ours bool, err error) {
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	within, cancel := context.WithTimeout(ctx, h.keeper.sure())
	defer cancel()
	h.record.Since = time.Now().UTC()
	bucket, key, value := h.keeper.bucket, h.keeper.key, h.record.encode()
	sent := time.Now()
	there, err := bucket.CreateOrGet(within, key, value, h.keeper.ttl)
	revision := there.Revision
	if errors.Is(err, natskv.ErrConflict) {
		var holder record
		if err := json.Unmarshal(there.Value, &holder); err != nil {
			return false, fmt.Errorf("holder's record: %w", err)
		}
		ours := holder.Nonce == h.record.Nonce // of a try whose answer was given up
		if !ours && !holder.Released && !h.abandoned(revision) {
			return false, nil
		}
		sent = time.Now()
		revision, err = bucket.Update(within, key, value, there.Revision, h.keeper.ttl)
	}
	switch {
	case err == nil:
		h.acknowledged(revision, sent)
		return h.left() > 0, nil
	case errors.Is(err, natskv.ErrConflict), ctx.Err() == nil && within.Err() != nil:
		return false, nil
	default:
		return false, err
	}
}

// abandoned tells whether a holder's record has stayed as it is for so long that its TTL must have ended, counted by our own
// clock since we first saw it. The server should have removed it; after a kill -9 of NATS one of its streams came back with
// records that it had removed before, and that no TTL removes any more: nobody would ever lead again.
func (h *hold) abandoned(revision uint64) bool {
	if h.seen.revision != revision {
		h.seen.revision, h.seen.at = revision, time.Now()
	}
	return time.Since(h.seen.at) > 2*h.keeper.ttl
}

// watch says on freed when the lease was given back. Nothing hangs on it: who waits asks by itself too.
func (h *hold) watch(ctx context.Context, freed chan<- struct{}) {
	for ctx.Err() == nil {
		_ = h.keeper.bucket.Watch(ctx, h.keeper.key, func(c *natskv.Change) error {
			if c == nil {
				return nil
			}
			var holder record
			if c.Removed || json.Unmarshal(c.Entry.Value, &holder) == nil && holder.Released {
				select {
				case freed <- struct{}{}:
				default:
				}
			}
			return nil
		})
		pause(ctx, h.keeper.ttl/3)
	}
}

// renew writes the key again three times in a TTL, and soon again where that did not go well.
func (h *hold) renew(ctx context.Context, lose context.CancelCauseFunc) {
	k := h.keeper
	for wait := k.ttl / 3; ; {
		pause(ctx, wait)
		left := h.left()
		if ctx.Err() != nil || left <= 0 {
			return // the rest is the watchdog's
		}
		within, cancel := context.WithTimeout(ctx, left)
		revision, _ := h.last()
		sent := time.Now()
		revision, err := k.bucket.Update(within, k.key, h.record.encode(), revision, k.ttl)
		cancel()
		switch {
		case err == nil:
			h.acknowledged(revision, sent)
			wait = k.ttl / 3
		case errors.Is(err, natskv.ErrConflict):
			lose(fmt.Errorf("%w: another holder took it", ErrLost))
			return
		default:
			wait = k.ttl / 30
		}
	}
}

// watchdog ends work when time is up. It is apart from renew, for a write may block for longer than its context lasts.
func (h *hold) watchdog(ctx context.Context, lose context.CancelCauseFunc) {
	for {
		left := h.left()
		if left <= 0 {
			lose(fmt.Errorf("%w: no renewal was acknowledged for %s", ErrLost, h.keeper.sure()))
			return
		}
		pause(ctx, left)
		if ctx.Err() != nil {
			return
		}
	}
}

// release says that the lease is free.
func (h *hold) release(ctx context.Context) {
	k := h.keeper
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseWithin)
	defer cancel()
	h.record.Released = true
	revision, _ := h.last()
	if _, err := k.bucket.Update(ctx, k.key, h.record.encode(), revision, releasedTTL); err != nil {
		k.log.Warn("lease not given back; it ends by itself", "error", err)
		return
	}
	k.log.Info("lease given back")
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
