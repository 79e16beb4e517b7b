package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/pkg/deadletter"
	"github.com/tributary-dev/tributary/pkg/dedupkv"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/jobs"
	"github.com/tributary-dev/tributary/pkg/observers"
)

// open begins to read, behind what EVENTS has lost.
func (d *drain) open(ctx context.Context) error {
	p := d.p
	ctx, cancel := context.WithTimeout(ctx, goneWithin)
	defer cancel()
	stream, err := p.w.js.Stream(ctx, events.StreamEvents)
	if err != nil {
		return fmt.Errorf("look at EVENTS: %w", err)
	}
	info := stream.CachedInfo()
	p.mu.Lock()
	first, another := d.read, d.r.made != info.Created.UnixNano()
	p.mu.Unlock()
	if lost := info.State.FirstSeq; another || first < lost && d.misses(ctx, stream, first, lost) {
		if err := d.orphan(ctx, first, lost, another); err != nil {
			return err
		}
		p.mu.Lock()
		d.read = max(first, lost)
		if another {
			d.r.made, d.r.spans, d.read = info.Created.UnixNano(), []span{{From: lost, Generation: d.r.spans[0].Generation}}, lost
			clear(d.r.floors)
		}
		d.advance()
		p.mu.Unlock()
	}
	d.consumer, err = p.w.js.CreateConsumer(ctx, events.StreamEvents, jetstream.ConsumerConfig{
		Description: "a worker drains what waited for a circuit", FilterSubject: p.consumer.filter,
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: max(d.read, 1), AckPolicy: jetstream.AckNonePolicy,
		MemoryStorage: true, Replicas: 1, InactiveThreshold: time.Minute,
	})
	if err != nil {
		return fmt.Errorf("read range from %d: %w", d.read, err)
	}
	return nil
}

// misses tells whether the event at the beginning, which was parked, is not there any more.
func (d *drain) misses(ctx context.Context, stream jetstream.Stream, first, there uint64) bool {
	if first >= there {
		return false
	}
	_, err := stream.GetMsg(ctx, first)
	return errors.Is(err, jetstream.ErrMsgNotFound)
}

// orphan writes a dead letter for events that are gone.
func (d *drain) orphan(ctx context.Context, from, to uint64, all bool) error {
	p, r := d.p, d.r
	p.mu.Lock()
	lost := deadletter.Lost{Partition: p.number, From: from, Effects: r.count, Since: r.since}
	p.mu.Unlock()
	what := "the stream was made anew"
	if !all {
		lost.To = max(to, 1) - 1
		lost.Effects = int(min(uint64(max(lost.Effects, 1)), to-from)) //nolint:gosec // it is below an int
		what = fmt.Sprintf("sequences %d to %d are gone", from, lost.To)
	}
	cause := fmt.Errorf("%w: %s, and with them at most %d effects of partition %d, of events stored from %s on",
		errEventGone, what, lost.Effects, p.number, lost.Since.Format(time.RFC3339))
	p.w.metrics.parkedLost.Inc()
	p.w.log.Error("parked effects are lost", "observer", r.key.observer, "action", r.key.action, "error", cause)
	_, err := p.w.dead.Store(ctx, deadletter.Record{
		ID:     fmt.Sprintf("parked~%d~%s~%s~%d~%d", p.number, r.key.observer, r.key.action, r.made, from),
		Reason: deadletter.Orphaned, Observer: r.key.observer, Action: r.key.action, Error: cause.Error(), OnFailure: string(jobs.DeadLetter),
		Lost: &lost,
	})
	return err
}

func (d *drain) close(ctx context.Context) {
	if d.consumer == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	// One that stays behind goes by itself.
	_ = d.p.w.js.DeleteConsumer(ctx, events.StreamEvents, d.consumer.CachedInfo().Name)
}

// step queues the next event, when there is room for it. It tells when all is queued that was delivered so far, and lets
// what is live go the common way from then on.
func (d *drain) step(ctx context.Context) (all bool, err error) {
	p := d.p
	for {
		p.mu.Lock()
		full := d.queue.len() >= drainEvents || d.bytes >= drainBytes
		if !full || d.over || ctx.Err() != nil {
			break // with the lock
		}
		p.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-d.wake:
		}
	}
	bound := p.ranges.delivered
	if d.read > bound && !d.over && !d.expired && len(d.r.late) == 0 {
		d.r.over = true
		p.mu.Unlock()
		return true, nil
	}
	p.mu.Unlock()
	if d.read > bound {
		return true, nil
	}
	msg, err := d.next()
	if err != nil {
		return false, err
	}
	sequence := bound + 1
	var metadata *jetstream.MsgMetadata
	if msg == nil {
		if missing, err := d.none(ctx, bound); err != nil || !missing {
			wait(ctx, firstPause)
			return false, err
		}
	} else {
		if metadata, err = msg.Metadata(); err != nil {
			return false, fmt.Errorf("read range: %w", err)
		}
		sequence = metadata.Sequence.Stream
	}
	if sequence > bound {
		d.pass(bound + 1)
		return false, nil
	}
	stop, err := d.offer(ctx, msg, metadata)
	if err != nil || stop {
		return stop, err
	}
	d.buffer = d.buffer[1:]
	d.pass(sequence + 1)
	return false, nil
}

