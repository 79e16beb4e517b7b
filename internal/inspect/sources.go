package inspect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/tributary-dev/tributary/internal/ask"
	"github.com/tributary-dev/tributary/internal/natskv"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/ingest"
	"github.com/tributary-dev/tributary/pkg/pgcdc"
)

// Source is how far a source is stored in EVENTS.
type Source struct {
	Name        string       `json:"name"`
	Leader      string       `json:"leader,omitempty"` // who holds the lease; empty where nobody reads it
	Epoch       uint64       `json:"epoch"`            // counts takeovers
	Incarnation uint64       `json:"incarnation"`      // counts set-ups
	Phase       ingest.Phase `json:"phase,omitempty"`  // empty where it was never read
	Slot        string       `json:"slot,omitempty"`
	Stored      events.LSN   `json:"stored"`            // every commit before it is in EVENTS; INBOX's next sequence
	Progress    time.Time    `json:"progress,omitzero"` // when something of it was stored for the last time
	LastEvent   string       `json:"last_event_id,omitempty"`
	LastTime    time.Time    `json:"last_event_time,omitzero"` // of the commit
	Lag         Lag          `json:"lag"`
	Database    *Standing    `json:"database,omitempty"` // where the configuration names it
	Mirror      *Mirror      `json:"mirror,omitempty"`   // likewise, and positions are mirrored
	Session     *Session     `json:"session,omitempty"`  // as the leader tells; absent where nobody leads

	Reading []pgcdc.Progress `json:"reading,omitempty"` // of rows: a snapshot, new tables, what was asked for
}

// Session is how the source stands with its leader.
type Session struct {
	Error string `json:"error,omitempty"` // why the leader did not tell; the rest is empty then
	ingest.Standing
}

// Lag is what is not stored yet.
type Lag struct {
	Bytes    *int64   `json:"bytes,omitempty"`    // of WAL; absent where the database was not asked
	Messages *uint64  `json:"messages,omitempty"` // of INBOX
	Seconds  *float64 `json:"seconds,omitempty"`  // since the last progress; 0 where all is stored; absent where there was none
}

// Standing is what the source's database says.
type Standing struct {
	Error       string     `json:"error,omitempty"` // why it could not be asked; the rest is empty then
	Flushed     events.LSN `json:"flushed"`
	Slot        bool       `json:"slot_exists"`
	Active      bool       `json:"slot_active"`
	WALStatus   string     `json:"wal_status,omitempty"`
	Confirmed   events.LSN `json:"confirmed"`
	Unconfirmed int64      `json:"unconfirmed_bytes"`    // that PostgreSQL keeps for us to read again
	Retained    int64      `json:"retained_bytes"`       // all that the slot keeps
	Safe        *int64     `json:"safe_bytes,omitempty"` // that may be written before the slot is in danger; absent where nothing limits what it keeps
}

// askFor bounds the asking of one database.
const askFor = 4 * time.Second

// Sources lists every source that was ever read, and those that the configuration names; INBOX comes last.
func (s *System) Sources(ctx context.Context) ([]Source, error) {
	stream, err := s.stream(ctx, events.StreamEvents)
	if err != nil {
		return nil, err
	}
	names, err := s.sourceNames(ctx, stream)
	if err != nil {
		return nil, err
	}
	list := make([]Source, len(names))
	group, ctx := errgroup.WithContext(ctx)
	for i, name := range names {
		group.Go(func() (err error) {
			list[i], err = s.source(ctx, stream, name)
			return err
		})
	}
	return list, group.Wait()
}

func (s *System) sourceNames(ctx context.Context, stream jetstream.Stream) ([]string, error) {
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(positionPrefix+">"))
	if err != nil {
		return nil, fmt.Errorf("list sources: %w", err)
	}
	var names []string
	for subject := range info.State.Subjects {
		if name, ok := events.UnescapeToken(strings.TrimPrefix(subject, positionPrefix)); ok {
			names = append(names, name)
		}
	}
	for _, database := range s.Databases {
		if !slices.Contains(names, database.Source) {
			names = append(names, database.Source)
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		if inbox := a == events.InboxSource; inbox != (b == events.InboxSource) {
			if inbox {
				return 1
			}
			return -1
		}
		return strings.Compare(a, b)
	})
	return names, nil
}

func (s *System) source(ctx context.Context, stream jetstream.Stream, name string) (Source, error) {
	source := Source{Name: name}
	if err := s.readLease(ctx, &source); err != nil {
		return source, err
	}
	if err := readPosition(ctx, stream, &source); err != nil {
		return source, err
	}
	s.askLeader(ctx, &source)
	if name == events.InboxSource {
		return source, s.lagOfInbox(ctx, &source)
	}
	if err := readLastEvent(ctx, stream, &source); err != nil {
		return source, err
	}
	if !source.Progress.IsZero() {
		age := seconds(time.Since(source.Progress))
		source.Lag.Seconds = &age
	}
	for _, database := range s.Databases {
		if database.Source == name {
			source.ask(ctx, database)
		}
	}
	return source, nil
}

