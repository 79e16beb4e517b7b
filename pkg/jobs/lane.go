package jobs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tributary-dev/tributary/internal/natskv"
	"github.com/tributary-dev/tributary/pkg/deadletter"
	"github.com/tributary-dev/tributary/pkg/events"
)

// Lane is a queue of jobs that run one after the other, in the order in which they were enqueued: what is not settled of
// one key, observer and action, where the observer's order is strict.
//
// Beside their records, its jobs have one entry each in KV jobs, lane.<lane>.<key of the record>, whose value is the job's
// id; the order of the queue is the order in which the entries were stored. There is no record of the lane itself, so
// there is nothing to be rewritten as it grows, and nothing that two who change it could disagree about:
//   - A job is enqueued as parked: its record, then its entry, and then the lane is advanced.
//   - To advance a lane is to look at its first entry: one whose job has ended for good is removed, one whose job is
//     parked makes that ready, with a ticket, and any other stays. Nothing else makes a parked job ready. Whoever ends a
//     job for good advances its lane afterwards. As both who appends and who ends a job look at the first entry after they
//     have written, one of them sees what the other one wrote; where both do, compare-and-swap lets one release the job.
//   - A job that died and is to be waited for holds its lane: its record stays, and its entry, until a person retries or
//     removes its dead letter, or cancels it.
//
// Each of these steps can be done again by anybody, so that who dies between two of them leaves the rest to a redelivery,
// or to the sweeper.
type Lane struct {
	Key      string   `json:"key"`
	WhenDead WhenDead `json:"when_dead"`
}

// WhenDead says what becomes of the jobs that wait behind one that dies.
type WhenDead string

// What becomes of them.
const (
	Park WhenDead = "park" // they stay until a person retries or removes the dead letter
	Skip WhenDead = "skip" // they go on
)

// LaneOf gives the lane of what an observer's action does for one partition key of a source.
func LaneOf(source, partitionKey, observer, action string, whenDead WhenDead) *Lane {
	// Only the partition key may hold the separator.
	return &Lane{Key: events.KVKey(source + "~" + observer + "~" + action + "~" + partitionKey), WhenDead: whenDead}
}

const (
	lanePrefix     = "lane."
	recordSubjects = kvSubjects + "*"
	entrySubjects  = kvSubjects + lanePrefix + "*.*"
)

func (l *Lane) pattern() string        { return lanePrefix + l.Key + ".*" }
func (l *Lane) entry(id string) string { return lanePrefix + l.Key + "." + events.KVKey(id) }

// holds tells whether the job has died, and its lane waits for a person.
func (r *Record) holds() bool { return r.State == Dead && r.Lane != nil && r.Lane.WhenDead == Park }

// gone tells whether the job's place in its lane is free.
func (r *Record) gone() bool { return r.State.Settled() && !r.holds() }

// First gives the id of the job that is first in a lane. It errs with ErrNotFound where the lane is empty.
func (s *Store) First(ctx context.Context, lane *Lane) (id string, err error) {
	_, entry, err := s.records.First(ctx, lane.pattern())
	if errors.Is(err, natskv.ErrNotFound) {
		return "", fmt.Errorf("%w: its lane is empty", ErrNotFound)
	}
	return string(entry.Value), err
}

// enter gives a job its place in its lane, behind all that are there, unless it has one; where it is to leave the one that
// it has, it is given anew. Then it lets the lane go on.
func (s *Store) enter(ctx context.Context, record *Record, anew bool) error {
	var err error
	if anew {
		_, err = s.records.Put(ctx, record.Lane.entry(record.ID), []byte(record.ID), 0)
	} else {
		_, err = s.records.Create(ctx, record.Lane.entry(record.ID), []byte(record.ID), 0)
	}
	if err != nil && !errors.Is(err, natskv.ErrConflict) {
		return fmt.Errorf("queue job %s: %w", record.ID, err)
	}
	return s.advance(ctx, record.Lane)
}

// advance lets the first job of a lane begin, if it waits, after it has removed those that have ended.
func (s *Store) advance(ctx context.Context, lane *Lane) error {
	for {
		// The entry is read before the record: who gives a job that has ended its place anew writes the record first,
		// so that what is removed here is never the new one.
		key, entry, err := s.records.First(ctx, lane.pattern())
		if errors.Is(err, natskv.ErrNotFound) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("look at lane %s: %w", lane.Key, err)
		}
		record, revision, err := s.load(ctx, string(entry.Value))
		switch {
		case errors.Is(err, ErrNotFound), err == nil && record.gone():
			if err := s.records.Delete(ctx, key, entry.Revision); err != nil && !errors.Is(err, natskv.ErrConflict) {
				return fmt.Errorf("leave lane %s: %w", lane.Key, err)
			}
		case err != nil:
			return err
		case record.State != Parked:
			return nil
		default:
			err := s.unpark(ctx, record, revision)
			if !errors.Is(err, natskv.ErrConflict) {
				return err
			}
		}
	}
}

