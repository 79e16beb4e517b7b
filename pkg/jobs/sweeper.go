package jobs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/pkg/actions/circuit"
	"github.com/tributary-dev/tributary/pkg/events"
)

// SweepOptions are what RunSweeper may be given. A zero value takes the default.
type SweepOptions struct {
	Every   time.Duration // between sweeps; 10 s
	Margin  time.Duration // a job that is overdue by more is taken to have lost its ticket; 15 s
	AckWait time.Duration // of the runners; 10 s

	Circuits   *circuit.Circuits // that deferred jobs wait for; nil: all are closed
	ParkMaxAge time.Duration     // after which they die; 24 h
	Rests      rests             // tells whose observer is paused; nil: none is
}

// RunSweeper writes tickets for jobs that have none: those that are overdue though the tickets of their time have been
// delivered, and those that run for longer than any runner may take. It runs until ctx ends, and returns nil then; call
// it under a lease, for two sweepers do the same work twice, and no harm. A ticket too many is no harm either, and one
// job gets them ever more rarely.
//
// It also lets lanes go on that somebody who died has left standing, or whose dead letter was removed.
//
// Between sweeps it remembers the jobs that are not settled, about 200 bytes each, so that a sweep reads only the
// records that were written since the last one.
func RunSweeper(ctx context.Context, store *Store, options SweepOptions) error {
	s := &sweeper{
		store: store, open: make(map[string]*openJob),
		every: cmp.Or(options.Every, 10*time.Second), margin: cmp.Or(options.Margin, 15*time.Second),
		grace: graceWaits * cmp.Or(options.AckWait, DefaultAckWait), circuits: options.Circuits, rests: options.Rests,
		parkMaxAge: cmp.Or(options.ParkMaxAge, 24*time.Hour), released: make(map[string]int),
	}
	defer store.metrics.waitingFor.Set(0)
	defer store.metrics.parked.Set(0)
	defer store.metrics.lanesHeld.Set(0)
	failing := false
	for {
		err := s.sweep(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil && failing:
			store.log.Info("jobs are swept again")
		case err != nil && !failing:
			store.log.Warn("jobs are not swept", "error", err)
		}
		failing = err != nil
		pause := s.every
		if s.deferred || !s.circuits.AllClosed() {
			pause = min(pause, deferredEvery)
		}
		if sleep(ctx, pause) != nil {
			return nil
		}
	}
}

type sweeper struct {
	store                *Store
	every, margin, grace time.Duration
	open                 map[string]*openJob // by id
	lanes                openLanes
	circuits             *circuit.Circuits
	rests                rests
	parkMaxAge           time.Duration
	released             map[string]int // tickets of the last sweep, by circuit
	deferred             bool           // jobs wait for circuits
	seen                 uint64         // the last sequence of KV jobs that was read
}

// openJob is what a sweep needs to know of a job that is not settled.
type openJob struct {
	state    State
	attempt  int
	round    int
	deadline time.Time // of a ticket: when the job is due, or lost
	tickets  int       // that were written since the record changed
	notUntil time.Time // no other is written

	deferred      string // the circuit that it waits for
	deferredSince time.Time
}

const (
	sweepBatch  = 64
	mostBackoff = 8 // doublings of the time between two tickets for one job: 43 minutes at 10 s
)

func (s *sweeper) sweep(ctx context.Context) error {
	if err := s.read(ctx); err != nil {
		return err
	}
	delivered, err := s.deliveredUntil(ctx)
	if err != nil {
		return err
	}
	now := time.Now()
	if err := s.sweepLanes(ctx, now); err != nil {
		return err
	}
	if s.deferred, err = s.release(ctx, now); err != nil {
		return err
	}
	for id, job := range s.open {
		if job.deferred != "" {
			continue
		}
		// A ticket that waits in the queue is not lost, however long the queue is.
		overdue := job.deadline.Add(s.margin).Before(delivered)
		if job.state == Running {
			overdue = job.deadline.Before(now)
		}
		if !overdue || now.Before(job.notUntil) {
			continue
		}
		if err := s.ticket(ctx, id, job, now); err != nil {
			return err
		}
	}
	return nil
}

