package deadletter

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/internal/natsread"
	"github.com/tributary-dev/tributary/pkg/events"
)

// Filter selects dead letters. What is zero selects all.
type Filter struct {
	Reason   Reason
	Observer string
	Action   string
	Since    time.Time // when the record was stored
	EventID  string
}

// Match tells whether the filter selects an entry.
func (f Filter) Match(e Entry) bool {
	r := &e.Record
	return (f.Reason == "" || r.Reason == f.Reason) && (f.Observer == "" || r.Observer == f.Observer) &&
		(f.Action == "" || r.Action == f.Action) && (f.EventID == "" || r.EventID == f.EventID) && !e.Stored.Before(f.Since)
}

// subject is what the server filters by.
func (f Filter) subject() string {
	part := func(text string) string {
		if text == "" {
			return "*"
		}
		return events.EscapeToken(text)
	}
	return subjectPrefix + part(string(f.Reason)) + "." + part(f.Observer) + "." + part(f.Action)
}

func (f Filter) query() natsread.Query {
	return natsread.Query{Stream: events.StreamDeadLetters, Subjects: []string{f.subject()}, Since: f.Since}
}

// Each calls do with the records that the filter selects, oldest first, until do errs: with natsread.ErrStop for
// enough. One that can't be read is selected by its subject and age alone, and has Err set.
func Each(ctx context.Context, js jetstream.JetStream, f Filter, do func(Entry) error) error {
	return each(ctx, js, f, natsread.Forward, do)
}

// Newest gives up to limit of the records that the filter selects, newest first.
func Newest(ctx context.Context, js jetstream.JetStream, f Filter, limit int) ([]Entry, error) {
	var entries []Entry
	err := each(ctx, js, f, natsread.Backward, func(e Entry) error {
		entries = append(entries, e)
		if len(entries) >= limit {
			return natsread.ErrStop
		}
		return nil
	})
	return entries, err
}

type reading func(context.Context, jetstream.JetStream, natsread.Query, func(*jetstream.RawStreamMsg) error) error

func each(ctx context.Context, js jetstream.JetStream, f Filter, read reading, do func(Entry) error) error {
	stream, err := open(ctx, js)
	if err != nil {
		return err
	}
	return read(ctx, js, f.query(), func(msg *jetstream.RawStreamMsg) error {
		if !isHead(msg) {
			return nil
		}
		entry, err := readEntry(ctx, stream, msg)
		if err != nil {
			return err
		}
		if entry.Err == nil && !f.Match(entry) {
			return nil
		}
		return do(entry)
	})
}

// groupOf reads a subject that record.subject has made.
func groupOf(subject string) *Group {
	tokens := strings.SplitN(strings.TrimPrefix(subject, subjectPrefix), ".", 3)
	names := make([]string, 3)
	for i, token := range tokens {
		if name, ok := events.UnescapeToken(token); ok && token != noToken {
			names[i] = name
		}
	}
	return &Group{Reason: Reason(names[0]), Observer: names[1], Action: names[2]}
}

// Group is the dead letters of one reason, observer and action.
type Group struct {
	Reason   Reason    `json:"reason"`
	Observer string    `json:"observer,omitempty"`
	Action   string    `json:"action,omitempty"`
	Count    int       `json:"count"`
	Oldest   time.Time `json:"oldest"` // when it was stored
	Newest   time.Time `json:"newest"`
}

// Stats counts the dead letters that the filter selects, by reason, observer and action; those with the most first. It
// reads no records, so EventID does not count.
func Stats(ctx context.Context, js jetstream.JetStream, f Filter) ([]Group, error) {
	query := f.query()
	query.HeadersOnly = true
	groups := make(map[string]*Group)
	err := natsread.Forward(ctx, js, query, func(msg *jetstream.RawStreamMsg) error {
		if !isHead(msg) {
			return nil
		}
		g := groups[msg.Subject]
		if g == nil {
			g = groupOf(msg.Subject)
			g.Oldest = msg.Time
			groups[msg.Subject] = g
		}
		g.Count++
		g.Newest = msg.Time
		return nil
	})
	if err != nil {
		return nil, err
	}
	list := make([]Group, 0, len(groups))
	for _, g := range groups {
		list = append(list, *g)
	}
	slices.SortFunc(list, func(a, b Group) int {
		if a.Count != b.Count {
			return b.Count - a.Count
		}
		return a.Oldest.Compare(b.Oldest)
	})
	return list, nil
}
