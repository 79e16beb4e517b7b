package jobs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/internal/natskv"
	"github.com/tributary-dev/tributary/internal/natsread"
)

// DefaultKeep is how long the record of a job stays after its end where nothing else is said.
const DefaultKeep = 24 * time.Hour

// What a person can ask of a job, and what is in the way.
var (
	ErrSettled = errors.New("nothing is left to do for it")
	ErrRunning = errors.New("an attempt is under way")
	ErrQueued  = errors.New("it waits behind another job of its lane")
)

// States lists every state.
func States() []State { return []State{Scheduled, Ready, Running, Done, Dead, Cancelled, Parked} }

// Filter selects jobs. What is zero selects all.
type Filter struct {
	States   []State
	Observer string
	Action   string
	EventID  string
}

// Match tells whether the filter selects a job.
func (f Filter) Match(r *Record) bool {
	return (len(f.States) == 0 || slices.Contains(f.States, r.State)) && (f.Observer == "" || r.Effect.Observer == f.Observer) &&
		(f.Action == "" || r.Effect.Action == f.Action) && (f.EventID == "" || r.Effect.EventID == f.EventID)
}

// Each calls do with the jobs that the filter selects, those whose record was written first coming first, until do errs:
// with natsread.ErrStop for enough. A record that this version can't read is left out, and counted.
func (s *Store) Each(ctx context.Context, f Filter, do func(*Record) error) (unreadable int, err error) {
	err = natsread.Forward(ctx, s.js, natsread.Query{Stream: kvStream, Subjects: []string{recordSubjects}}, func(msg *jetstream.RawStreamMsg) error {
		record, err := decodeRecord(msg.Data)
		switch {
		case len(msg.Data) == 0: // the marker of a delete, as a person's `nats kv del` leaves it
			return nil
		case err != nil:
			unreadable++
			return nil
		case !f.Match(record):
			return nil
		default:
			return do(record)
		}
	})
	return unreadable, err
}

// Cancel sees to it that no further attempt of a job begins, and gives the job as it is then: Cancelled, or Running
// where an attempt is under way, which can't be taken back: it ends as Done where it succeeds, as Cancelled otherwise. The
// record stays for keep. Who waits behind it goes on; so a job can be cancelled that is dead and holds its lane, while its
// dead letter stays. A job that was cancelled already is no error; it errs with ErrNotFound, and with ErrSettled where the
// job is done or dead, or is about to die.
func (s *Store) Cancel(ctx context.Context, id string, keep time.Duration) (*Record, error) {
	record, err := s.change(ctx, "cancel", id, func(r *Record, now time.Time) (time.Duration, error) {
		if r.holds() {
			r.rest(Cancelled, now, now)
			return keep, nil
		}
		switch r.State {
		case Scheduled, Ready, Parked:
			r.rest(Cancelled, now, now)
			return keep, nil
		case Running:
			if r.Verdict != nil {
				return 0, fmt.Errorf("%w: it is about to die (%s)", ErrSettled, r.Verdict.Reason)
			}
			if r.Cancel {
				return 0, errAsItShould
			}
			r.Cancel, r.Updated = true, now
			return 0, nil
		case Cancelled:
			return 0, errAsItShould
		case Done, Dead:
			return 0, fmt.Errorf("%w: it is %s", ErrSettled, r.State)
		default:
			return 0, errUnknownState(r)
		}
	})
	if err != nil || record.Lane == nil || !record.gone() {
		return record, err
	}
	return record, s.advance(ctx, record.Lane)
}

// RunNow makes a job that waits due at once, and gives it as it is then. It errs with ErrNotFound, with ErrRunning, with
// ErrQueued, and with ErrSettled.
func (s *Store) RunNow(ctx context.Context, id string) (*Record, error) {
	record, err := s.change(ctx, "run", id, func(r *Record, now time.Time) (time.Duration, error) {
		if r.State == Parked && r.Lane != nil {
			return 0, ErrQueued
		}
		switch r.State {
		case Scheduled, Ready, Parked:
			r.rest(Ready, now, now)
			return 0, nil
		case Running:
			return 0, fmt.Errorf("%w since %s", ErrRunning, r.Started.Format(time.RFC3339))
		case Done, Dead, Cancelled:
			return 0, fmt.Errorf("%w: it is %s", ErrSettled, r.State)
		default:
			return 0, errUnknownState(r)
		}
	})
	if err != nil {
		return nil, err
	}
	return record, s.publishTicket(ctx, record, near)
}

// errAsItShould ends a change without one.
var errAsItShould = errors.New("it is as it should be")

func errUnknownState(r *Record) error {
	return fmt.Errorf("state %q is not known to this version", r.State)
}

// change writes what to makes of a record, for as long as it says, by compare-and-swap: again where another was quicker.
func (s *Store) change(ctx context.Context, verb, id string, to func(*Record, time.Time) (time.Duration, error)) (*Record, error) {
	for {
		record, revision, err := s.load(ctx, id)
		if err != nil {
			return nil, err
		}
		ttl, err := to(record, time.Now().UTC())
		if errors.Is(err, errAsItShould) {
			return record, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s job %s: %w", verb, id, err)
		}
		_, err = s.update(ctx, record, revision, ttl)
		switch {
		case err == nil:
			return record, nil
		case !errors.Is(err, natskv.ErrConflict):
			return nil, err
		}
	}
}

// Newest gives up to limit of the jobs that the filter selects; those whose record was written last come first.
func (s *Store) Newest(ctx context.Context, f Filter, limit int) ([]*Record, error) {
	var list []*Record
	err := natsread.Backward(ctx, s.js, natsread.Query{Stream: kvStream, Subjects: []string{recordSubjects}}, func(msg *jetstream.RawStreamMsg) error {
		record, err := decodeRecord(msg.Data)
		if err != nil || !f.Match(record) {
			return nil
		}
		list = append(list, record)
		if len(list) >= limit {
			return natsread.ErrStop
		}
		return nil
	})
	return list, err
}
