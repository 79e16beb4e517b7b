package jobs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tributary-dev/tributary/internal/natskv"
	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/deadletter"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/retry"
)

// Retried says what became of the wish to try a dead letter again.
type Retried string

// What can become of it. Queued is said to one of those who ask, however many ask at the same time.
const (
	Queued     Retried = "queued"     // its action is tried again, because of this wish
	UnderWay   Retried = "under_way"  // somebody wished it before, or its job has not ended yet
	Succeeded  Retried = "succeeded"  // the action has succeeded meanwhile, and the dead letter goes
	Superseded Retried = "superseded" // the action was tried again and died again, which left a newer dead letter
)

// ErrNotRetriable marks a dead letter that holds no action to try again.
var ErrNotRetriable = errors.New("there is no action to try again")

// Again is how a dead letter is tried again. The zero value sends what was kept.
type Again struct {
	Rendered *Rendered // instead of what was kept
	DryRun   bool      // changes nothing, and says what would become of it
}

// Rendered is what the observers in force make of the event of a dead letter.
type Rendered struct {
	Request    actions.Request
	Policy     retry.Policy
	OnFailure  OnFailure
	Generation string
}

// Retry makes a dead letter's action a job once more, for as many attempts as its policy allows. When the action
// succeeds the dead letter is removed; when it dies again another one takes its place. Of a lane it takes up its place
// again where it has kept that, else the last one. It needs no record of the job
// that died, so it may be called weeks later. It errs with ErrNotRetriable, ErrTooLarge, and deadletter.ErrNotFound where
// the dead letter is gone.
func (s *Store) Retry(ctx context.Context, letter deadletter.Entry, again Again) (Retried, error) {
	if err := retriable(letter, again); err != nil {
		return "", err
	}
	id := letter.Record.Effect.Key
	for {
		record, revision, err := s.load(ctx, id)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return "", err
		}
		stands := standing(record, letter)
		if again.DryRun {
			return stands, nil
		}
		if stands != Queued {
			return stands, s.clean(ctx, stands, letter)
		}
		// A record that has gone since says nothing any more, but then the dead letter has gone before it.
		if _, err := deadletter.Get(ctx, s.js, letter.Sequence); err != nil {
			return "", err
		}
		next := nextRound(record, letter, again.Rendered, time.Now().UTC())
		if next.Lane != nil {
			next.State = Parked
		}
		value, err := s.encode(next)
		if err != nil {
			return "", err
		}
		_, err = s.records.Swap(ctx, events.KVKey(id), value, revision, 0)
		switch {
		case err == nil:
			if next.Lane != nil {
				return Queued, s.enter(ctx, next, record == nil || record.gone())
			}
			return Queued, s.publishTicket(ctx, next, near)
		case !errors.Is(err, natskv.ErrConflict):
			return "", fmt.Errorf("retry dead letter %d: %w", letter.Sequence, err)
		}
	}
}

// clean removes a dead letter whose action has succeeded by a job that knows nothing of it.
func (s *Store) clean(ctx context.Context, stands Retried, letter deadletter.Entry) error {
	if stands != Succeeded {
		return nil
	}
	return deadletter.New(s.js).Settle(ctx, letter.Sequence, letter.Record.ID)
}

func retriable(letter deadletter.Entry, again Again) error {
	r := &letter.Record
	switch {
	case letter.Err != nil:
		return fmt.Errorf("%w: %w", ErrNotRetriable, letter.Err)
	case r.Lost != nil:
		return fmt.Errorf("%w: EVENTS has lost its events, and nothing else holds them; `tributary snapshot TABLE --where` reads rows anew, "+
			"as they are now; then remove the dead letter", ErrNotRetriable)
	case r.Effect == nil || r.Effect.Key == "":
		return fmt.Errorf("%w: a dead letter of reason %s belongs to no effect", ErrNotRetriable, r.Reason)
	case r.Request == nil && again.Rendered == nil:
		return fmt.Errorf("%w: no request was ever rendered (%s)", ErrNotRetriable, r.Reason)
	default:
		return nil
	}
}

// standing says what the record, nil where there is none, makes of the wish: Queued where nothing is in the way.
func standing(record *Record, letter deadletter.Entry) Retried {
	if record == nil {
		return Queued
	}
	own := record.Round <= letter.Record.Round || record.Letter == letter.Sequence // no later letter is known
	switch record.State {
	case Done:
		return Succeeded
	case Dead, Cancelled:
		if own {
			return Queued
		}
		return Superseded
	case Scheduled, Ready, Running, Parked:
		return UnderWay
	default:
		return UnderWay // a newer version's, which is at it
	}
}

// nextRound is the record of the round after the one that ended in letter.
func nextRound(record *Record, letter deadletter.Entry, rendered *Rendered, now time.Time) *Record {
	r := &letter.Record
	next := newRecord(New{
		Effect: *r.Effect, Policy: retry.Default(), OnFailure: OnFailure(r.OnFailure), Generation: r.Generation,
		Event: r.Event, Subject: r.Subject, Queue: r.Queue,
	}, now)
	next.Round, next.Letter = r.Round+1, letter.Sequence
	next.Attempts = r.Attempts[max(0, len(r.Attempts)-keptAttempts):]
	if record != nil {
		next.Round, next.Created = max(next.Round, record.Round+1), record.Created
		if len(record.Attempts) > 0 {
			next.Attempts = record.Attempts
		}
	}
	if r.Lane != "" {
		next.Lane = &Lane{Key: r.Lane, WhenDead: WhenDead(r.WhenDead)}
	}
	if r.Policy != nil {
		next.Policy = *r.Policy
	}
	if r.Request != nil {
		next.Request = *r.Request
	}
	if rendered != nil {
		next.Request, next.Policy, next.Generation = rendered.Request, rendered.Policy, rendered.Generation
		next.OnFailure = rendered.OnFailure
	}
	next.Attempts = slices.Clip(next.Attempts)
	next.OnFailure = cmp.Or(next.OnFailure, DeadLetter)
	if next.OnFailure == Drop {
		next.OnFailure = DeadLetter // what lies there already is not to go unless it succeeds
	}
	return next
}
