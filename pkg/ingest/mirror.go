package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/tributary-dev/tributary/pkg/events"
)

// Mirror keeps positions of one source outside of EVENTS. It explains, and it is what is left when EVENTS is not; while
// EVENTS has a position, that one decides. A Mirror is used by one goroutine at a time.
type Mirror interface {
	// Last gives the position that was saved last: of an earlier session, or of another process. It is zero where there
	// is none, or the mirror is off.
	Last(ctx context.Context) (Position, error)

	// Save keeps p, durably. The same again is no error, and should write nothing.
	Save(ctx context.Context, p Position) error
}

const (
	mirrorEvery   = time.Second // and sooner where the source's state changed
	mirrorTimeout = 5 * time.Second
	mirrorGlance  = 2 * time.Second        // at the beginning of a session
	lastSave      = 200 * time.Millisecond // at the end of a session, which the next leader waits for
)

// mirroring saves positions beside publishing, and says how far PostgreSQL may forget: the stream first, then the
// mirror, then the slot. Without a mirror it holds nothing up.
//
// A position is saved when an event or the source's state moved it. One whose end alone moved is not: the end moves with
// all that is written to the database, saving included, and an idle database has to stay idle.
type mirroring struct {
	to      Mirror // nil for none
	source  string
	wait    time.Duration // confirmations wait for the mirror so long
	log     *slog.Logger
	metrics *sourceMetrics
	wake    chan struct{} // holds a token while something is to be saved

	mu      sync.Mutex
	pending []pending  // guarded by mu; ascending, one for each state of the source
	saved   Position   // guarded by mu
	through events.LSN // what may be confirmed; guarded by mu
	kept    events.LSN // what could be, but for the mirror; guarded by mu
	late    bool       // confirmations do not wait any more, which was logged; guarded by mu
}

type pending struct {
	position Position
	since    time.Time
}

// last reads what the mirror knows. Where EVENTS has no position the mirror is needed, and an error is to be returned.
func (m *mirroring) last(ctx context.Context) (Position, error) {
	if m.to == nil {
		return Position{}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, mirrorGlance)
	defer cancel()
	p, err := m.to.Last(ctx)
	if err != nil {
		m.metrics.mirrorFailures.Inc()
		return Position{}, fmt.Errorf("read the mirror of %s: %w", m.source, err)
	}
	return p, nil
}

// explain says what EVENTS lacks of what it once acknowledged. The slot is what brings it again.
func (m *mirroring) explain(state State) {
	p := state.Mirrored
	at := events.Sequence{Commit: uint64(p.CommitLSN), Index: p.Index}
	if p.Incarnation == 0 || p.Incarnation != state.Position.Incarnation || at.Compare(state.Last) <= 0 {
		return
	}
	m.log.Warn("EVENTS lost its end, after a power cut or by a restore: it is read again from the slot, if that still has it",
		"source", m.source, "holds", state.Last.String(), "held", at.String(), "by", p.Leader, "at", p.Time)
}

// note is told of the position behind what was stored, every commit before through included.
func (m *mirroring) note(now time.Time, p Position, through events.LSN) {
	if m.to == nil || p.Phase == "" {
		return
	}
	p.EndLSN = max(p.EndLSN, through)
	m.mu.Lock()
	defer m.mu.Unlock()
	newest := m.saved
	if n := len(m.pending); n > 0 {
		newest = m.pending[n-1].position
	}
	switch {
	case !sameState(p, newest):
		m.pending = append(m.pending, pending{p, now})
	case !samePlace(p, newest) && len(m.pending) == 0:
		m.pending = append(m.pending, pending{p, now})
	case len(m.pending) > 0:
		m.pending[len(m.pending)-1].position = p
	default:
		m.through = p.EndLSN
		return
	}
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

func sameState(p, q Position) bool {
	return p.Epoch == q.Epoch && p.Incarnation == q.Incarnation && p.Phase == q.Phase && p.SystemID == q.SystemID && p.Timeline == q.Timeline && p.Slot == q.Slot
}

func samePlace(p, q Position) bool { return p.CommitLSN == q.CommitLSN && p.Index == q.Index }

// confirmable is how much may be confirmed, of what was stored long enough ago: now through, and what was before.
func (m *mirroring) confirmable(now time.Time, through events.LSN) events.LSN {
	if m.to == nil {
		return through
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.kept = max(m.kept, through)
	through = m.kept
	if len(m.pending) == 0 {
		m.metrics.mirrorLate.Set(0)
		return min(through, m.through)
	}
	waited := now.Sub(m.pending[0].since)
	m.metrics.mirrorLate.Set(waited.Seconds())
	if waited <= m.wait {
		return min(through, m.through)
	}
	if !m.late {
		m.late = true
		m.log.Warn("the mirror of positions is away: PostgreSQL is told to forget without it", "source", m.source, "waited", waited.Round(time.Second))
	}
	return through
}

// run saves what is noted, until ctx ends.
func (m *mirroring) run(ctx context.Context) error {
	failing := false
	for {
		select {
		case <-ctx.Done():
			m.saveLast(ctx)
			return context.Cause(ctx)
		case <-m.wake:
		}
		for {
			p, more, ok := m.next()
			if !ok {
				break
			}
			err := m.save(ctx, p)
			if err != nil && ctx.Err() == nil && !failing {
				m.log.Warn("save the position in the mirror; trying on", "source", m.source, "err", err)
			}
			failing = err != nil
			if err == nil && more {
				continue // the states of a source are saved one by one, at once
			}
			if !sleep(ctx, mirrorEvery) {
				break
			}
		}
	}
}

// next gives the position to save, and whether others wait behind it.
func (m *mirroring) next() (p Position, more, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.pending) == 0 {
		return Position{}, false, false
	}
	return m.pending[0].position, len(m.pending) > 1, true
}

func (m *mirroring) save(ctx context.Context, p Position) error {
	ctx, cancel := context.WithTimeout(ctx, mirrorTimeout)
	defer cancel()
	if err := m.to.Save(ctx, p); err != nil {
		if !errors.Is(err, context.Canceled) {
			m.metrics.mirrorFailures.Inc()
		}
		return err
	}
	m.metrics.mirrorSaves.Inc()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.saved, m.through = p, max(m.through, p.EndLSN)
	first := &m.pending[0]
	if sameState(first.position, p) && samePlace(first.position, p) {
		m.pending = m.pending[1:]
	} else {
		first.since = time.Now() // it moved on meanwhile
	}
	if len(m.pending) == 0 && m.late {
		m.late = false
		m.log.Info("the mirror of positions is back", "source", m.source)
	}
	return nil
}

// saveLast leaves the mirror at the end of a session that ends in order, if it takes that at once.
func (m *mirroring) saveLast(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastSave)
	defer cancel()
	for {
		p, _, ok := m.next()
		if !ok || m.save(ctx, p) != nil {
			return
		}
	}
}
