// Package ingest carries events from their sources into EVENTS: source → batch → fence → confirm.
//
// It promises that each event of a source is stored once and in order, whatever dies: the stream is its own checkpoint,
// and a position message, whose sequence every publish expects, decides who may write (design: "Fence and position").
// It relies on EVENTS as package streams makes it, and on sources that give the same event the same bytes whenever they
// read it. It does not know PostgreSQL: that is package pgcdc.
package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/tributary-dev/tributary/pkg/events"
)

// leadership is what decides which process runs a source; lease.Keeper gives it. It only avoids strife: what keeps two
// leaders apart is the fence.
type leadership interface {
	Hold(ctx context.Context, work func(context.Context) error) error
}

// Options tunes a Pipeline; the zero value works.
type Options struct {
	Leader      string        // names this process in positions
	Rewind      time.Duration // how long ago an acknowledgement must be before PostgreSQL may forget; 0 is at once
	RewindBytes uint64        // of WAL that may be kept for it; 0 is no bound
	QueueBytes  int           // between reader and publisher; 8 MiB if 0
	Renew       time.Duration // a position is written at least this often; 1 h if 0
	Log         *slog.Logger
	Metrics     *Metrics

	// Mirrors has the mirrors of sources, by name; a source without one is not mirrored. Confirmations wait for a mirror
	// at most MirrorWait; 30 s if 0.
	Mirrors    map[string]Mirror
	MirrorWait time.Duration

	// Incarnations remembers what EVENTS may forget. It may be nil.
	Incarnations Incarnations

	// Serve is called for each session of a source, for whoever asks how it stands; it returns when ctx ends. It may be nil.
	// stand is safe for concurrent use.
	Serve func(ctx context.Context, source string, stand func() Standing) error

	// Health is told whether a source is well in this process, which leads and gets on, or stands by; and why. It may be
	// nil, and is called from several goroutines.
	Health func(source string, ok bool, why string)
}

// Incarnations counts the set-ups of each source in a place of its own: a source that is set up again after EVENTS was purged
// must not give the ids of its past to other changes. It is safe for concurrent use.
type Incarnations interface {
	// Last gives the highest incarnation that was raised to; 0 where there is none.
	Last(ctx context.Context, source string) (uint64, error)

	// Raise keeps an incarnation; a lower one than before changes nothing.
	Raise(ctx context.Context, source string, incarnation uint64) error
}

// Pipeline runs one source after a lease on it is held.
type Pipeline struct {
	nc     *nats.Conn
	stream jetstream.Stream
	opts   Options
}

// NewPipeline makes a pipeline into the given EVENTS stream. The connection must not buffer while it is disconnected
// (nats.ReconnectBufSize(-1)): what it sent later would be sent blindly.
func NewPipeline(nc *nats.Conn, stream jetstream.Stream, opts Options) *Pipeline {
	if opts.QueueBytes == 0 {
		opts.QueueBytes = 8 << 20
	}
	if opts.Renew == 0 {
		opts.Renew = time.Hour
	}
	if opts.MirrorWait == 0 {
		opts.MirrorWait = 30 * time.Second
	}
	return &Pipeline{nc: nc, stream: stream, opts: opts}
}

// Run leads source whenever the lease allows, until ctx ends (nil) or the source refuses to go on (ErrRefused). All
// other trouble is logged and tried again.
func (p *Pipeline) Run(ctx context.Context, source Source, lease leadership) error {
	metrics := p.opts.Metrics.of(source.Name())
	health := &health{source: source.Name(), report: p.opts.Health}
	defer health.leads() // no timer stays behind
	pause, calm := time.Duration(0), calmAfterStart
	for {
		started := time.Now()
		health.waits(calm)
		err := lease.Hold(ctx, func(ctx context.Context) error {
			health.leads()
			return p.lead(ctx, source, metrics, health)
		})
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, ErrRefused), errors.Is(err, errCorrupt):
			return err
		}
		if time.Since(started) > 10*time.Second {
			pause = 0
		}
		pause = min(max(2*pause, 100*time.Millisecond), 5*time.Second)
		calm = calmAfterTrouble
		health.leads()
		health.ended = fmt.Sprintf("reading stopped: %v", err)
		health.set(false, health.ended)
		p.opts.Log.Warn("reading stopped; it will go on", "source", source.Name(), "err", err, "again_in", pause)
		if !sleep(ctx, pause) {
			return nil
		}
	}
}

