package worker

import (
	"slices"
	"sync"
	"time"

	"github.com/tributary-dev/tributary/pkg/actions/circuit"
	"github.com/tributary-dev/tributary/pkg/dedupkv"
	"github.com/tributary-dev/tributary/pkg/events"
)

// An effect whose circuit is open, or whose observer is paused, is parked: it is neither claimed nor charged, holds no slot, and counts as settled for
// its event, which is acknowledged. What is kept is one range of EVENTS for each (observer, action, partition), in KV
// circuits. The contract:
//
//   - A range has a beginning and no end: while it is there, every later effect of its observer and action joins it, in
//     silence, without a write. It is written when it begins, when it has to begin earlier, when another generation judges,
//     when events of another line join, and as its beginning moves; in this order: the range, then the acknowledgement.
//   - One worker keeps the ranges of a partition: who holds its pin, and has written so to the key holder.<partition>
//     before it read them. Every later write expects that, so an earlier holder writes nothing any more.
//   - A range may span effects that are settled, or under way: those that began before it. At or below the range's floor
//     of their line they are not meant, for all of those events were settled when it began. Above it the record in KV dedup
//     tells, which is therefore not forgotten before the beginning that is stored has passed it, and the watermark too.
//   - Each span of a range names the generation by which its events were judged first. They are judged again by that, or
//     where it is not known any more by the present one. Where the observer is gone, too, they are a dead letter (orphaned).
//   - The order of first attempts holds: what is drained goes through the same lanes as what is live, in the order of
//     EVENTS, and what is live goes on being parked until the reader has queued all that was delivered before it.
//   - While a range waits the last event of its partition is not acknowledged: who takes the partition over is pinned to it by
//     a delivery, and there might be no other.
//   - Who dies while a range drains leaves its beginning where it was: what is settled behind it is skipped by its record.
//   - What EVENTS has lost below a range is a dead letter (orphaned), one for each gap; the janitor leaves alone what a
//     range needs, so only max_age does that. What waits for longer than ParkMaxAge is a dead letter (exhausted).

// rangeKey names a range within a partition.
type rangeKey struct{ observer, action string }

// parkedRange is a range that this worker keeps. It is guarded by the partition's lock.
type parkedRange struct {
	key     rangeKey
	circuit string
	made    int64
	spans   []span // in order, without overlap; the last has no end. The beginning of the first is the range's
	late    []span // found behind the reader of the drain under way; they become spans when that ends
	floors  map[dedupkv.Line]events.Sequence
	high    uint64 // the last that was parked, as far as is known here
	count   int    // effects that wait: about
	since   time.Time
	drained bool // the beginning has moved
	over    bool // all that waited is in its lanes: what comes goes there too
	gone    bool // nothing waits: the record is to be removed

	version uint64 // of what is to be stored
	needs   uint64 // the version without which an effect that joins is not safe
	durable uint64 // the version that is stored
	begins  uint64 // the beginning that is stored
	counted int    // the count that is stored
	moved   bool   // the beginning is another than the one that is stored
	waiting []*effect
	drain   *drain        // under way
	pause   time.Duration // of the worker's clock: no drain begins before
}

// ranges are those of a partition, under one hold; guarded by the partition's lock but for what is said.
type ranges struct {
	all       map[rangeKey]*parkedRange
	fence     uint64
	delivered uint64        // every event up to it was delivered to this holder, or acknowledged before
	kept      []keptRecord  // in KV dedup, until a range has passed them
	dirty     chan struct{} // one place: something is to be stored
	wake      chan struct{} // one place: something may be drained, or parked
	storing   sync.Mutex    // held by who stores, and taken before the partition's
}

// keptRecord is the record of an effect that is settled, and that a range may come by.
type keptRecord struct {
	settledRecord
	key    rangeKey
	stream uint64 // needed until the range begins above it
	line   *line  // and until its watermark has passed at; nil where it has
	at     events.Sequence
}

func newRanges() ranges {
	return ranges{all: make(map[rangeKey]*parkedRange), dirty: make(chan struct{}, 1), wake: make(chan struct{}, 1)}
}

func (x *effect) rangeKey() rangeKey { return rangeKey{x.due.observer, x.due.action} }

// calls tells whether the effect is one that a circuit is for, or a range.
func (x *effect) calls() bool {
	return x.due.err == nil && !x.due.async && !x.due.dryRun && !x.expired && x.entry.event != nil
}

// admit asks for the right to call what the effect calls. Where it is refused the effect is parked.
func (w *Worker) admit(x *effect) (*circuit.Pass, bool) {
	rests := x.rests()
	if !rests && !x.calls() {
		return nil, true
	}
	if x.drain == nil && x.owner.joins(x) {
		return nil, false
	}
	if rests {
		x.owner.refuse(x)
		return nil, false
	}
	pass, answer := w.circuits.Enter(x.circuit)
	if answer == circuit.Yes {
		return pass, true
	}
	x.owner.refuse(x)
	return nil, false
}

// joins parks an effect that has begun where a range waits for it.
func (p *partition) joins(x *effect) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ranges.wants(x) {
		return false
	}
	p.withdraw(x)
	p.end(x)
	p.park(x)
	return true
}

