package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/internal/natskv"
	"github.com/tributary-dev/tributary/pkg/events"
)

// Store holds the jobs. It is safe for concurrent use.
type Store struct {
	js      jetstream.JetStream
	records *natskv.Bucket
	log     *slog.Logger
	metrics *Metrics
}

// StoreOptions are what a Store may be given.
type StoreOptions struct {
	Log     *slog.Logger // slog.Default where it is nil
	Metrics *Metrics     // none where it is nil
}

// NewStore gives a Store. Its stream and bucket must exist when it is used.
func NewStore(js jetstream.JetStream, options StoreOptions) *Store {
	s := &Store{js: js, records: natskv.Open(js, events.BucketJobs), log: options.Log, metrics: options.Metrics}
	if s.log == nil {
		s.log = slog.Default()
	}
	if s.metrics == nil {
		s.metrics = NewMetrics(nil)
	}
	return s
}

// Enqueue stores a job, and returns when both its record and its ticket are acknowledged. A job that is known already,
// by its effect's key, stays as it is, whatever else the new one says; if it is not settled, it has a ticket afterwards,
// or its place in its lane.
// While NATS is away or full Enqueue waits, until ctx ends. It errors with ErrInvalid, or ErrTooLarge, where no waiting
// helps.
func (s *Store) Enqueue(ctx context.Context, n New) error {
	if err := n.check(); err != nil {
		return err
	}
	record := newRecord(n, time.Now().UTC())
	value, err := s.encode(record)
	if err != nil {
		return err
	}
	there, err := s.records.CreateOrGet(ctx, events.KVKey(record.ID), value, 0)
	switch {
	case err == nil:
		s.metrics.enqueued.Inc()
	case errors.Is(err, natskv.ErrConflict):
		if record, err = decodeRecord(there.Value); err != nil {
			return fmt.Errorf("enqueue job %s: %w", n.Effect.Key, err)
		}
	default:
		return fmt.Errorf("enqueue job %s: %w", n.Effect.Key, err)
	}
	return s.resume(ctx, record)
}

// Get reads a job by its id. It errors with ErrNotFound.
func (s *Store) Get(ctx context.Context, id string) (*Record, error) {
	record, _, err := s.load(ctx, id)
	return record, err
}

func (s *Store) load(ctx context.Context, id string) (*Record, uint64, error) {
	entry, err := s.records.Get(ctx, events.KVKey(id))
	if errors.Is(err, natskv.ErrNotFound) {
		return nil, 0, fmt.Errorf("%w: %s", ErrNotFound, id)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("read job %s: %w", id, err)
	}
	record, err := decodeRecord(entry.Value)
	switch {
	case errors.Is(err, errForeign):
		return nil, 0, err
	case err != nil:
		return nil, 0, &undecodableError{value: entry.Value, err: err}
	default:
		return record, entry.Revision, nil
	}
}

// undecodableError is the error of a record that is none.
type undecodableError struct {
	value []byte
	err   error
}

func (e *undecodableError) Error() string { return e.err.Error() }
func (e *undecodableError) Unwrap() error { return e.err }

// update writes the record if it still has the revision, and errs with natskv.ErrConflict if not.
func (s *Store) update(ctx context.Context, record *Record, revision uint64, ttl time.Duration) (uint64, error) {
	value, err := record.encode()
	if err != nil {
		return 0, err
	}
	revision, err = s.records.Update(ctx, events.KVKey(record.ID), value, revision, ttl)
	if err != nil {
		return 0, fmt.Errorf("write job %s as %s: %w", record.ID, record.State, err)
	}
	return revision, nil
}

// growth is what a record may gain over its life: ten attempts, a verdict, an owner; JSON makes six bytes of some.
const growth = 80 << 10

func (s *Store) encode(record *Record) ([]byte, error) {
	value, err := record.encode()
	if err != nil {
		return nil, err
	}
	if most := int(s.js.Conn().MaxPayload()) - growth; len(value) > most {
		return nil, fmt.Errorf("%w: job %s has %d bytes, %d are the most", ErrTooLarge, record.ID, len(value), most)
	}
	return value, nil
}

func (s *Store) publishTicket(ctx context.Context, record *Record, within time.Duration) error {
	msg, err := record.message(time.Now(), within)
	if err != nil {
		return err
	}
	if err := publish(ctx, s.js, msg); err != nil {
		return fmt.Errorf("publish ticket of job %s: %w", record.ID, err)
	}
	return nil
}
