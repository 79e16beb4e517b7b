// Package publish is the client with which Go applications publish events to Tributary.
//
// It promises that a message is stored once Publish has returned without an error, and that asking again after a lost
// answer stores no second one. It relies on the stream INBOX, which a Tributary service has made, and checks what it
// sends by the rules of the service that reads it. It needs none of the client: any NATS client can publish JSON on
// publish.<source>.<entity>.<type>[.<key>].
package publish

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/pkg/events"
)

// ErrInvalid is the error of a message that breaks the rules: it would become no event, however often it is sent.
var ErrInvalid = errors.New("invalid message")

// ErrTooLarge is the error of a message that INBOX does not take: more than half of the server's max_payload.
var ErrTooLarge = errors.New("message is too large")

// Message is one event of an application.
type Message struct {
	Source string // names the application: [a-z][a-z0-9_]{0,52}
	Entity string // what it happened to, such as order; any text
	Type   string // what happened, such as placed; any text
	Key    string // which one it happened to; events of a key keep their order. Empty: the entity is the key

	// ID names the event within its source: one that comes twice within two minutes is stored once, and effects are
	// not repeated for it. Empty for a random one: then only what one call of Publish sends counts as the same. The
	// id of the event is <source>/<ID>, but with an Envelope, where it is ID.
	ID string

	Data     []byte    // JSON
	Envelope *Envelope // nil for Tributary's own
}

// Envelope makes a message a CloudEvent with attributes of the application's own.
type Envelope struct {
	Source     string            // a URI reference outside of /tributary/; required
	Type       string            // <entity>.<type> by default
	Subject    string            // none by default
	DataSchema string            // none by default
	Time       time.Time         // when it is stored, by default
	Extensions map[string]string // by attributes of [a-z0-9]+
}

// Receipt says how a message was stored.
type Receipt struct {
	ID        string // the message's, or the random one
	Sequence  uint64 // in INBOX; of the first one where Duplicate
	Duplicate bool   // an earlier message of the same source and ID was there, perhaps this call's own
}

// Publisher publishes to one NATS account. It is safe for concurrent use.
type Publisher struct {
	js jetstream.JetStream
}

// New gives a publisher on the application's connection, which stays the application's to close.
func New(js jetstream.JetStream) *Publisher { return &Publisher{js: js} }

// Publish stores a message and returns when that is acknowledged. While NATS is away, or INBOX is full or missing, it
// goes on until ctx ends; whether the message is stored is not known then, and publishing it again under the same ID
// is safe. It errs with ErrInvalid and ErrTooLarge.
func (p *Publisher) Publish(ctx context.Context, message Message) (Receipt, error) {
	if message.ID == "" {
		message.ID = rand.Text()
	}
	msg, err := message.encode()
	if err != nil {
		return Receipt{}, fmt.Errorf("publish %s.%s: %w", message.Entity, message.Type, err)
	}
	ack, err := p.store(ctx, msg)
	if err != nil {
		return Receipt{}, fmt.Errorf("publish %s.%s %s: %w", message.Entity, message.Type, message.ID, err)
	}
	return Receipt{ID: message.ID, Sequence: ack.Sequence, Duplicate: ack.Duplicate}, nil
}

// encode makes the NATS message, and errs where ingest would quarantine it.
func (m Message) encode() (*nats.Msg, error) {
	publication := events.Publication{Source: m.Source, Entity: m.Entity, Type: m.Type, Key: m.Key}
	msg := nats.NewMsg(publication.Subject())
	// INBOX tells duplicates by this header alone, and two applications may both count from 1.
	id := m.Source + "/" + m.ID
	msg.Header.Set(jetstream.MsgIDHeader, id)
	msg.Data = m.Data
	if m.Envelope != nil {
		data, err := m.structured()
		if err != nil {
			return nil, err
		}
		msg.Data = data
		msg.Header.Set("Content-Type", events.ContentType)
	}
	if _, err := events.ParsePublication(msg.Subject); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	_, err := events.AppendPublished(nil, events.Published{Publication: publication, Header: msg.Header, Body: msg.Data, ID: id})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return msg, nil
}

// structured gives the message as a CloudEvent in structured mode.
func (m Message) structured() ([]byte, error) {
	e := m.Envelope
	attributes := map[string]any{}
	for name, value := range e.Extensions {
		attributes[name] = value
	}
	for name, value := range map[string]string{
		"specversion": events.SpecVersion, "id": m.ID, "source": e.Source, "type": e.Type,
		"subject": e.Subject, "dataschema": e.DataSchema, "datacontenttype": "application/json",
	} {
		if value != "" {
			attributes[name] = value
		}
	}
	if e.Type == "" {
		attributes["type"] = m.Entity + "." + m.Type
	}
	if !e.Time.IsZero() {
		attributes["time"] = e.Time.Format(time.RFC3339Nano)
	}
	attributes["data"] = json.RawMessage(m.Data)
	var body bytes.Buffer
	encoder := json.NewEncoder(&body)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(attributes); err != nil {
		return nil, fmt.Errorf("%w: data: %w", ErrInvalid, err)
	}
	return body.Bytes(), nil
}
