package worker

import (
	"context"
	"time"

	"github.com/tributary-dev/tributary/pkg/dedupkv"
	"github.com/tributary-dev/tributary/pkg/events"
)

const (
	saveEvery  = time.Second
	saveWithin = 2 * time.Second
	loadWithin = time.Second
)

// load reads the watermark of a line, once in each hold: another worker may have raised it.
func (p *partition) load(ctx context.Context, l *line) error {
	ctx, cancel := context.WithTimeout(ctx, loadWithin)
	defer cancel()
	known, err := p.w.dedup.Watermark(ctx, l.id)
	if err != nil && p.w.options.OnError == Wait {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if at := p.reached[l.id]; at.Compare(l.reached) > 0 {
		l.reached = at
	}
	l.load(known)
	return nil
}

// saveBehind saves the watermarks beside the session, one save at a time.
func (p *partition) saveBehind(ctx context.Context, h *hold, saved chan struct{}) {
	select {
	case <-saved:
	default:
		return
	}
	ctx = context.WithoutCancel(ctx) // its own bound is short
	go func() {
		defer func() { saved <- struct{}{} }() // awaited by pump
		p.ownBehind(ctx, h)
		p.save(ctx)
		p.listen(ctx, h)
	}()
}

// save saves the watermarks that have moved, and shortens the life of the records below them. What it can't save now
// is saved by the next one.
func (p *partition) save(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, saveWithin)
	defer cancel()
	type step struct {
		line  *line
		to    events.Sequence
		known dedupkv.Watermark
	}
	var steps []step
	forget := func(free []settledRecord) {
		for _, r := range p.retain(free) {
			if r.ledgered {
				p.ledger.Forget(r.id)
				continue
			}
			if err := p.w.dedup.Forget(r.key, r.result); err != nil {
				// It goes by itself, only later than after dedup.window.
				p.w.log.Debug("a record stays for longer", "partition", p.number, "error", err)
			}
		}
	}
	forget(nil) // what ranges have passed since
	p.mu.Lock()
	for _, l := range p.lines {
		if l.unsaved() {
			steps = append(steps, step{l, l.reached, l.known})
		}
	}
	p.mu.Unlock()
	for _, s := range steps {
		known, err := p.w.dedup.SaveWatermark(ctx, s.line.id, s.to, s.known)
		if err != nil {
			p.w.log.Warn("watermark is not saved", "partition", p.number, "source", s.line.id.Source, "error", err)
			return
		}
		p.mu.Lock()
		free := s.line.saved(known)
		p.pass(s.line)
		p.mu.Unlock()
		forget(free)
		if s.line.ledgered() {
			p.ledger.Saved(s.line.id, known.At)
		}
	}
}

// depart leaves the partition to its next owner at once.
func (p *partition) depart(ctx context.Context, h *hold) error {
	if !h.sure() {
		return errUnsure // the pin may be somebody else's by now
	}
	ctx = context.WithoutCancel(ctx)
	p.flushAcks()
	p.save(ctx)
	p.noteMoves(true)
	if err := p.shelve(ctx); err != nil {
		p.w.log.Warn("parked ranges are not stored: what was drained last is looked at again", "partition", p.number, "error", err)
	}
	p.flush(ctx)
	return p.consumer.unpin(ctx)
}
