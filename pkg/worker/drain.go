package worker

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/pkg/dedupkv"
	"github.com/tributary-dev/tributary/pkg/events"
)

const (
	mostDrains   = 4       // of one partition at the same time
	drainEvents  = 256     // of one range that are queued at the same time
	drainBytes   = 1 << 20 // of these
	drainBatch   = 64
	drainFor     = 5 * time.Second       // then others have their turn
	refusedPause = 50 * time.Millisecond // before a range that was refused is tried again
	lookDrain    = 50 * time.Millisecond
	lookQueued   = 10 // of these: what is queued is parked as soon as its circuit opens, and looked for then in case
	goneWithin   = 10 * time.Second
)

var (
	errParkedLong = errors.New("its circuit stayed open for longer than circuits.park_max_age")
	errEventGone  = errors.New("EVENTS has lost events that waited for a circuit or a pause to end")
	errOrphaned   = errors.New("its observer or action is gone, and so are the rules that it was judged by")
)

// drain is one reading of a range: from its beginning on, through the lanes. What it holds is guarded by the partition's
// lock but for what belongs to the goroutine that reads.
type drain struct {
	p       *partition
	r       *parkedRange
	h       *hold
	expired bool          // it gives up what has waited for too long, and nothing else
	wake    chan struct{} // one place: an effect of it has ended

	queue fifo[*effect] // in order, what is not settled first
	read  uint64        // all below was looked at
	bytes int
	over  bool // nothing of it begins any more

	consumer jetstream.Consumer // of the reader
	buffer   []jetstream.Msg
	youngest time.Time // when EVENTS took the event at which a drain of what has expired stopped
	marks    map[dedupkv.Line]events.Sequence
}

// settled takes in that an effect of the drain is settled. The caller holds the lock.
func (d *drain) settled(x *effect, result dedupkv.Result) {
	x.drained = true
	d.bytes -= len(x.entry.data)
	if d.p.ranges.all[d.r.key] != d.r {
		return
	}
	record := keptRecord{settledRecord: x.record(result), key: d.r.key, stream: x.entry.stream}
	if mark, known := d.marks[x.entry.line.id]; !known || mark.Compare(x.entry.at) < 0 {
		record.line, record.at = x.entry.line, x.entry.at
	}
	d.p.ranges.kept = append(d.p.ranges.kept, record)
	d.r.count--
	d.advance()
	signal(d.wake)
}

// advance moves the beginning of the range over what is settled, and looked at.
func (d *drain) advance() {
	for d.queue.len() > 0 && d.queue.first().drained {
		d.queue.pop()
	}
	to := d.read
	if d.queue.len() > 0 {
		first := d.queue.first().entry
		to, d.r.since = first.stream, time.Unix(0, first.stored).UTC()
	}
	d.r.advance(to)
}

// refuse ends the drain: the circuit is open. What is behind the effect must not begin before it.
func (d *drain) refuse(x *effect) {
	x.state = idle
	d.stop()
	d.r.circuit = x.circuit
	d.r.pause = d.p.w.clock() + refusedPause
	signal(d.wake)
}

// stop lets nothing of the drain begin any more. What is live behind it in the lanes waits for the next drain, too.
func (d *drain) stop() {
	d.over = true
	if d.p.ranges.all[d.r.key] == d.r {
		d.r.over = false
	}
	signal(d.wake)
}

// busy tells whether an effect of the drain is under way.
func (d *drain) busy() bool {
	for i := d.queue.head; i < len(d.queue.items); i++ {
		if d.queue.items[i].state == begun {
			return true
		}
	}
	return false
}

// tendRanges parks what waits in lanes for circuits that are open, and drains ranges whose circuits let something through,
// until ctx ends.
func (p *partition) tendRanges(ctx context.Context, h *hold) {
	ticker := time.NewTicker(lookDrain)
	defer ticker.Stop()
	var drains sync.WaitGroup
	defer drains.Wait()
	for look := 0; ctx.Err() == nil; look++ {
		if look%lookQueued == 0 {
			p.parkQueued()
		}
		for _, d := range p.startDrains(h) {
			drains.Go(func() {
				d.run(ctx)
				d.end()
			})
		}
		select {
		case <-ctx.Done():
		case <-p.ranges.wake:
			look = -1
		case <-ticker.C:
		}
	}
}

