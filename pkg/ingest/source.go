package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/tributary-dev/tributary/pkg/events"
)

// Source is one origin of events: a PostgreSQL database, or INBOX.
type Source interface {
	// Name is the source's name, and the last token of its positions' subject.
	Name() string

	// Run reads from where state says and puts what it reads into feed, in order, until ctx ends or reading fails. It
	// returns only after all that it started has ended. An error that wraps ErrRefused is final: going on would lose
	// or repeat changes, or can't work, until a person has done what the error says. After any other, Run is called
	// again, with the state of that time and a new feed.
	Run(ctx context.Context, state State, feed *Feed) error
}

// ErrRefused marks an error of a Source after which it is not run again.
var ErrRefused = errors.New("refused")

// Phase says how far the set-up of a source has come.
type Phase string

// The phases, in order. A first start has none.
const (
	PhaseSetup     Phase = "setup"     // the slot is about to be made; it is this source's own if it is there
	PhaseSnapshot  Phase = "snapshot"  // the slot is there; rows from before it are being read
	PhaseStreaming Phase = "streaming" // changes are being read
)

// Position is a message on positions.<source>: who may go on, and what no event says of how far the source is stored.
type Position struct {
	V           int             `json:"v"`
	Epoch       uint64          `json:"epoch"`       // counts takeovers
	Incarnation uint64          `json:"incarnation"` // counts set-ups of the source, from 1
	SystemID    string          `json:"system_id"`   // of the database cluster; of INBOX, its creation time
	Timeline    int32           `json:"timeline"`
	Slot        string          `json:"slot"`
	Phase       Phase           `json:"phase"`
	CommitLSN   events.LSN      `json:"commit_lsn"` // of the last event that was stored before this message
	Index       uint32          `json:"index"`
	XID         uint32          `json:"xid"`
	EndLSN      events.LSN      `json:"end_lsn"`          // every commit that begins before it is stored
	Cursor      json.RawMessage `json:"cursor,omitempty"` // a snapshot's, known to the source alone
	Behind      uint64          `json:"behind,omitempty"` // INBOX's: what lies behind this sequence of EVENTS is not counted in here; 0 is the position's own
	Leader      string          `json:"leader"`
	Time        time.Time       `json:"time"`
}

// State is how far a source is stored when its reading begins.
type State struct {
	Position Position        // as the leader wrote it when it took over; Phase is empty at a first start
	Last     events.Sequence // of the last event in EVENTS; zero where there is none
	Through  events.LSN      // every commit that begins before it is stored, by the last event and the position
	Mirrored Position        // what the source's mirror knows; zero where there is none
	Torn     []Torn          // events of INBOX that are in EVENTS, and that no position tells of; ascending
}

// Torn is what a power cut left of a batch: an event that is stored, though the mark at the end of its batch is not.
type Torn struct {
	At   events.Sequence
	Data []byte
}

// Stored tells whether the event at s is stored already.
func (s State) Stored(at events.Sequence) bool { return at.Compare(s.Last) <= 0 }

// Item is one step of a source: an event, or a mark, which is progress that no event carries.
type Item struct {
	Subject string          // of the event
	Data    []byte          // its envelope, in the Batch's own memory
	At      events.Sequence // its place; ascends within a source
	XID     uint32
	Through events.LSN // once this item is stored, every commit that begins before Through is; 0 where that is unchanged
	Mark    *Position  // not nil: no event, but a position to store behind all earlier items; Epoch, Leader and Time are filled in
}

// Batch is some items with the memory that they lie in. A source appends envelopes to Buf, and items that point into it.
type Batch struct {
	Items []Item
	Buf   []byte
}

// events counts the items that are no marks.
func (b *Batch) events() (n int) {
	for i := range b.Items {
		if b.Items[i].Mark == nil {
			n++
		}
	}
	return n
}

// through is how far the batch goes; 0 where it does not say.
func (b *Batch) through() events.LSN {
	for i := len(b.Items) - 1; i >= 0; i-- {
		switch item := &b.Items[i]; {
		case item.Mark != nil:
			return item.Mark.EndLSN
		case item.Through != 0:
			return item.Through
		}
	}
	return 0
}

func (b *Batch) size() int {
	const perItem = 128 // its header, subject and place
	return len(b.Buf) + perItem*len(b.Items)
}
