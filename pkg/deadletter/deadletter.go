// Package deadletter keeps what was given up: effects that failed for good, and inputs that could not be read.
//
// It promises that a record is self-contained (what it takes to look into it or to do it again, weeks later, is in it),
// that writing the same record twice within the duplicate window of DEADLETTERS stores it once, and that no record is
// too large. It relies on stream DEADLETTERS. It removes what it is told to, and retries nothing: that is the work of jobs.
package deadletter

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/retry"
)

// Reason says why something was given up. It is a token of the record's subject.
type Reason string

// The reasons.
const (
	Permanent   Reason = "permanent"   // the action said that no attempt can mend it
	Exhausted   Reason = "exhausted"   // the last attempt that the policy allows failed
	Crashed     Reason = "crashed"     // it was begun too often without an end
	Condition   Reason = "condition"   // an observer's condition failed at run time
	Render      Reason = "render"      // a request could not be rendered
	Oversize    Reason = "oversize"    // too large for the stream it belongs to
	Undecodable Reason = "undecodable" // its bytes are not what they should be
	Mapping     Reason = "mapping"     // the index refused the document
	Orphaned    Reason = "orphaned"    // the observer or action that it waited for is gone, or EVENTS has lost what waited
)

// Reasons lists every reason.
func Reasons() []Reason {
	return []Reason{Permanent, Exhausted, Crashed, Condition, Render, Oversize, Undecodable, Mapping, Orphaned}
}

// Attempt is one execution, as records of jobs and dead letters keep it.
type Attempt struct {
	Round       int       `json:"round,omitempty"` // how often its effect had been retried after it had died
	Number      int       `json:"number"`          // from 1, in its round
	Started     time.Time `json:"started,omitzero"`
	Ended       time.Time `json:"ended,omitzero"`
	Status      int       `json:"status,omitempty"`      // of HTTP or SMTP
	Error       string    `json:"error,omitempty"`       // without payloads or secrets
	Interrupted bool      `json:"interrupted,omitempty"` // its runner was lost: whether it took effect is not known
}

// Record is one dead letter. What does not apply is left out.
type Record struct {
	V          int              `json:"v"`
	ID         string           `json:"id"` // what makes Write idempotent, with Round; the effect key where it is not given
	Reason     Reason           `json:"reason"`
	EffectKey  string           `json:"effect_key,omitempty"`
	EventID    string           `json:"event_id,omitempty"`
	Source     string           `json:"source,omitempty"`
	Observer   string           `json:"observer,omitempty"`
	Action     string           `json:"action,omitempty"`
	Generation string           `json:"generation,omitempty"`
	Time       time.Time        `json:"time"`
	Error      string           `json:"error,omitempty"`
	Attempts   []Attempt        `json:"attempts,omitempty"`
	Request    *actions.Request `json:"request,omitempty"`
	Effect     *actions.Effect  `json:"effect,omitempty"`
	Event      json.RawMessage  `json:"event,omitempty"`   // the whole envelope
	Raw        []byte           `json:"raw,omitempty"`     // an input that could not be decoded
	Header     nats.Header      `json:"header,omitempty"`  // that the input came with
	Subject    string           `json:"subject,omitempty"` // that the event or the input came under
	Round      int              `json:"round,omitempty"`   // how often it was retried after it had died

	Lost *Lost `json:"lost,omitempty"` // instead of an effect: many, of which nothing is known but their place

	// What a retry goes by, as the observer had it.
	Policy    *retry.Policy `json:"policy,omitempty"`
	OnFailure string        `json:"on_failure,omitempty"`
	Queue     string        `json:"queue,omitempty"`
	Lane      string        `json:"lane,omitempty"`      // of jobs, that it had its turn in
	WhenDead  string        `json:"when_dead,omitempty"` // what becomes of those behind it
}

// Lost is what EVENTS has lost of what an observer's action was waiting for. One record stands for all of it: of events that
// are gone nothing is left that a record of their own could hold.
type Lost struct {
	Partition int       `json:"partition"`
	From      uint64    `json:"from"`           // sequences in EVENTS, both ends included
	To        uint64    `json:"to,omitempty"`   // 0: all from there on, since the stream was made anew
	Effects   int       `json:"effects"`        // at most so many were waiting there
	Since     time.Time `json:"since,omitzero"` // when EVENTS took the first of them
}

const (
	version       = 1
	subjectPrefix = "deadletters."
	noToken       = "_"
	roundMark     = "#" // between the ID and the round of a message's id
)

// ErrInvalid marks a record that can't be written, however often it is tried.
var ErrInvalid = errors.New("invalid dead letter")

func (r *Record) fill(now time.Time) error {
	if !slices.Contains(Reasons(), r.Reason) {
		return fmt.Errorf("%w: reason %q is unknown", ErrInvalid, r.Reason)
	}
	if r.ID == "" {
		r.ID = r.EffectKey
	}
	if r.ID == "" {
		return fmt.Errorf("%w: reason %s: neither id nor effect key is given", ErrInvalid, r.Reason)
	}
	if r.Time.IsZero() {
		r.Time = now.UTC()
	}
	r.V = version
	return nil
}

func (r *Record) messageID() string { return r.ID + roundMark + strconv.Itoa(r.Round) }

func (r *Record) subject() string {
	return subjectPrefix + string(r.Reason) + "." + token(r.Observer) + "." + token(r.Action)
}

func token(name string) string {
	if name == "" {
		return noToken
	}
	return events.EscapeToken(name)
}
