package pgcdc

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/ingest"
)

// largeBatch is when a batch goes to the feed although more is at hand.
const largeBatch = 256 << 10

// output gathers events and marks into batches for the feed. It is for one goroutine, but for blockedFor.
type output struct {
	feed     *ingest.Feed
	maxEvent int
	oversize func(ctx context.Context, id string, envelope []byte) error
	metrics  *sourceMetrics

	batch    *ingest.Batch
	position ingest.Position // as of the last event or mark
	blocked  atomic.Int64    // since when the feed has been full, in Unix nanoseconds; 0 where it is not
}

func newOutput(s *Source, feed *ingest.Feed, position ingest.Position) *output {
	position.Cursor = nil
	return &output{
		feed: feed, maxEvent: s.opts.MaxEvent, oversize: s.opts.Oversize, metrics: s.metrics,
		batch: feed.Batch(), position: position,
	}
}

// event encodes a change behind what the batch holds, and hands the batch over when it is large.
func (o *output) event(ctx context.Context, c *change) error {
	if err := o.add(ctx, c); err != nil {
		return err
	}
	if len(o.batch.Buf) < largeBatch && len(o.batch.Items) < ingest.MaxBatchItems {
		return nil
	}
	return o.flush(ctx)
}

// add is event without handing over.
func (o *output) add(ctx context.Context, c *change) error {
	b := o.batch
	start := len(b.Buf)
	b.Buf = events.AppendChange(b.Buf, &c.Change)
	if o.maxEvent > 0 && len(b.Buf)-start > o.maxEvent {
		if err := o.oversize(ctx, string(c.ID), b.Buf[start:]); err != nil {
			return fmt.Errorf("keep the images of %s: %w", c.ID, err)
		}
		b.Buf = events.AppendChange(b.Buf[:start], stub(&c.Change))
		o.metrics.oversize.Inc()
	}
	b.Items = append(b.Items, ingest.Item{
		Subject: c.subject, Data: b.Buf[start:len(b.Buf):len(b.Buf)], At: c.Sequence, XID: c.XID, Through: c.through,
	})
	o.position.CommitLSN, o.position.Index, o.position.XID = events.LSN(c.Sequence.Commit), c.Sequence.Index, c.XID
	o.metrics.changes[c.Op].Inc()
	return nil
}

// stub keeps what orders and counts of a change, without its images.
func stub(c *events.Change) *events.Change {
	s := *c
	s.Before, s.After, s.Content, s.Changed, s.Unchanged = nil, nil, nil, nil, nil
	s.Oversize = true
	if len(s.Key) > maxKeyPath {
		s.Key = nil
	}
	if len(s.Prefix) > maxKeyPath {
		s.Prefix = events.KVKey(s.Prefix)
	}
	return &s
}

// mark puts the position behind all that was put before, with end for its EndLSN.
func (o *output) mark(end events.LSN) {
	o.position.EndLSN = max(o.position.EndLSN, end)
	position := o.position
	o.batch.Items = append(o.batch.Items, ingest.Item{
		Mark: &position, At: events.Sequence{Commit: uint64(position.CommitLSN), Index: position.Index},
	})
}

// idle tells whether nothing is on its way to EVENTS.
func (o *output) idle() bool { return len(o.batch.Items) == 0 && o.feed.Idle() }

// flush hands the batch over; it blocks while the feed is full.
func (o *output) flush(ctx context.Context) error {
	if len(o.batch.Items) == 0 {
		return nil
	}
	o.blocked.Store(time.Now().UnixNano())
	err := o.feed.Put(ctx, o.batch)
	o.blocked.Store(0)
	if err != nil {
		return err
	}
	o.batch = o.feed.Batch()
	return nil
}

// blockedFor is how long flush has been waiting for the feed by now.
func (o *output) blockedFor(now time.Time) time.Duration {
	since := o.blocked.Load()
	if since == 0 {
		return 0
	}
	return now.Sub(time.Unix(0, since))
}

// sync hands over, and waits until all is stored.
func (o *output) sync(ctx context.Context) error {
	if err := o.flush(ctx); err != nil {
		return err
	}
	return o.feed.Sync(ctx)
}
