package ingest

import (
	"context"
	"sync"
	"time"

	"github.com/tributary-dev/tributary/pkg/events"
)

// Feed is the bounded road between the reader of a source and its publisher. The source's side is Batch, Put, Sync,
// Idle, Through, InTouch, RoundTrip, Report and Confirmable; all are safe for concurrent use.
type Feed struct {
	maxBytes int
	spare    sync.Pool

	mu          sync.Mutex
	waiting     []*Batch
	bytes       int           // of what was put and is not stored
	events      int           // of what was put and is not stored
	through     events.LSN    // every commit that begins before it is stored, by what passed here
	confirmable events.LSN    // guarded by mu
	complaint   string        // of the source, about its origin
	roundTrip   time.Duration // of its last heartbeat; guarded by mu
	touched     time.Time     // when the source last heard of its origin; guarded by mu
	taken       time.Time     // when something waiting was last stored, or the first of it was put; guarded by mu
	changed     chan struct{} // closed and replaced whenever any of the above changes
}

// NewFeed makes a feed that holds up to maxBytes; one batch that is larger passes alone.
func NewFeed(maxBytes int) *Feed {
	return &Feed{maxBytes: maxBytes, changed: make(chan struct{}), spare: sync.Pool{New: func() any { return new(Batch) }}}
}

// Batch gives an empty batch, with memory of an earlier one where there is any.
func (f *Feed) Batch() *Batch {
	b := f.spare.Get().(*Batch)
	b.Items, b.Buf = b.Items[:0], b.Buf[:0]
	return b
}

// Put hands b over. It blocks while the feed is full, and errors when ctx ends first. b is the feed's from then on.
func (f *Feed) Put(ctx context.Context, b *Batch) error {
	size := b.size()
	return f.wait(ctx, func() bool {
		if f.bytes > 0 && f.bytes+size > f.maxBytes {
			return false
		}
		now := time.Now()
		f.touched = now
		if f.bytes == 0 {
			f.taken = now
		}
		f.bytes += size
		f.events += b.events()
		f.waiting = append(f.waiting, b)
		f.signal()
		return true
	})
}

// Sync blocks until all that was put is stored.
func (f *Feed) Sync(ctx context.Context) error {
	return f.wait(ctx, func() bool { return f.bytes == 0 })
}

// Idle tells whether all that was put is stored.
func (f *Feed) Idle() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.bytes == 0
}

// Confirmable is how far PostgreSQL may forget: what was stored long enough ago to survive a power cut.
func (f *Feed) Confirmable() events.LSN {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.confirmable
}

// Take gives all batches that wait, at least one; it blocks until there is one. They count as waiting until Stored.
func (f *Feed) Take(ctx context.Context) ([]*Batch, error) {
	var taken []*Batch
	err := f.wait(ctx, func() bool {
		taken, f.waiting = f.waiting, nil
		return len(taken) > 0
	})
	return taken, err
}

// Stored gives a batch back, after its last item is stored.
func (f *Feed) Stored(b *Batch) {
	f.mu.Lock()
	f.bytes -= b.size()
	f.events -= b.events()
	f.through = max(f.through, b.through())
	f.taken = time.Now()
	f.signal()
	f.mu.Unlock()
	const largest = 1 << 20 // a batch that a huge row made is left to the collector
	if cap(b.Buf) <= largest {
		f.spare.Put(b)
	}
}

// Through is how far what was put and stored goes: every commit that begins before it is stored. It is 0 before the first.
func (f *Feed) Through() events.LSN {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.through
}

// Confirm raises what Confirmable gives.
func (f *Feed) Confirm(through events.LSN) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.confirmable = max(f.confirmable, through)
}

// Waiting is what was put and is not stored.
func (f *Feed) Waiting() (bytes, events int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.bytes, f.events
}

// wait calls ready under the lock, now and after each change, until it is true.
func (f *Feed) wait(ctx context.Context, ready func() bool) error {
	f.mu.Lock()
	for !ready() {
		changed := f.changed
		f.mu.Unlock()
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-changed:
		}
		f.mu.Lock()
	}
	f.mu.Unlock()
	return nil
}

// signal wakes every waiter. The lock is held.
func (f *Feed) signal() {
	close(f.changed)
	f.changed = make(chan struct{})
}
