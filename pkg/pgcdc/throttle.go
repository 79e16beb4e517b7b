package pgcdc

import (
	"context"
	"sync"
	"time"
)

// throttle bounds the bytes a second that are read, by all connections together. It is safe for concurrent use.
type throttle struct {
	rate int64 // bytes a second; 0 is no bound

	mu   sync.Mutex
	next time.Time // when the next bytes may be read; guarded by mu
}

// wait returns when as many bytes may have been read; it errs when ctx ends first.
func (t *throttle) wait(ctx context.Context, bytes int) error {
	if t.rate <= 0 {
		return nil
	}
	t.mu.Lock()
	now := time.Now()
	if t.next.Before(now) {
		t.next = now
	}
	t.next = t.next.Add(time.Duration(float64(bytes) / float64(t.rate) * float64(time.Second)))
	until := t.next
	t.mu.Unlock()
	timer := time.NewTimer(until.Sub(now))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
