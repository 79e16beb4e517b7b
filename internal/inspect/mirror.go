package inspect

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tributary-dev/tributary/pkg/checkpoint"
	"github.com/tributary-dev/tributary/pkg/events"
)

// Mirror is what the source's own database knows of the source's position. It explains; EVENTS decides.
type Mirror struct {
	Error       string     `json:"error,omitempty"` // why it could not be read; the rest is empty then
	Saved       bool       `json:"saved"`           // it knows of the source
	Epoch       uint64     `json:"epoch"`
	Incarnation uint64     `json:"incarnation"`
	Stored      events.LSN `json:"stored"` // every commit before it was in EVENTS when it was saved
	At          time.Time  `json:"saved_at,omitzero"`
	Behind      int64      `json:"behind_bytes"`   // of EVENTS
	Says        string     `json:"says,omitempty"` // what must have happened, where it and EVENTS differ
}

// readMirror reads the mirror in a source's database.
func (source *Source) readMirror(ctx context.Context, url string) {
	m := new(Mirror)
	source.Mirror = m
	store, err := checkpoint.New(url, checkpoint.Options{Name: "tributary-status", Timeout: askFor})
	if err != nil {
		m.Error = err.Error()
		return
	}
	defer store.Close()
	saved, err := store.Get(ctx, source.Name)
	switch {
	case errors.Is(err, checkpoint.ErrNotFound):
	case err != nil:
		m.Error = err.Error()
		return
	default:
		m.Saved, m.Epoch, m.Incarnation, m.Stored, m.At = true, saved.Epoch, saved.Incarnation, saved.End, saved.At.UTC()
	}
	m.judge(source, saved.Commit)
}

// judge says what the mirror and EVENTS together tell; commit is the last one that the mirror knows of.
func (m *Mirror) judge(source *Source, commit events.LSN) {
	switch {
	case !m.Saved && source.Phase == "":
	case !m.Saved:
		m.Says = "nothing is mirrored yet"
	case source.Phase == "":
		m.Says = "EVENTS has no position of the source: it was deleted, or another deployment reads this database"
	case m.Incarnation > source.Incarnation:
		m.Says = fmt.Sprintf("it knows set-up %d, and EVENTS ends in set-up %d: EVENTS was restored from before a reset", m.Incarnation, source.Incarnation)
	case m.Incarnation < source.Incarnation:
		m.Says = fmt.Sprintf("it knows set-up %d, and EVENTS is in set-up %d: it does not follow", m.Incarnation, source.Incarnation)
	case commit >= source.Stored:
		m.Says = fmt.Sprintf("it is %d bytes ahead: EVENTS lost its end, which ingest reads again from the slot", bytesBetween(source.Stored, m.Stored))
	default:
		m.Behind = bytesBetween(m.Stored, source.Stored)
	}
}

// Late tells whether the mirror has not followed for a while, though it should have.
func (m *Mirror) Late(now time.Time) bool {
	const aWhile = time.Minute
	return m.Saved && m.Behind > 0 && now.Sub(m.At) > aWhile
}
