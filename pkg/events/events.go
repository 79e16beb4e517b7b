// Package events is the vocabulary of Tributary: the CloudEvents envelope, ids, effect keys, subjects, entity keys and
// partitions. Every other package speaks it, so it relies on the standard library alone.
//
// It promises that the same change has the same bytes, id, subject and partition by whichever process it is encoded.
// It does not read PostgreSQL, and it does not publish.
package events

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// SpecVersion is the CloudEvents version of every envelope.
const SpecVersion = "1.0"

// ContentType is the content type of an envelope in structured mode.
const ContentType = "application/cloudevents+json"

// SourcePrefix begins the CloudEvents source of what Tributary itself wrote; an application may not claim it.
const SourcePrefix = "/tributary/"

// Op says what a change did.
type Op string

// The operations. Message is a pg_logical_emit_message, or what an application published.
const (
	OpInsert   Op = "insert"
	OpUpdate   Op = "update"
	OpDelete   Op = "delete"
	OpTruncate Op = "truncate"
	OpSnapshot Op = "snapshot"
	OpMessage  Op = "message"
)

// Ops lists every operation.
func Ops() []Op {
	return []Op{OpInsert, OpUpdate, OpDelete, OpTruncate, OpSnapshot, OpMessage}
}

// Valid tells whether op is one of Ops.
func (op Op) Valid() bool {
	switch op {
	case OpInsert, OpUpdate, OpDelete, OpTruncate, OpSnapshot, OpMessage:
		return true
	default:
		return false
	}
}

// Type is the CloudEvents type of a change with this operation.
func (op Op) Type() string {
	if op == OpMessage {
		return "tributary.message.v1"
	}
	return "tributary.row." + string(op) + ".v1"
}

// ErrInvalid marks bytes that are not an event.
var ErrInvalid = errors.New("invalid event")

// Event is a decoded envelope. Data keeps its bytes; Row reads it where it describes a change.
type Event struct {
	ID              string
	Source          string // a URI reference: /tributary/<name> for ours
	Type            string
	Subject         string
	Time            time.Time // zero where the envelope has none
	DataContentType string
	PartitionKey    string
	Sequence        Sequence
	TraceParent     string
	Data            json.RawMessage
}

// Row is the data of a change.
type Row struct {
	Op        Op              `json:"op"`
	Schema    string          `json:"schema,omitempty"`
	Table     string          `json:"table,omitempty"`
	Key       json.RawMessage `json:"key,omitempty"`    // an object, absent where the table has no primary key
	Before    json.RawMessage `json:"before,omitempty"` // an object: the old row, or its key columns
	After     json.RawMessage `json:"after,omitempty"`  // an object: the new row
	Changed   []string        `json:"changed,omitempty"`
	Unchanged []string        `json:"unchanged,omitempty"` // TOASTed columns that PostgreSQL did not send
	Oversize  bool            `json:"oversize,omitempty"`  // the images are in DEADLETTERS
	Prefix    string          `json:"prefix,omitempty"`    // of a logical message
	Content   json.RawMessage `json:"content,omitempty"`   // of a logical message: JSON where it was JSON, else a string
	Tx        *Tx             `json:"tx,omitempty"`        // absent in snapshots
}

// Tx places a change in its transaction.
type Tx struct {
	ID        uint32 `json:"id"`
	CommitLSN string `json:"commit_lsn"`
	Index     uint32 `json:"index"` // from 1
	Last      bool   `json:"last"`
}

// Row decodes the event's data as a change. It errors with ErrInvalid where the data is not one.
func (e *Event) Row() (*Row, error) {
	var row Row
	if err := json.Unmarshal(e.Data, &row); err != nil {
		return nil, fmt.Errorf("%w: data of %s: %w", ErrInvalid, e.ID, err)
	}
	if !row.Op.Valid() {
		return nil, fmt.Errorf("%w: data of %s: op %q is unknown", ErrInvalid, e.ID, row.Op)
	}
	return &row, nil
}