// pass notes that all below a sequence was looked at.
func (d *drain) pass(to uint64) {
	d.p.mu.Lock()
	defer d.p.mu.Unlock()
	d.read = to
	if d.p.ranges.all[d.r.key] == d.r {
		d.advance()
	}
}

// next gives the next event that there is; nil where there is none now.
func (d *drain) next() (jetstream.Msg, error) {
	if len(d.buffer) == 0 {
		batch, err := d.consumer.FetchNoWait(drainBatch)
		if err != nil {
			return nil, fmt.Errorf("read range from %d: %w", d.read, err)
		}
		d.buffer = d.buffer[:0]
		for msg := range batch.Messages() {
			d.buffer = append(d.buffer, msg)
		}
		if err := batch.Error(); err != nil {
			return nil, fmt.Errorf("read range from %d: %w", d.read, err)
		}
	}
	if len(d.buffer) == 0 {
		return nil, nil
	}
	return d.buffer[0], nil
}

// none tells for sure whether nothing is left up to a sequence: the consumer's own server may be behind.
func (d *drain) none(ctx context.Context, bound uint64) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	stream, err := d.p.w.js.Stream(ctx, events.StreamEvents)
	if err != nil {
		return false, fmt.Errorf("look at EVENTS: %w", err)
	}
	msg, err := stream.GetMsg(ctx, d.read, jetstream.WithGetMsgSubject(d.p.consumer.filter))
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return true, nil
	case err != nil:
		return false, fmt.Errorf("read range from %d: %w", d.read, err)
	default:
		return msg.Sequence > bound, nil
	}
}

// offer queues what the range is for of an event. It asks to stop where a drain of what has expired has come to what has not.
func (d *drain) offer(ctx context.Context, msg jetstream.Msg, metadata *jetstream.MsgMetadata) (stop bool, err error) {
	p := d.p
	sequence := metadata.Sequence.Stream
	e := p.w.read(p, delivery{stream: sequence, stored: metadata.Timestamp.UnixNano()}, &nats.Msg{Subject: msg.Subject(), Data: msg.Data()})
	if e.event == nil {
		return false, nil
	}
	generation, meant := d.meant(e)
	if !meant {
		return false, nil
	}
	due, found := d.judge(e, generation)
	if !found {
		return false, nil
	}
	if due.resting { // it was paused again
		return true, nil
	}
	if d.expired && time.Since(metadata.Timestamp) <= p.w.options.ParkMaxAge {
		d.youngest = metadata.Timestamp.UTC()
		return true, nil
	}
	if err := d.mark(ctx, e.line.id); err != nil {
		return false, err
	}
	e.hold = d.h
	e.effects, e.open = nil, 0
	e.add(p, events.EffectKey(e.address.EffectID(e.event), due.observer, cmp.Or(due.action, noAction)), due)
	x := e.effects[0]
	x.drain, x.expired = d, d.expired
	if d.expired {
		x.endpoint = endpointOwn
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hold != d.h || d.over || p.leaving {
		d.over = true
		return true, nil
	}
	x.state = queued
	d.queue.push(x)
	d.bytes += len(e.data)
	p.w.scheduler.add(&p.set, x)
	return false, nil
}

// meant tells by which generation an event of the range is to be judged, and whether it is one of it at all.
func (d *drain) meant(e *entry) (generation string, meant bool) {
	d.p.mu.Lock()
	defer d.p.mu.Unlock()
	floor, known := d.r.floors[e.line.id]
	if !known || e.at.Compare(floor) <= 0 {
		return "", false
	}
	for _, s := range d.r.spans {
		if s.has(e.stream) {
			return s.Generation, true
		}
	}
	return "", false
}

// judge gives what is due of the range's observer and action.
func (d *drain) judge(e *entry, generation string) (*due, bool) {
	w, key := d.p.w, d.r.key
	set, known := w.rules.At(generation)
	if !known {
		set = w.rules.Current()
	}
	list, _ := dueOf(set, e)
	for _, found := range list {
		same := found.action == key.action || generation == unjudged && found.action == "" // a condition that fails now
		if found.observer == key.observer && same {
			return found, true
		}
	}
	if known || generation == unjudged || hasAction(set, key) {
		return nil, false
	}
	return &due{
		observer: key.observer, action: key.action, generation: generation, ordered: true, onFailure: jobs.DeadLetter,
		reason: deadletter.Orphaned, err: errOrphaned,
	}, true
}

func hasAction(set *observers.Set, key rangeKey) bool {
	for _, o := range set.Observers() {
		if o.Name != key.observer {
			continue
		}
		for _, a := range o.Actions {
			if a.Name == key.action {
				return true
			}
		}
	}
	return false
}

// mark reads a line's watermark, once: the records of what is below need not wait for it.
func (d *drain) mark(ctx context.Context, id dedupkv.Line) error {
	d.p.mu.Lock()
	_, known := d.marks[id]
	d.p.mu.Unlock()
	if known {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, loadWithin)
	defer cancel()
	mark, err := d.p.w.dedup.Watermark(ctx, id)
	if err != nil {
		return err
	}
	d.p.mu.Lock()
	d.marks[id] = mark.At
	d.p.mu.Unlock()
	return nil
}