func (s *System) readLease(ctx context.Context, source *Source) error {
	there, err := natskv.Open(s.JS, events.BucketLeases).Get(ctx, "ingest."+source.Name)
	if errors.Is(err, natskv.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for the leader of %s: %w", source.Name, err)
	}
	var lease struct {
		Owner    string `json:"owner"`
		Released bool   `json:"released"`
	}
	if err := json.Unmarshal(there.Value, &lease); err != nil {
		return fmt.Errorf("decode the lease of %s: %w", source.Name, err)
	}
	if !lease.Released {
		source.Leader = lease.Owner
	}
	return nil
}

// askLeader asks the leader what it alone knows. That it does not tell is a part of what status tells.
func (s *System) askLeader(ctx context.Context, source *Source) {
	if source.Leader == "" {
		return
	}
	standing, err := ask.Standing(ctx, s.JS.Conn(), source.Name)
	source.Session = &Session{Standing: standing}
	if err != nil {
		source.Session.Error = err.Error()
	}
}

func readPosition(ctx context.Context, stream jetstream.Stream, source *Source) error {
	msg, err := stream.GetLastMsgForSubject(ctx, events.PositionSubject(source.Name))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the position of %s: %w", source.Name, err)
	}
	var p ingest.Position
	if err := json.Unmarshal(msg.Data, &p); err != nil {
		return fmt.Errorf("decode the position of %s: %w", source.Name, err)
	}
	source.Epoch, source.Incarnation, source.Phase, source.Slot = p.Epoch, p.Incarnation, p.Phase, p.Slot
	source.Stored, source.Progress = p.EndLSN, msg.Time.UTC()
	if source.Name != events.InboxSource {
		if source.Reading, _, err = pgcdc.ReadProgress(p); err != nil {
			return fmt.Errorf("read the position of %s: %w", source.Name, err)
		}
	}
	return nil
}

// readLastEvent heeds the last event, which may be later than the position.
func readLastEvent(ctx context.Context, stream jetstream.Stream, source *Source) error {
	var last *StoredEvent
	for _, filter := range events.ChangesOfSource(source.Name) {
		msg, err := stream.GetLastMsgForSubject(ctx, filter)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read the last event of %s: %w", source.Name, err)
		}
		e, err := storedEvent(msg)
		if err != nil {
			continue // a worker makes a dead letter of it
		}
		at, ok := placeOf(e.ID)
		if ok && at.incarnation == source.Incarnation && (last == nil || e.Parsed.Sequence.Compare(last.Parsed.Sequence) > 0) {
			last = e
		}
	}
	if last == nil {
		return nil
	}
	source.LastEvent, source.LastTime = last.ID, last.Parsed.Time.UTC()
	if last.Stored.After(source.Progress) {
		source.Progress = last.Stored.UTC()
	}
	through := events.LSN(last.Parsed.Sequence.Commit)
	if row, err := last.Parsed.Row(); err == nil && (row.Tx == nil || row.Tx.Last) {
		through++
	}
	source.Stored = max(source.Stored, through)
	return nil
}

// ask compares with the database.
func (source *Source) ask(ctx context.Context, database Database) {
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	standing := new(Standing)
	source.Database = standing
	url, err := database.URL()
	var there pgcdc.Standing
	if err == nil {
		there, err = pgcdc.Stand(ctx, url, database.Slot)
	}
	if err != nil {
		standing.Error = err.Error()
		return
	}
	*standing = Standing{
		Flushed: there.Flushed, Slot: there.Exists, Active: there.Active, WALStatus: there.WALStatus, Confirmed: there.Confirmed,
		Retained: there.Retained(),
	}
	if there.Exists && there.SafeBytes >= 0 {
		standing.Safe = &there.SafeBytes
	}
	if database.Mirrored {
		source.readMirror(ctx, url)
	}
	if source.Phase == "" {
		return
	}
	behind := bytesBetween(source.Stored, there.Flushed)
	source.Lag.Bytes = &behind
	standing.Unconfirmed = bytesBetween(there.Confirmed, source.Stored)
	if behind == 0 {
		source.Lag.Seconds = new(float64)
	}
}

func bytesBetween(from, to events.LSN) int64 {
	if from >= to {
		return 0
	}
	return int64(to - from)
}

// lagOfInbox counts the messages of INBOX that are not in EVENTS yet.
func (s *System) lagOfInbox(ctx context.Context, source *Source) error {
	stream, err := s.stream(ctx, events.StreamInbox)
	if errors.Is(err, ErrNotSetUp) {
		return nil
	}
	if err != nil {
		return err
	}
	state := stream.CachedInfo().State
	next := max(uint64(source.Stored), 1)
	waiting, age := uint64(0), 0.0
	if state.LastSeq >= next {
		waiting = state.LastSeq - next + 1
		msg, err := stream.GetMsg(ctx, next, jetstream.WithGetMsgSubject(">"))
		switch {
		case errors.Is(err, jetstream.ErrMsgNotFound):
			waiting = 0
		case err != nil:
			return fmt.Errorf("read the oldest message of INBOX: %w", err)
		default:
			age = seconds(time.Since(msg.Time))
		}
	}
	source.Lag.Messages, source.Lag.Seconds = &waiting, &age
	return nil
}
