package inspect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/internal/natsread"
	"github.com/tributary-dev/tributary/pkg/events"
)

// StoredEvent is an event as it lies in EVENTS.
type StoredEvent struct {
	Sequence uint64          `json:"sequence"` // in EVENTS
	Stored   time.Time       `json:"stored"`
	Subject  string          `json:"subject"`
	Source   string          `json:"source"`
	Entity   string          `json:"entity"`
	Op       events.Op       `json:"op"`
	ID       string          `json:"id"`
	Event    json.RawMessage `json:"event"` // the whole envelope

	Address events.Address `json:"-"`
	Parsed  *events.Event  `json:"-"`
}

// EffectID is the id that keys the event's effects.
func (e *StoredEvent) EffectID() string { return e.Address.EffectID(e.Parsed) }

// ErrUnreadable marks a message in EVENTS that is no event.
var ErrUnreadable = errors.New("not an event")

func storedEvent(msg *jetstream.RawStreamMsg) (*StoredEvent, error) {
	address, err := events.ParseAddress(msg.Subject)
	if err != nil {
		return nil, fmt.Errorf("message %d of EVENTS: %w: %w", msg.Sequence, ErrUnreadable, err)
	}
	parsed, err := events.Parse(msg.Data)
	if err != nil {
		return nil, fmt.Errorf("message %d of EVENTS: %w: %w", msg.Sequence, ErrUnreadable, err)
	}
	return &StoredEvent{
		Sequence: msg.Sequence, Stored: msg.Time, Subject: msg.Subject, Source: address.Source, Entity: address.Entity(), Op: address.Op,
		ID: parsed.ID, Event: msg.Data, Address: address, Parsed: parsed,
	}, nil
}

// EventQuery selects events. What is zero selects all.
type EventQuery struct {
	Source string
	Entity string // schema.table, entity.type, or a logical message's prefix; * stands for a whole part
	Op     events.Op
	Since  time.Time // when it was stored
	From   uint64    // from this sequence on, oldest first; otherwise newest first
	Limit  int
}

// ErrQuery marks a query that can't be asked.
var ErrQuery = errors.New("this can't be asked")

// Events lists events.
func (s *System) Events(ctx context.Context, q EventQuery) ([]StoredEvent, error) {
	if _, err := s.stream(ctx, events.StreamEvents); err != nil {
		return nil, err
	}
	subjects, err := q.subjects()
	if err != nil {
		return nil, err
	}
	list := []StoredEvent{}
	add := func(msg *jetstream.RawStreamMsg) error {
		e, err := storedEvent(msg)
		if errors.Is(err, ErrUnreadable) {
			return nil
		}
		if err != nil {
			return err
		}
		if !msg.Time.Before(q.Since) {
			list = append(list, *e)
		}
		if len(list) >= q.Limit {
			return natsread.ErrStop
		}
		return nil
	}
	query := natsread.Query{Stream: events.StreamEvents, Subjects: subjects, From: q.From, Since: q.Since}
	read := natsread.Backward
	if q.From > 0 {
		read = natsread.Forward
	}
	return list, read(ctx, s.JS, query, add)
}

// subjects gives filters that do not overlap. A dot within a name is escaped in subjects, so there are as many ways to
// read an entity as it has dots.
func (q EventQuery) subjects() ([]string, error) {
	token := func(text string) string {
		if text == "" || text == "*" {
			return "*"
		}
		return events.EscapeToken(text)
	}
	filter := func(schema, table string) string {
		return "events.*." + token(q.Source) + "." + schema + "." + table + "." + token(string(q.Op))
	}
	if q.Entity == "" {
		return []string{filter("*", "*")}, nil
	}
	parts := strings.Split(q.Entity, ".")
	for _, part := range parts {
		if part == "" || part != "*" && strings.Contains(part, "*") {
			return nil, fmt.Errorf("%w: entity %q: write schema.table; * stands for a whole part", ErrQuery, q.Entity)
		}
	}
	if strings.Contains(q.Entity, "*") {
		if len(parts) != 2 {
			return nil, fmt.Errorf("%w: entity %q: with * it has two parts, as public.*", ErrQuery, q.Entity)
		}
		return []string{filter(token(parts[0]), token(parts[1]))}, nil
	}
	filters := []string{filter(events.EscapeToken(""), events.EscapeToken(q.Entity))}
	for i := 1; i < len(parts); i++ {
		filters = append(filters, filter(events.EscapeToken(strings.Join(parts[:i], ".")), events.EscapeToken(strings.Join(parts[i:], "."))))
	}
	return filters, nil
}
