package worker

import (
	"sync"

	"github.com/tributary-dev/tributary/pkg/dedupkv"
	"github.com/tributary-dev/tributary/pkg/events"
)

// entry is an event in this worker's hands.
type entry struct {
	stream  uint64 // sequence in EVENTS
	stored  int64  // when EVENTS took it: after a loss of its tail the same sequence is another event's
	subject string
	data    []byte // the envelope; given up when the event is settled, like event
	address events.Address
	event   *events.Event // nil where it is undecodable
	at      events.Sequence
	number  uint64 // of its last delivery, within hold
	line    *line  // nil where the event is undecodable
	hold    *hold  // under which it was delivered last
	open    int    // effects that are not settled
	settled bool
	effects []*effect
	records []settledRecord
}

// state of an effect, guarded by its partition's lock.
type effectState int

const (
	idle   effectState = iota // to be queued when its event is delivered again
	queued                    // in its lane, or just given out by the scheduler
	begun
	parking // settled as soon as its range is stored
	settled
)

// partition is one that is assigned to this worker: what it holds of it, and what is under way.
type partition struct {
	w        *Worker
	number   int
	consumer *consumer
	made     int64   // when EVENTS was made, in Unix nanoseconds; of the session's goroutine
	set      laneSet // guarded by the scheduler's lock
	ledger   *dedupkv.Ledger

	mu        sync.Mutex
	hold      *hold             // nil while the partition is not held
	why       string            // it is not held, where it was tried
	first     bool              // nobody holds the partition: its next event pins it to this worker
	leaving   bool              // nothing begins any more
	entries   map[uint64]*entry // by stream sequence: what is open, and what was settled above its line's watermark
	lines     map[dedupkv.Line]*line
	running   map[string]struct{} // the keys of effects that are begun
	acks      acks
	bytes     int    // of events that are not settled
	unsettled int    // how many these are
	low       int    // the session waits until no more bytes than this are left; -1: it does not
	busy      bool   // the session waits until fewer events are not settled
	full      bool   // the session waits until fewer events are above one that is not
	ranges    ranges // what waits for circuits

	owned    bool                             // the ledger, under the present hold
	reached  map[dedupkv.Line]events.Sequence // as the ledger had it when it was taken
	judged   dedupkv.Judged                   // likewise
	reserved int                              // effects that are claimed before their turn
	waiting  fifo[*effect]                    // to be reserved, unless they have begun by then

	wake chan struct{} // one place: bytes have gone, or the last effect has ended
}

func newPartition(w *Worker, number int) *partition {
	return &partition{
		w: w, number: number, consumer: newConsumer(w.js, number, w.options.MaxAckPending),
		entries: make(map[uint64]*entry), lines: make(map[dedupkv.Line]*line), running: make(map[string]struct{}),
		low: -1, wake: make(chan struct{}, 1), ranges: newRanges(), ledger: w.dedup.Ledger(number, w.options.Ledgers),
	}
}

func (p *partition) signal() { signal(p.wake) }

// start makes h the hold in force: what was delivered before counts when it is delivered again.
func (p *partition) start(h *hold) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hold, p.why = h, ""
	p.acks = acks{first: 1}
	for _, l := range p.lines {
		l.restart()
	}
}

// drop gives up what has not begun.
func (p *partition) drop() {
	dropped := p.w.scheduler.drop(&p.set)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting = fifo[*effect]{}
	for _, x := range dropped {
		x.state = idle
	}
	p.withdraw(dropped...)
}

func (p *partition) setFirst(first bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.first = first
}

// stop ends the hold in force. What is under way goes on.
func (p *partition) stop() {
	p.mu.Lock()
	p.hold = nil
	p.closeRanges()
	p.mu.Unlock()
	p.drop()
}

// explain notes why the partition is not held.
func (p *partition) explain(why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.why = why.Error()
}

// interrupt makes the partition be held anew, for a reason that comes from outside.
func (p *partition) interrupt(reason error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hold != nil && !p.leaving {
		p.hold.end(reason)
		p.signal()
	}
}