// wants tells whether the effect has to join a range.
func (s *ranges) wants(x *effect) bool {
	r, there := s.all[x.rangeKey()]
	return there && !r.over && !r.gone
}

// refuse parks an effect that has begun and may not go on; one that is drained goes back to its range.
func (p *partition) refuse(x *effect) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.withdraw(x)
	p.end(x)
	if x.drain != nil {
		x.drain.refuse(x)
		return
	}
	p.park(x)
}

// parks parks an effect at its event's delivery, if it can't begin. The caller holds the lock, as of park.
func (p *partition) parks(x *effect) bool {
	if !x.rests() && (!x.calls() || !p.ranges.wants(x) && !p.w.circuits.Shut(x.circuit)) {
		return false
	}
	p.park(x)
	return true
}

// park lets an effect join its range. It is settled when that is stored.
func (p *partition) park(x *effect) {
	p.withdraw(x)
	if p.hold == nil || x.entry.hold != p.hold {
		x.state = idle // it is delivered again
		return
	}
	e := x.entry
	r, there := p.ranges.all[x.rangeKey()]
	if !there {
		r = &parkedRange{key: x.rangeKey(), gone: true}
		p.ranges.all[r.key] = r
	}
	if r.gone {
		r.begin(x.circuit, p.made)
	}
	changed := r.take(e.stream, x.judgedBy())
	if _, known := r.floors[e.line.id]; !known {
		r.floors[e.line.id] = e.line.reached
		changed = true
		if r.drain != nil { // it has left this line out so far: what it reads now would come before
			r.drain.stop()
		}
	}
	r.over = false
	r.count++
	if stored := time.Unix(0, e.stored); r.since.IsZero() || stored.Before(r.since) {
		r.since = stored.UTC()
	}
	if changed {
		r.version++
		r.needs = r.version
		signal(p.ranges.dirty)
	}
	p.w.metrics.parked.Inc()
	signal(p.ranges.wake)
	if r.durable >= r.needs {
		p.shelved(x)
		return
	}
	x.state = parking
	r.waiting = append(r.waiting, x)
}

// shelved notes that an effect is safe in its range.
func (p *partition) shelved(x *effect) {
	e := x.entry
	x.state = settled
	p.w.metrics.effects.WithLabelValues(outcomeParked).Inc()
	p.w.traceEffect(x, dedupkv.Claim{}, outcomeParked)
	if e.open--; e.open == 0 {
		p.close(e)
	}
}

// begin makes it a range of nothing.
func (r *parkedRange) begin(circuit string, made int64) {
	r.gone, r.drained, r.circuit, r.made = false, false, circuit, made
	r.spans, r.late, r.count, r.since, r.high = nil, nil, 0, time.Time{}, 0
	r.floors = make(map[dedupkv.Line]events.Sequence)
}

// take takes a sequence in, and tells whether that had to change the range.
func (r *parkedRange) take(sequence uint64, generation string) (changed bool) {
	before := r.high
	r.high = max(r.high, sequence)
	if len(r.spans) == 0 {
		r.spans = []span{{From: sequence, Generation: generation}}
		return true
	}
	sole := span{From: sequence, To: sequence, Generation: generation}
	if slices.Contains(r.late, sole) {
		return false
	}
	if r.drain != nil && sequence < r.drain.read { // its reader has gone by, and may have left it out
		r.late = append(r.late, sole)
		return true
	}
	last := &r.spans[len(r.spans)-1]
	if last.has(sequence) && last.Generation != generation && sequence > before && sequence > last.From {
		last.To = sequence - 1
		r.spans = append(r.spans, span{From: sequence, Generation: generation})
		return true
	}
	if slices.ContainsFunc(r.spans, func(s span) bool { return s.has(sequence) }) {
		return false
	}
	first := &r.spans[0]
	switch {
	case sequence < first.From && !r.drained && first.Generation == generation:
		first.From = sequence
	case sequence < first.From && !r.drained:
		sole.To = first.From - 1
		r.insert(sole)
	default:
		r.insert(sole)
	}
	return true
}

func (r *parkedRange) insert(s span) {
	at, _ := slices.BinarySearchFunc(r.spans, s.From, func(s span, from uint64) int {
		if s.From < from {
			return -1
		}
		return 1
	})
	r.spans = slices.Insert(r.spans, at, s)
}

// advance moves the beginning, over what is settled.
func (r *parkedRange) advance(to uint64) {
	for len(r.spans) > 1 && r.spans[0].To < to {
		r.spans = r.spans[1:]
		r.drained = true
	}
	if len(r.spans) > 0 && r.spans[0].From < to {
		r.spans[0].From = to
		r.drained = true
	}
	r.moved = true
}

// first is the beginning.
func (r *parkedRange) first() uint64 {
	first := r.spans[0].From
	for _, s := range r.late {
		first = min(first, s.From)
	}
	return first
}

// parkedLoad tells how many effects wait, in how many ranges, and since when the oldest does.
func (p *partition) parkedLoad() (effects, ranges int, oldest time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.ranges.all {
		if r.gone {
			continue
		}
		ranges++
		effects += max(r.count, 0)
		if oldest.IsZero() || !r.since.IsZero() && r.since.Before(oldest) {
			oldest = r.since
		}
	}
	return effects, ranges, oldest
}