// unpark makes a parked job ready, or scheduled where it is not due yet. It errs with natskv.ErrConflict where its record
// has changed.
func (s *Store) unpark(ctx context.Context, record *Record, revision uint64) error {
	now := time.Now().UTC()
	next := *record
	next.rest(Ready, record.Due, now)
	if next.Due.After(now) {
		next.State = Scheduled
	}
	if _, err := s.update(ctx, &next, revision, 0); err != nil {
		return err
	}
	s.metrics.unparked.Inc()
	return s.publishTicket(ctx, &next, near)
}

// Resume completes what a job that is there needs to go on, which whoever enqueued it may have died over: its place in
// its lane, or its ticket. It errs with ErrNotFound.
func (s *Store) Resume(ctx context.Context, id string) error {
	record, _, err := s.load(ctx, id)
	if err != nil {
		return err
	}
	return s.resume(ctx, record)
}

func (s *Store) resume(ctx context.Context, record *Record) error {
	if record.gone() {
		return nil
	}
	if record.Lane != nil {
		if err := s.enter(ctx, record, false); err != nil {
			return err
		}
	}
	if record.State == Scheduled || record.State == Ready { // running has its ticket
		return s.publishTicket(ctx, record, near)
	}
	return nil
}

// Hold stores that an effect has died without ever having been a job, so that later ones of its lane wait behind it:
// letter is the sequence of its dead letter, which holds all that a retry needs. It is idempotent, as Enqueue is.
func (s *Store) Hold(ctx context.Context, n New, reason deadletter.Reason, cause string, letter uint64) error {
	now := time.Now().UTC()
	record := newRecord(n, now)
	record.Event, record.Request.Body = nil, nil
	record.State, record.Grave = Dead, letter
	record.Verdict = &Verdict{Reason: reason, Error: shorten(cause), At: now}
	value, err := s.encode(record)
	if err != nil {
		return err
	}
	there, err := s.records.CreateOrGet(ctx, events.KVKey(record.ID), value, 0)
	if errors.Is(err, natskv.ErrConflict) {
		record, err = decodeRecord(there.Value)
	}
	if err != nil {
		return fmt.Errorf("hold the lane of %s: %w", n.Effect.Key, err)
	}
	return s.resume(ctx, record)
}

// Remove removes a dead letter for good, and lets those go on that wait for it. It errs with deadletter.ErrNotFound.
func (s *Store) Remove(ctx context.Context, letter deadletter.Entry) error {
	if err := deadletter.Remove(ctx, s.js, letter.Sequence); err != nil {
		return err
	}
	if letter.Record.Lane == "" || letter.Record.Effect == nil {
		return nil
	}
	return s.letGo(ctx, letter.Record.Effect.Key, letter.Sequence)
}

// letGo frees the lane that a job holds by a dead letter that is gone. A job that is tried again keeps its place.
func (s *Store) letGo(ctx context.Context, id string, letter uint64) error {
	record, err := s.change(ctx, "let go of", id, func(r *Record, now time.Time) (time.Duration, error) {
		if !r.holds() || r.Grave != letter {
			return 0, errAsItShould
		}
		r.rest(Cancelled, now, now)
		return DefaultKeep, nil
	})
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil || record.Lane == nil {
		return err
	}
	return s.advance(ctx, record.Lane)
}

// mend does for a lane what somebody may have left undone: it lets go of what a dead letter that is gone has held, and
// advances it.
func (s *Store) mend(ctx context.Context, lane *Lane) error {
	id, err := s.First(ctx, lane)
	if err != nil {
		return ignore(err, ErrNotFound)
	}
	record, err := s.Get(ctx, id)
	if err == nil && record.holds() {
		_, err := deadletter.Get(ctx, s.js, record.Grave)
		if !errors.Is(err, deadletter.ErrNotFound) {
			return err
		}
		return s.letGo(ctx, id, record.Grave)
	}
	if err := ignore(err, ErrNotFound); err != nil {
		return err
	}
	return s.advance(ctx, lane)
}

func ignore(err, what error) error {
	if errors.Is(err, what) {
		return nil
	}
	return err
}
