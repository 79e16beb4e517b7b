package jobs

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/deadletter"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/retry"
)

const (
	recordVersion   = 1
	keptAttempts    = 10
	keptError       = 1 << 10 // bytes of one attempt's error
	maxInterruption = 3       // the one that kills
)

// Record is a job as KV jobs holds it.
type Record struct {
	V           int                  `json:"v"`
	ID          string               `json:"id"` // the effect key
	Effect      actions.Effect       `json:"effect"`
	Request     actions.Request      `json:"request"`
	Policy      retry.Policy         `json:"policy"`
	OnFailure   OnFailure            `json:"on_failure"`
	Generation  string               `json:"generation,omitempty"`
	Queue       string               `json:"queue"`
	State       State                `json:"state"`
	Round       int                  `json:"round"`                 // how often it was retried after it had died
	Executions  int                  `json:"executions"`            // of this round, that ended
	Interrupted int                  `json:"interrupted,omitempty"` // of this round, that were begun and lost
	Attempts    []deadletter.Attempt `json:"attempts,omitempty"`    // the last 10
	Due         time.Time            `json:"due"`                   // of the next attempt
	Owner       string               `json:"owner,omitempty"`       // the runner, while it is running
	Ticket      uint64               `json:"ticket,omitempty"`      // the sequence in JOBS by which it is running
	Started     time.Time            `json:"started,omitzero"`      // of the attempt that is running
	Verdict     *Verdict             `json:"verdict,omitempty"`     // that it is to die, and is only to be carried out
	Event       json.RawMessage      `json:"event,omitempty"`
	EventIsBody bool                 `json:"event_is_body,omitempty"` // the event is left out, for it is the request's body
	Subject     string               `json:"subject,omitempty"`       // that the event came under
	Letter      uint64               `json:"letter,omitempty"`        // the sequence in DEADLETTERS that this round retries
	Lane        *Lane                `json:"lane,omitempty"`          // that it waits its turn in
	Grave       uint64               `json:"grave,omitempty"`         // the sequence in DEADLETTERS by which it holds its lane, once it is dead
	Deferred    string               `json:"deferred,omitempty"`      // the circuit that it waits for, without a ticket, or the paused observer
	Cancel      bool                 `json:"cancel,omitempty"`        // after the attempt that is running there is no other
	Created     time.Time            `json:"created"`

	DeferredSince time.Time `json:"deferred_since,omitzero"` // when it was deferred first, before the attempt that is due
	Updated       time.Time `json:"updated"`
}

// Verdict says why a job dies.
type Verdict struct {
	Reason deadletter.Reason `json:"reason"`
	Error  string            `json:"error,omitempty"`
	At     time.Time         `json:"at"`
}

func newRecord(n New, now time.Time) *Record {
	r := &Record{
		V: recordVersion, ID: n.Effect.Key, Effect: n.Effect, Request: n.Request, Policy: n.Policy,
		OnFailure: cmp.Or(n.OnFailure, DeadLetter), Generation: n.Generation, Queue: cmp.Or(n.Queue, DefaultQueue),
		State: Ready, Executions: len(n.Attempts), Event: n.Event, Subject: n.Subject, Created: now, Updated: now, Due: now,
	}
	for _, attempt := range n.Attempts {
		r.keep(attempt)
	}
	if n.NotBefore.After(now) {
		r.State, r.Due = Scheduled, n.NotBefore.UTC()
	}
	if n.Lane != nil {
		r.Lane, r.State = n.Lane, Parked
	}
	return r
}

func (r *Record) encode() ([]byte, error) {
	stored := *r
	if len(r.Event) > 0 && bytes.Equal(r.Event, r.Request.Body) {
		stored.Event, stored.EventIsBody = nil, true
	}
	data, err := json.Marshal(&stored)
	if err != nil {
		return nil, fmt.Errorf("%w: encode job %s: %w", ErrInvalid, r.ID, err)
	}
	return data, nil
}

// errForeign is the error of a record that another version of this program wrote, and that is left to it.
var errForeign = errors.New("record of another version")

func decodeRecord(data []byte) (*Record, error) {
	r := new(Record)
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("decode job: %w", err)
	}
	if r.V != recordVersion {
		return nil, fmt.Errorf("%w: job %s has version %d", errForeign, r.ID, r.V)
	}
	if r.EventIsBody {
		r.Event, r.EventIsBody = r.Request.Body, false
	}
	return r, nil
}

func (r *Record) keep(attempt deadletter.Attempt) {
	attempt.Round, attempt.Error = r.Round, shorten(attempt.Error)
	r.Attempts = append(slices.Clip(r.Attempts), attempt)
	r.Attempts = r.Attempts[max(0, len(r.Attempts)-keptAttempts):]
}

func shorten(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= keptError {
		return text
	}
	end := keptError
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end]
}

// attempt is the number of the attempt that is due or running.
func (r *Record) attempt() int { return r.Executions + 1 }

// step is what a ticket means for the record it names.
type step int