// lead is one session: a takeover, then reading and publishing until either ends.
func (p *Pipeline) lead(ctx context.Context, source Source, metrics *sourceMetrics, health *health) error {
	f, err := newFence(p.nc, p.stream, source.Name(), p.opts.Leader, p.opts.Log, metrics)
	if err != nil {
		return err
	}
	defer f.close()
	mirror := &mirroring{
		to: p.opts.Mirrors[source.Name()], source: source.Name(), wait: p.opts.MirrorWait, log: p.opts.Log, metrics: metrics, wake: make(chan struct{}, 1),
	}
	known, unknown := mirror.last(ctx)
	f.epoch, f.incarnations = known.Epoch, p.opts.Incarnations
	state, err := f.takeOver(ctx)
	if err != nil {
		return fmt.Errorf("take over %s: %w", source.Name(), err)
	}
	if unknown != nil && state.Position.Phase == "" {
		return unknown // it may say that this is no first start
	}
	state.Mirrored = known
	mirror.explain(state)
	if err := p.remember(ctx, source.Name(), &state); err != nil {
		return err
	}
	metrics.takeovers.Inc()
	metrics.leading.Set(1)
	defer metrics.leading.Set(0)

	feed := NewFeed(p.opts.QueueBytes)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := source.Run(ctx, state, feed); err != nil {
			return fmt.Errorf("read %s: %w", source.Name(), err)
		}
		return context.Canceled // a source that ends by itself ends the session
	})
	group.Go(func() error { return p.publish(ctx, f, feed, mirror, metrics) })
	group.Go(func() error { return mirror.run(ctx) })
	group.Go(func() error { return health.watch(ctx, feed, metrics) })
	group.Go(func() error { return p.answer(ctx, f, feed) })
	return group.Wait()
}

// remember sees to it that a source that EVENTS does not know is set up in a new incarnation.
func (p *Pipeline) remember(ctx context.Context, source string, state *State) error {
	if p.opts.Incarnations == nil || state.Position.Phase != "" {
		return nil
	}
	last, err := p.opts.Incarnations.Last(ctx, source)
	if err != nil {
		return fmt.Errorf("read the incarnation of %s: %w", source, err)
	}
	state.Mirrored.Incarnation = max(state.Mirrored.Incarnation, last)
	return nil
}

// publish stores what feed brings, and confirms what was stored long enough ago.
func (p *Pipeline) publish(ctx context.Context, f *fence, feed *Feed, mirror *mirroring, metrics *sourceMetrics) error {
	kept := rewind{after: p.opts.Rewind, bytes: p.opts.RewindBytes}
	if f.source == events.InboxSource {
		kept.bytes = 0 // its positions count messages
	}
	kept.stored(time.Now(), f.through)
	mirror.note(time.Now(), f.position, f.through)
	written := time.Now()
	for {
		batches, err := takeWithin(ctx, feed, tickEvery)
		if err != nil {
			return err
		}
		before := f.sequence
		if err := f.store(ctx, batches); err != nil {
			return fmt.Errorf("publish %s: %w", f.source, err)
		}
		if time.Since(written) > p.opts.Renew {
			if err := f.renew(ctx); err != nil {
				return fmt.Errorf("renew the position of %s: %w", f.source, err)
			}
		}
		now := time.Now()
		if f.sequence != before {
			written = now
		}
		kept.stored(now, f.through)
		mirror.note(now, f.position, f.through)
		feed.Confirm(mirror.confirmable(now, kept.confirmable(now)))
		for _, b := range batches {
			feed.Stored(b)
		}
		metrics.stored.Set(float64(f.through))
	}
}

const tickEvery = 250 * time.Millisecond

// takeWithin gives the batches that wait; none if there are none for d.
func takeWithin(ctx context.Context, feed *Feed, d time.Duration) ([]*Batch, error) {
	short, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	batches, err := feed.Take(short)
	if err != nil && ctx.Err() == nil {
		return nil, nil
	}
	return batches, err
}

// renew writes the present position again, before the stream's age limit takes the last one.
func (f *fence) renew(ctx context.Context) error {
	mark := f.position
	mark.EndLSN = max(mark.EndLSN, f.through)
	return f.storeGroup(ctx, &group{marks: []placedMark{{position: &mark}}})
}
