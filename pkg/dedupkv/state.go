package dedupkv

import (
	"time"

	"github.com/tributary-dev/tributary/pkg/events"
)

// state is what an owner knows of its ledger. What is in segments is not written again with the head.
type state struct {
	partition int
	open      map[ID]beginning
	settled   map[ID]Result
	sealed    map[ID]sealed
	segments  []*segment
	empty     []*segment // of which nothing is needed any more
	reached   map[Line]events.Sequence
	judged    Judged
}

// beginning is an effect that was begun and is not settled.
type beginning struct {
	begun      int
	generation string
	mine       bool  // begun by the present owner
	since      int64 // when it was inherited or released, in Unix seconds; 0 where it is the owner's
}

type sealed struct {
	result  Result
	segment *segment
}

// segment is a record of what is settled, which does not change any more.
type segment struct {
	name     string
	revision uint64
	left     int   // entries that are not forgotten
	until    int64 // when the server removes it, in Unix seconds
}

const (
	sealAt  = 1024 // settled effects in the head
	smallAt = 256  // entries of a segment that is gathered into a new one
)

func newState(partition int) state {
	return state{
		partition: partition, open: make(map[ID]beginning), settled: make(map[ID]Result), sealed: make(map[ID]sealed),
		reached: make(map[Line]events.Sequence),
	}
}

// inherit makes all that is open somebody else's, and gives up what nobody has claimed within hold.
func (s *state) inherit(now time.Time, hold time.Duration) {
	for id, b := range s.open {
		if b.since == 0 {
			b.since = now.Unix()
		}
		b.mine = false
		s.open[id] = b
		if now.Sub(time.Unix(b.since, 0)) > hold {
			delete(s.open, id)
		}
	}
}

func (s *state) reachedNow() map[Line]events.Sequence {
	reached := make(map[Line]events.Sequence, len(s.reached))
	for line, at := range s.reached {
		reached[line] = at
	}
	return reached
}

// result gives how an effect was settled.
func (s *state) result(id ID) (Result, bool) {
	if r, ok := s.settled[id]; ok {
		return r, true
	}
	r, ok := s.sealed[id]
	return r.result, ok
}

func (s *state) forget(id ID) bool {
	if _, ok := s.settled[id]; ok {
		delete(s.settled, id)
		return true
	}
	if _, ok := s.open[id]; ok {
		delete(s.open, id)
		return true
	}
	if e, ok := s.sealed[id]; ok {
		delete(s.sealed, id)
		if e.segment.left--; e.segment.left == 0 {
			s.drop(time.Time{})
		}
		return true
	}
	return false
}

// drop takes the segments off the list that are empty, or that the server has removed by now.
func (s *state) drop(now time.Time) {
	kept := s.segments[:0]
	for _, g := range s.segments {
		switch {
		case g.left <= 0:
			s.empty = append(s.empty, g)
		case !now.IsZero() && now.Unix() > g.until:
			for id, e := range s.sealed {
				if e.segment == g {
					delete(s.sealed, id)
				}
			}
		default:
			kept = append(kept, g)
		}
	}
	clear(s.segments[len(kept):])
	s.segments = kept
}

// gather takes what is left of small segments back into the head, to be sealed with what is settled there.
func (s *state) gather() {
	for id, e := range s.sealed {
		if e.segment.left < smallAt {
			s.settled[id] = e.result
			delete(s.sealed, id)
		}
	}
	for _, g := range s.segments {
		if g.left < smallAt {
			g.left = 0
		}
	}
	s.drop(time.Time{})
}

// seal moves all that is settled in the head to a segment that is stored.
func (s *state) seal(g *segment) {
	for id, result := range s.settled {
		s.sealed[id] = sealed{result, g}
	}
	clear(s.settled)
	s.segments = append(s.segments, g)
}

// apply carries an op out, and tells whether it has to be written.
func (l *Ledger) apply(o *op) (changed bool) {
	s := &l.state
	switch o.kind {
	case opClaim, opReserve:
		return l.claim(o)
	case opWithdraw:
		for _, id := range o.ids {
			if b, ok := s.open[id]; ok && b.mine && b.begun == 1 {
				delete(s.open, id)
				changed = true
			}
		}
	case opHold:
		changed = l.current(o)
	case opSettle:
		changed = l.current(o) && l.settle(o)
	case opRelease:
		changed = l.current(o) && l.release(o)
	case opPass:
		if s.reached[o.line].Compare(o.at) < 0 {
			s.reached[o.line] = o.at
		}
		for _, id := range o.ids {
			s.forget(id)
		}
		changed = true
	case opForget:
		for _, id := range o.ids {
			changed = s.forget(id) || changed
		}
	case opSaved:
		if at, ok := s.reached[o.line]; ok && at.Compare(o.at) <= 0 {
			delete(s.reached, o.line)
			changed = true
		}
	case opNote:
		changed = s.judged.note(o.by)
	case opFlush:
	case opOwn:
		panic("unreachable: a change of owners is a group of its own")
	}
	return changed
}

// current tells whether the op's claim was made since the ledger was last inherited.
func (l *Ledger) current(o *op) bool {
	if o.claim.Revision != l.epoch {
		o.err = ErrLost
		return false
	}
	return true
}

func (l *Ledger) claim(o *op) (changed bool) {
	s := &l.state
	o.claim = Claim{State: Fresh, Revision: l.epoch, Begun: 1, Owner: l.want, Generation: o.by.Generation}
	if result, ok := s.result(o.id); ok {
		o.claim = Claim{State: Settled, Revision: l.epoch, Result: result}
		return false
	}
	b, ok := s.open[o.id]
	switch {
	case !ok:
		s.judged.note(o.by)
		s.open[o.id] = beginning{begun: 1, generation: o.by.Generation, mine: true}
		return true
	case b.mine:
		o.claim.Begun, o.claim.Generation = b.begun, b.generation
		if b.begun > 1 {
			o.claim.State = TakenOver
		}
		return false
	case o.kind == opReserve:
		o.err = ErrOpen
		return false
	case b.begun >= MostBegun:
		o.claim.State, o.claim.Begun, o.claim.Generation = Crashed, b.begun, b.generation
		return false
	}
	b.begun, b.mine, b.since = b.begun+1, true, 0
	s.open[o.id] = b
	o.claim.State, o.claim.Begun, o.claim.Generation = TakenOver, b.begun, b.generation
	return true
}

func (l *Ledger) settle(o *op) (changed bool) {
	s := &l.state
	if result, ok := s.result(o.id); ok {
		if result != o.result {
			o.err = ErrLost
		}
		return false
	}
	if _, ok := s.open[o.id]; !ok {
		o.err = ErrLost
		return false
	}
	delete(s.open, o.id)
	s.settled[o.id] = o.result
	return true
}

// release keeps the generation: what was sent may have arrived, and must not come again with other bytes.
func (l *Ledger) release(o *op) (changed bool) {
	s := &l.state
	b, ok := s.open[o.id]
	if !ok || !b.mine {
		return false
	}
	b.begun, b.mine, b.since = b.begun-1, false, time.Now().Unix()
	s.open[o.id] = b
	return true
}