// held tells whether the partition is ours at this moment for sure.
func (p *partition) held() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hold != nil && p.hold.sure()
}

// known finds the event of a delivery, if it came before.
func (p *partition) known(d delivery) (*entry, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e, ok := p.entries[d.stream]
	if ok && e.stored != d.stored { // EVENTS has lost it
		p.forget(e)
		return nil, false
	}
	return e, ok
}

// past tells whether an event is settled for ever.
func (p *partition) past(e *entry) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return e.line != nil && e.line.past(e.at)
}

// lineOf finds the line of an event.
func (p *partition) lineOf(id dedupkv.Line) *line {
	p.mu.Lock()
	defer p.mu.Unlock()
	l, ok := p.lines[id]
	if !ok {
		l = &line{id: id}
		p.lines[id] = l
	}
	return l
}

// enter takes in a delivery of e under h, the first or another one: it queues what is still to do, and acknowledges
// what is settled.
func (p *partition) enter(h *hold, e *entry, d delivery, reply string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ranges.delivered = max(p.ranges.delivered, e.stream)
	e.hold, e.number = h, d.consumer
	p.acks.deliver(d.stream, reply)
	if e.line != nil && e.line.past(e.at) {
		p.forget(e)
		p.done(e)
		return
	}
	if !p.has(e) {
		p.entries[e.stream] = e
		if !e.settled {
			p.bytes += len(e.data)
			p.unsettled++
		}
	}
	if e.line != nil {
		e.line.append(e)
	}
	if e.settled {
		p.done(e)
		e.strip()
		p.advance(e)
		return
	}
	var queue []*effect
	for _, x := range e.effects {
		if x.state == idle && !p.parks(x) {
			x.state = queued
			queue = append(queue, x)
		}
	}
	// Under the lock, so that nothing is queued after a drop.
	if len(queue) > 0 {
		p.reserve(queue...)
		p.w.scheduler.add(&p.set, queue...)
	}
}

func (p *partition) has(e *entry) bool { return p.entries[e.stream] == e }

// forget removes an event that nobody waits for.
func (p *partition) forget(e *entry) {
	if p.has(e) {
		delete(p.entries, e.stream)
		if !e.settled {
			p.free(len(e.data))
		}
	}
}

func (p *partition) free(size int) {
	p.bytes -= size
	p.unsettled--
	if p.bytes <= p.low {
		p.low = -1
		p.signal()
	}
	p.relieve()
}

func (p *partition) advance(e *entry) {
	if e.line == nil {
		p.forget(e)
		return
	}
	e.line.advance(p.forget)
	if len(e.line.free) >= passAt {
		p.pass(e.line)
	}
	p.relieve()
}

// leave lets nothing begin any more.
func (p *partition) leave() {
	p.mu.Lock()
	p.leaving = true
	p.mu.Unlock()
	p.drop()
}

// quiet tells whether no effect is begun.
func (p *partition) quiet() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.running) == 0
}

// room gives how many events and bytes may be pulled, and tells whether nothing is in the way. Where the answer is not
// enough, the session is woken when half of the bound is free, or, for a crowded one, all of it.
func (p *partition) room(crowded bool) (count, bytes int, empty bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	bound := p.w.options.PartitionBytes
	count, bytes = p.w.options.MaxAckPending-p.unsettled, bound-p.bytes
	switch {
	case p.packed():
		bytes = 0
	case crowded && p.bytes > 0:
		p.low = 0
	case bytes < bound/4:
		p.low, bytes = bound/2, 0
	}
	return count, bytes, p.bytes == 0
}

// tidy forgets events from before this hold that did not come again: somebody else has acknowledged them.
func (p *partition) tidy(h *hold) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keepBack()
	for sequence, e := range p.entries {
		if e.hold != h && sequence < h.last && !e.busy() {
			p.forget(e)
		}
	}
}

func (e *entry) busy() bool {
	for _, x := range e.effects {
		if x.state == begun {
			return true
		}
	}
	return false
}
