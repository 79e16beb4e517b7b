package inspect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/internal/natsread"
	"github.com/tributary-dev/tributary/pkg/events"
)

// positionPrefix begins the subjects of positions, which lie between the events.
const positionPrefix = "positions."

// place is where a change lies among those of its source: what its id begins with.
type place struct {
	source      string
	incarnation uint64
	lsn         uint64
}

// placeOf reads <source>-<incarnation>-<LSN, 16 hex>-…, the id of what a database gave.
func placeOf(id string) (place, bool) {
	const parts = 4
	fields := strings.SplitN(id, "-", parts)
	if len(fields) < parts || len(fields[2]) != 16 || !events.ValidSource(fields[0]) {
		return place{}, false
	}
	incarnation, errIncarnation := strconv.ParseUint(fields[1], 10, 64)
	lsn, errLSN := strconv.ParseUint(fields[2], 16, 64)
	return place{fields[0], incarnation, lsn}, errIncarnation == nil && errLSN == nil
}

func (p place) compare(q place) int {
	return cmp.Or(cmp.Compare(p.incarnation, q.incarnation), cmp.Compare(p.lsn, q.lsn))
}

// Event finds an event by its sequence in EVENTS, its id, the id that keys its effects, or one of its effect keys. It
// errs with ErrNotFound.
func (s *System) Event(ctx context.Context, name string) (*StoredEvent, error) {
	stream, err := s.stream(ctx, events.StreamEvents)
	if err != nil {
		return nil, err
	}
	if sequence, err := strconv.ParseUint(name, 10, 64); err == nil {
		msg, err := stream.GetMsg(ctx, sequence)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil, notFound(stream, "message "+name)
		}
		if err != nil {
			return nil, fmt.Errorf("read message %d of EVENTS: %w", sequence, err)
		}
		if strings.HasPrefix(msg.Subject, positionPrefix) {
			return nil, fmt.Errorf("%w: message %d of EVENTS is a position of %s, no event", ErrNotFound, sequence, msg.Subject[len(positionPrefix):])
		}
		return storedEvent(msg)
	}
	var found *StoredEvent
	id, _, _ := strings.Cut(name, "~")
	if target, ok := placeOf(id); ok {
		found, err = s.seek(ctx, stream, id, target)
	} else {
		found, err = s.scan(ctx, name)
	}
	if err == nil && found == nil {
		err = notFound(stream, "event "+name)
	}
	return found, err
}

// notFound says from when on there are events.
func notFound(stream jetstream.Stream, what string) error {
	state := stream.CachedInfo().State
	if state.Msgs == 0 {
		return fmt.Errorf("%w: %s: EVENTS is empty", ErrNotFound, what)
	}
	return fmt.Errorf("%w: %s: EVENTS holds what was stored since %s (sequences %d to %d)", ErrNotFound, what,
		state.FirstTime.UTC().Format(time.RFC3339), state.FirstSeq, state.LastSeq)
}

// seek finds a change by bisection: those of a source lie in the order of their places.
func (s *System) seek(ctx context.Context, stream jetstream.Stream, id string, target place) (*StoredEvent, error) {
	filter := events.EventsOfSource(target.source)
	state := stream.CachedInfo().State
	low, high := max(state.FirstSeq, 1), state.LastSeq+1
	for low < high {
		middle := low + (high-low)/2
		msg, err := stream.GetMsg(ctx, middle, jetstream.WithGetMsgSubject(filter))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			high = middle
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("search EVENTS: %w", err)
		}
		if at, ok := placeOfMessage(msg); ok && at.compare(target) < 0 {
			low = msg.Sequence + 1
		} else {
			high = middle
		}
	}
	var found *StoredEvent
	query := natsread.Query{Stream: events.StreamEvents, Subjects: []string{filter}, From: low}
	err := natsread.Forward(ctx, s.JS, query, func(msg *jetstream.RawStreamMsg) error {
		e, err := storedEvent(msg)
		if errors.Is(err, ErrUnreadable) {
			return nil
		}
		if err != nil {
			return err
		}
		if e.ID == id {
			found = e
			return natsread.ErrStop
		}
		if at, ok := placeOf(e.ID); ok && at.compare(target) > 0 {
			return natsread.ErrStop
		}
		return nil
	})
	return found, err
}

func placeOfMessage(msg *jetstream.RawStreamMsg) (place, bool) {
	e, err := storedEvent(msg)
	if err != nil {
		return place{}, false
	}
	return placeOf(e.ID)
}

// scan finds an application's event, whose id says nothing of its place: the newest comes first.
func (s *System) scan(ctx context.Context, name string) (*StoredEvent, error) {
	const own = 2 // <source>~<hash>, before the observer and the action of an effect key
	effectID := strings.Join(strings.SplitN(name, "~", own+1)[:min(own, strings.Count(name, "~")+1)], "~")
	filter := EventQuery{Op: events.OpMessage}
	if source, _, ok := strings.Cut(effectID, "~"); ok && events.ValidSource(source) {
		filter.Source = source
	}
	subjects, err := filter.subjects()
	if err != nil {
		return nil, err
	}
	var found *StoredEvent
	query := natsread.Query{Stream: events.StreamEvents, Subjects: subjects}
	err = natsread.Backward(ctx, s.JS, query, func(msg *jetstream.RawStreamMsg) error {
		e, err := storedEvent(msg)
		if errors.Is(err, ErrUnreadable) {
			return nil
		}
		if err != nil {
			return err
		}
		if e.ID == name || e.EffectID() == effectID {
			found = e
			return natsread.ErrStop
		}
		return nil
	})
	return found, err
}
