package worker

import (
	"github.com/tributary-dev/tributary/pkg/dedupkv"
	"github.com/tributary-dev/tributary/pkg/events"
)

// verdict says whether an effect begins.
type verdict int

const (
	begins  verdict = iota
	dropped         // it is not ours to begin; it comes again, here or elsewhere
	waits           // another event with the same effect is under way, or the connection is away
)

// begin asks whether an effect that the scheduler gave out begins, and under whose name.
func (p *partition) begin(x *effect) (dedupkv.Owner, verdict) {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.hold
	if x.drain != nil && x.drain.over {
		x.state = idle
		return dedupkv.Owner{}, dropped
	}
	if h == nil || x.entry.hold != h || p.leaving || !h.sure() {
		x.state = idle
		p.withdraw(x)
		if h != nil && x.entry.hold == h && !p.leaving {
			h.end(errUnsure) // x is in no lane any more: only another delivery brings it back
			p.signal()
		}
		return dedupkv.Owner{}, dropped
	}
	if _, twin := p.running[x.key]; twin || x.reserved.made && !p.consumer.nc.IsConnected() {
		return dedupkv.Owner{}, waits // its end could not be recorded, though it is claimed already
	}
	p.running[x.key] = struct{}{}
	x.state = begun
	return dedupkv.Owner{Worker: p.w.options.ID, Pin: h.pin}, begins
}

// giveUp ends an effect that has begun and is not settled.
func (p *partition) giveUp(x *effect, state effectState, reason error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	x.state = state
	p.end(x)
	if x.drain != nil {
		signal(x.drain.wake)
	}
	if p.hold != nil && reason != nil && !p.leaving {
		p.hold.end(reason)
		p.signal()
	}
}

// settle notes that an effect is settled, and acknowledges its event if it was the last one.
func (p *partition) settle(x *effect, result dedupkv.Result) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := x.entry
	x.state = settled
	p.end(x)
	if x.drain != nil {
		x.drain.settled(x, result)
		return
	}
	e.records = append(e.records, x.record(result))
	if e.open--; e.open == 0 {
		p.close(e)
	}
}

func (p *partition) end(x *effect) {
	delete(p.running, x.key)
	p.unreserve(x)
	p.reserve()
	if p.leaving && len(p.running) == 0 {
		p.signal()
	}
}

func (p *partition) close(e *entry) {
	if p.has(e) {
		p.free(len(e.data))
	}
	e.settled = true
	p.done(e)
	e.strip()
	p.advance(e)
}

// strip gives up what a settled event needs no more: it may wait for long for one before it.
func (e *entry) strip() {
	e.subject, e.data, e.address, e.event, e.effects = "", nil, events.Address{}, nil, nil
}
