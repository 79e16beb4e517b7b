package worker

import "context"

// Events are acknowledged together: the consumer's policy is AckAll, under which an acknowledgement is for all deliveries
// up to it. An event of its own each was a third of what an effect that does nothing cost worker and server. The contract:
//
//   - What is acknowledged is always a prefix of the hold's deliveries, each settled. So an acknowledgement of an earlier hold
//     that comes late says nothing untrue.
//   - An event that hangs keeps all behind it unacknowledged, though not undone: they are settled in the ledger, and a next
//     owner, to whom they come again, finds them there. The server lets that many be out (mostPending); how many are in hand
//     is bounded here, by what pulls ask for.
//   - Nothing waits for the server's ack wait: whoever takes the partition resets the consumer. So it is long, and a
//     delivery that comes again within a hold ends the hold.
//   - The server drops an acknowledgement whose delivery has a lower number than the last one it took. One that a worker sent
//     before it lost the partition may come after the reset, from which numbers begin anew, and would make the server deaf
//     to those of this hold: see listen.
type acks struct {
	order fifo[delivered] // those of this hold that are not in the settled prefix
	first uint64          // the number of the first in order
	last  delivered       // of the prefix
	prior delivered       // the one before it
	owed  int             // of the prefix, that are not acknowledged
	ticks int             // of the session, since last became the last or was kept back
	told  uint64          // sequence in the stream up to which all was acknowledged
	heard uint64          // up to which the server has been seen to know that
	probe uint64          // what was told when probing began; 0: nothing is to be known
	since int             // ticks since then
}

// delivered is a delivery that is not acknowledged.
type delivered struct {
	stream  uint64 // sequence in the stream
	reply   string
	settled bool
}

const (
	// ackEvery is how many settled events are acknowledged at once, where others are under way. The rest goes with the next beat.
	ackEvery = 256
	// keepAnchor is after how many ticks of a session the server is told that the event which is kept back is not forgotten.
	keepAnchor = int(ackWait / 3 / saveEvery)
	// listenAfter is after how many ticks the server must have taken an acknowledgement.
	listenAfter = 5
)

var (
	ackAll      = []byte("+ACK")
	ackProgress = []byte("+WPI")
)

// deliver takes in the next delivery of the hold.
func (a *acks) deliver(stream uint64, reply string) {
	a.order.push(delivered{stream: stream, reply: reply})
}

// settle notes that delivery number n needs no effect any more, and moves the prefix.
func (a *acks) settle(n uint64) {
	if n < a.first {
		return
	}
	a.order.items[a.order.head+int(n-a.first)].settled = true
	for a.order.len() > 0 && a.order.first().settled {
		a.prior, a.last = a.last, a.order.pop()
		a.first++
		a.owed++
		a.ticks = 0
	}
}

// done notes that an event is settled. What was delivered before this hold comes again, and counts then. The caller holds
// the lock, as of all below.
func (p *partition) done(e *entry) {
	if p.hold == nil || e.hold != p.hold {
		return
	}
	p.acks.settle(e.number)
	if p.acks.owed >= ackEvery || p.acks.order.len() == 0 {
		p.acknowledge()
	}
}

// acknowledge tells the server of the settled prefix. While ranges wait the last event that was delivered is kept back:
// who takes the partition over is pinned to it by a delivery, and there might be no other.
func (p *partition) acknowledge() {
	a := &p.acks
	upTo, keep := a.last, 0
	if len(p.ranges.all) > 0 && a.order.len() == 0 {
		upTo, keep = a.prior, 1
	}
	// Who is not sure of the hold says nothing: it would come to the next one's.
	if a.owed <= keep || p.hold == nil || !p.hold.sure() {
		return
	}
	p.tell(upTo.reply, ackAll)
	a.owed, a.told = keep, upTo.stream
}

// flushAcks acknowledges what is owed.
func (p *partition) flushAcks() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.acknowledge()
}

// tell answers a delivery. An answer that is lost does no harm: a later one says the same, or the events come again, and
// are known. One that the connection kept until it is back could do some.
func (p *partition) tell(reply string, what []byte) {
	if p.consumer.nc.IsConnected() {
		_ = p.consumer.nc.Publish(reply, what)
	}
}

// keepBack tells the server at times that an event which is kept back is not forgotten. It is called once in a tick.
func (p *partition) keepBack() {
	a := &p.acks
	if a.owed == 0 {
		return
	}
	if a.ticks++; a.ticks >= keepAnchor {
		a.ticks = 0
		p.tell(a.last.reply, ackProgress)
	}
}

// listen ends the hold where the server has not taken an acknowledgement for long: it was lost, or the server is deaf. It is
// called once in a tick.
func (p *partition) listen(ctx context.Context, h *hold) {
	p.mu.Lock()
	a := &p.acks
	if a.probe == 0 && a.told > a.heard {
		a.probe, a.since = a.told, 0
	}
	a.since++
	probe, due := a.probe, a.probe > 0 && a.since > listenAfter
	p.mu.Unlock()
	if !due {
		return
	}
	floor, err := p.consumer.ackFloor(ctx)
	if err != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hold != h {
		return
	}
	a.probe, a.heard = 0, floor
	if floor < probe {
		h.end(errDeaf)
		p.signal()
	}
}

// mostAbove times MaxAckPending is how many events may be settled above one that is not. Each takes some hundred bytes
// here, and a look at its record when the partition changes hands.
const mostAbove = 32

// mostPending is how many deliveries the server lets be unacknowledged: those above, a pull, and what is owed. The bounds
// here are lower.
func mostPending(maxAckPending int) int { return (mostAbove+2)*maxAckPending + ackEvery }

// above is how many deliveries of this hold are not acknowledged, nor about to be.
func (p *partition) above() int { return p.acks.order.len() }

// packed tells whether there is no room for a pull: too many events are under way, or settled above one that is. The
// session is woken when half as many are.
func (p *partition) packed() bool {
	most := p.w.options.MaxAckPending
	p.busy, p.full = p.unsettled > most*3/4, p.above() >= mostAbove*most
	return p.busy || p.full
}

// relieve wakes the session that waits for room.
func (p *partition) relieve() {
	most := p.w.options.MaxAckPending
	if p.busy && p.unsettled <= most/2 || p.full && p.above() <= mostAbove*most/2 {
		p.busy, p.full = false, false
		p.signal()
	}
}
