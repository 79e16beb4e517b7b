package events

import (
	"encoding/json"
	"fmt"
	"time"
)

// envelope is the wire form; what it does not name stays in the raw members.
type envelope struct {
	SpecVersion     string          `json:"specversion"`
	ID              string          `json:"id"`
	Source          string          `json:"source"`
	Type            string          `json:"type"`
	Subject         string          `json:"subject"`
	Time            string          `json:"time"`
	DataContentType string          `json:"datacontenttype"`
	PartitionKey    string          `json:"partitionkey"`
	Sequence        string          `json:"sequence"`
	TraceParent     string          `json:"traceparent"`
	Data            json.RawMessage `json:"data"`
}

// Parse decodes an envelope as it lies in EVENTS. It errors with ErrInvalid where a required attribute is missing or
// out of its form. Extensions are left out: Row and Data hold what rules read.
func Parse(data []byte) (*Event, error) {
	var wire envelope
	if err := json.Unmarshal(data, &wire); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	switch {
	case wire.SpecVersion != SpecVersion:
		return nil, fmt.Errorf("%w: specversion is %q, not %q", ErrInvalid, wire.SpecVersion, SpecVersion)
	case wire.ID == "":
		return nil, fmt.Errorf("%w: the id is empty", ErrInvalid)
	case wire.Source == "":
		return nil, fmt.Errorf("%w: %s: the source is empty", ErrInvalid, wire.ID)
	case wire.Type == "":
		return nil, fmt.Errorf("%w: %s: the type is empty", ErrInvalid, wire.ID)
	case wire.PartitionKey == "":
		return nil, fmt.Errorf("%w: %s: the partitionkey is empty", ErrInvalid, wire.ID)
	}
	e := &Event{
		ID: wire.ID, Source: wire.Source, Type: wire.Type, Subject: wire.Subject, DataContentType: wire.DataContentType,
		PartitionKey: wire.PartitionKey, TraceParent: wire.TraceParent, Data: wire.Data,
	}
	var err error
	if e.Sequence, err = ParseSequence(wire.Sequence); err != nil {
		return nil, fmt.Errorf("%s: %w", wire.ID, err)
	}
	if wire.Time != "" {
		if e.Time, err = time.Parse(time.RFC3339Nano, wire.Time); err != nil {
			return nil, fmt.Errorf("%w: %s: time: %w", ErrInvalid, wire.ID, err)
		}
	}
	return e, nil
}