// parkQueued parks what is queued for circuits that are open, or behind ranges: it would wait for a slot.
func (p *partition) parkQueued() {
	circuits := p.w.circuits
	pulled := p.w.scheduler.pull(&p.set, func(x *effect) bool {
		return x.drain == nil && (x.rests() || x.calls() && circuits.Shut(x.circuit))
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, x := range pulled {
		p.park(x)
	}
}

// startDrains makes drains of ranges whose turn it is.
func (p *partition) startDrains(h *hold) []*drain {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, running := p.w.clock(), 0
	for _, r := range p.ranges.all {
		if r.drain != nil {
			running++
		}
	}
	var list []*drain
	for _, r := range p.ranges.all { // in any order: each has its turn
		if r.drain != nil || r.gone || r.durable < r.needs || now < r.pause || running >= mostDrains || p.leaving || p.hold != h {
			continue
		}
		if p.w.rests(r.key.observer) {
			continue
		}
		expired := !r.since.IsZero() && time.Since(r.since) > p.w.options.ParkMaxAge
		if !expired && p.w.circuits.Shut(r.circuit) {
			continue
		}
		expired = expired && p.w.circuits.Shut(r.circuit)
		d := &drain{p: p, r: r, h: h, expired: expired, wake: make(chan struct{}, 1), read: r.first(), marks: make(map[dedupkv.Line]events.Sequence)}
		r.drain = d
		running++
		list = append(list, d)
	}
	return list
}

// end lets the range be drained again.
func (d *drain) end() {
	p := d.p
	p.w.scheduler.pull(&p.set, func(x *effect) bool { return x.drain == d })
	p.mu.Lock()
	defer p.mu.Unlock()
	d.stop()
	r := d.r
	r.drain = nil
	for _, s := range r.late {
		r.insert(s)
	}
	r.late = nil
	signal(p.ranges.wake)
}

// run reads the range until it is empty, refused, or has had its turn.
func (d *drain) run(ctx context.Context) {
	p := d.p
	defer d.close(ctx)
	until := p.w.clock() + drainFor
	err := d.open(ctx)
	for err == nil && ctx.Err() == nil && !d.isOver() && p.w.clock() < until {
		var all bool
		if all, err = d.step(ctx); all {
			break
		}
	}
	if err != nil && ctx.Err() == nil {
		p.w.log.Warn("parked range is not read; it will be", "partition", p.number, "observer", d.r.key.observer, "action", d.r.key.action, "error", err)
		p.mu.Lock()
		d.r.pause = p.w.clock() + mostPause
		p.mu.Unlock()
	}
	// What is in the lanes comes to its end. Where there is no end to it, because the circuit is open again, it is dropped.
	for ctx.Err() == nil {
		p.mu.Lock()
		ended := d.queue.len() == 0 || d.over && !d.busy()
		if ended && d.queue.len() == 0 && !d.over {
			d.finish()
		}
		p.mu.Unlock()
		if ended {
			return
		}
		select {
		case <-ctx.Done():
		case <-d.wake:
		}
	}
}

// finish ends a range that was read to its end, if nothing has joined it since. The caller holds the lock.
func (d *drain) finish() {
	p, r := d.p, d.r
	if !d.youngest.IsZero() {
		r.since = d.youngest
	}
	if p.ranges.all[r.key] != r || len(r.late) > 0 || d.read <= p.ranges.delivered && !r.over {
		return
	}
	if r.over || d.expired {
		r.gone = true
		r.version++
		signal(p.ranges.dirty)
	}
}

func (d *drain) isOver() bool {
	d.p.mu.Lock()
	defer d.p.mu.Unlock()
	return d.over
}