// ticket writes a ticket for what the record says now.
func (s *sweeper) ticket(ctx context.Context, id string, job *openJob, now time.Time) error {
	record, err := s.store.Get(ctx, id)
	switch {
	case errors.Is(err, ErrNotFound):
		delete(s.open, id)
		return nil
	case err != nil:
		return err
	}
	if is := s.describe(record); is.state != job.state || is.attempt != job.attempt || is.round != job.round ||
		!is.deadline.Equal(job.deadline) || is.deferred != job.deferred {
		return nil // the next sweep reads the change
	}
	if err := s.store.publishTicket(ctx, record, near); err != nil {
		return err
	}
	s.store.metrics.swept.Inc()
	job.notUntil = now.Add(s.every << min(job.tickets, mostBackoff))
	job.tickets++
	return nil
}

func (s *sweeper) describe(record *Record) openJob {
	job := openJob{state: record.State, attempt: record.attempt(), round: record.Round, deadline: record.Due}
	if record.State == Running {
		job.deadline = record.lostAt(s.grace)
	}
	job.deferred, job.deferredSince = record.Deferred, record.DeferredSince
	return job
}

// deliveredUntil says of which time the tickets have been delivered: until now where none waits.
func (s *sweeper) deliveredUntil(ctx context.Context) (time.Time, error) {
	now := time.Now()
	stream, err := s.store.js.Stream(ctx, events.StreamJobs)
	if err != nil {
		return now, fmt.Errorf("open %s: %w", events.StreamJobs, err)
	}
	consumer, err := stream.Consumer(ctx, ConsumerName)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return time.Time{}, nil // no runner has ever come: nothing has been delivered
	}
	if err != nil {
		return now, fmt.Errorf("open consumer %s: %w", ConsumerName, err)
	}
	info := consumer.CachedInfo()
	if info.NumPending == 0 {
		return now, nil
	}
	first, err := stream.GetMsg(ctx, info.Delivered.Stream+1, jetstream.WithGetMsgSubject(readyPrefix+">"))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return now, nil
	}
	if err != nil {
		return now, fmt.Errorf("read the first ticket that waits: %w", err)
	}
	return first.Time, nil
}

// read brings open up to date with the records that were written since it was called last.
func (s *sweeper) read(ctx context.Context) error {
	consumer, err := s.store.js.CreateConsumer(ctx, kvStream, jetstream.ConsumerConfig{
		Description:       "the sweeper reads what changed",
		DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:       s.seen + 1,
		AckPolicy:         jetstream.AckNonePolicy,
		MemoryStorage:     true,
		Replicas:          1,
		InactiveThreshold: time.Minute,
	})
	if err != nil {
		return fmt.Errorf("read %s: %w", kvStream, err)
	}
	info := consumer.CachedInfo()
	defer func() {
		// One that stays behind goes by itself.
		_ = s.store.js.DeleteConsumer(context.WithoutCancel(ctx), kvStream, info.Name)
	}()
	for left := info.NumPending; left > 0; {
		batch, err := consumer.Fetch(int(min(left, sweepBatch)), jetstream.FetchMaxWait(5*time.Second))
		if err != nil {
			return fmt.Errorf("read %s from %d: %w", kvStream, s.seen+1, err)
		}
		got := uint64(0)
		for msg := range batch.Messages() {
			metadata, err := msg.Metadata()
			if err != nil {
				return fmt.Errorf("read %s: %w", kvStream, err)
			}
			s.note(msg.Subject(), msg.Data())
			s.seen, left = metadata.Sequence.Stream, metadata.NumPending
			got++
		}
		if err := batch.Error(); err != nil {
			return fmt.Errorf("read %s from %d: %w", kvStream, s.seen+1, err)
		}
		if got == 0 {
			return nil // what was pending has been overwritten, and comes with the next sweep
		}
	}
	return nil
}

func (s *sweeper) note(subject string, value []byte) {
	if id, is := entryID(subject, value); is {
		s.lanes.noteEntry(id)
		return
	}
	record, err := decodeRecord(value)
	if err != nil {
		return // a marker of a delete, or a record that is not ours to judge: its ticket brings it to light
	}
	s.lanes.note(record)
	job := s.describe(record)
	switch record.State {
	case Done, Dead, Cancelled, Parked:
		delete(s.open, record.ID)
	default:
		s.open[record.ID] = &job
	}
}