const (
	stale    step = iota // nothing
	hold                 // nothing before Due
	begin                // the attempt begins
	takeOver             // the attempt's runner was lost
	carryOut             // the verdict is to be carried out
	exhaust              // no attempt is left
	mend                 // what is next may be without a ticket
	foreign              // a state that this version does not know
)

// delivery is a ticket as it came from JOBS.
type delivery struct {
	ticket
	sequence    uint64
	redelivered bool
}

func (r *Record) next(d delivery, now time.Time, grace time.Duration) step {
	current := d.Round == r.Round && d.Attempt == r.attempt()
	switch r.State {
	case Done, Dead, Cancelled, Parked:
		return stale
	case Running:
		switch {
		case r.Verdict != nil:
			return carryOut
		case current && (r.Ticket == d.sequence || now.After(r.lostAt(grace))):
			return takeOver
		default:
			return stale
		}
	case Scheduled, Ready:
		switch {
		case !current && d.redelivered:
			return mend
		case !current:
			return stale
		case now.Before(r.Due):
			return hold
		case r.Policy.Exhausted(r.Executions):
			return exhaust
		default:
			return begin
		}
	default:
		return foreign
	}
}

// lostAt is when an attempt that is running has outlived its timeout by so much that nobody can be running it.
func (r *Record) lostAt(grace time.Duration) time.Time {
	return r.Started.Add(r.Request.Timeout + grace)
}

func (r *Record) begin(owner string, ticket uint64, now time.Time) {
	r.State, r.Owner, r.Ticket, r.Started, r.Updated = Running, owner, ticket, now, now
	r.Deferred, r.DeferredSince = "", time.Time{}
}

func (r *Record) rest(state State, due, now time.Time) {
	r.State, r.Due, r.Owner, r.Ticket, r.Started, r.Updated = state, due, "", 0, time.Time{}, now
	r.Deferred, r.DeferredSince = "", time.Time{}
}

// interrupt counts the attempt that is running as lost. It may be the last.
func (r *Record) interrupt(now time.Time) {
	r.Interrupted++
	message := "interrupted: runner " + r.Owner + " was lost"
	r.keep(deadletter.Attempt{Number: r.attempt(), Started: r.Started, Error: message, Interrupted: true})
	switch {
	case r.Cancel:
		r.rest(Cancelled, now, now)
	case r.Interrupted >= maxInterruption:
		r.condemn(deadletter.Crashed, message, now)
	}
}

// end counts the attempt that is running as ended, with err or well.
func (r *Record) end(outcome actions.Outcome, err error, now time.Time, random func() float64) {
	attempt := deadletter.Attempt{Number: r.attempt(), Started: r.Started, Ended: now, Status: outcome.Status}
	if err != nil {
		attempt.Error = err.Error()
	}
	r.keep(attempt)
	r.Executions++
	var unrendered *actions.RenderError
	switch {
	case err == nil:
		r.rest(Done, now, now)
	case r.Cancel:
		r.rest(Cancelled, now, now)
	case errors.As(err, &unrendered):
		r.condemn(reasonOf(unrendered), attempt.Error, now)
	case retry.IsPermanent(err):
		r.condemn(deadletter.Permanent, attempt.Error, now)
	case r.Policy.Exhausted(r.Executions):
		r.condemn(deadletter.Exhausted, attempt.Error, now)
	default:
		r.rest(Scheduled, now.Add(r.Policy.Delay(r.Executions, retry.DelayOf(err), random)), now)
	}
}

// condemn stores that the job is to die; its state stays running until the dead letter is written.
func (r *Record) condemn(reason deadletter.Reason, message string, now time.Time) {
	r.State, r.Updated = Running, now
	r.Verdict = &Verdict{Reason: reason, Error: shorten(message), At: now}
}

func (r *Record) lastError() string {
	if len(r.Attempts) == 0 {
		return ""
	}
	return r.Attempts[len(r.Attempts)-1].Error
}

// die is the state after the verdict was carried out. The verdict stays, to be shown; its dead letter is a new one.
func (r *Record) die(letter uint64, now time.Time) {
	r.rest(Dead, r.Due, now)
	r.Letter = 0
	if r.Lane != nil {
		r.Grave = letter
	}
}

func (r *Record) deadLetter() deadletter.Record {
	source := ""
	if address, err := events.ParseAddress(r.Subject); err == nil {
		source = address.Source
	}
	letter := deadletter.Record{
		ID: r.ID, Reason: r.Verdict.Reason, EffectKey: r.ID, EventID: r.Effect.EventID, Observer: r.Effect.Observer,
		Action: r.Effect.Action, Generation: r.Generation, Time: r.Verdict.At, Error: r.Verdict.Error,
		Attempts: r.Attempts, Request: &r.Request, Effect: &r.Effect, Event: r.Event, Round: r.Round,
		Source: source, Subject: r.Subject, Policy: &r.Policy, OnFailure: string(r.OnFailure), Queue: r.Queue,
	}
	if r.Lane != nil {
		letter.Lane, letter.WhenDead = r.Lane.Key, string(r.Lane.WhenDead)
	}
	return letter
}
