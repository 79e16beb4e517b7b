package worker

import (
	"context"
	"errors"
	"slices"
	"time"
)

// openRanges takes the ranges of the partition over, with the hold. Nothing of them is in force before.
func (p *partition) openRanges(ctx context.Context, h *hold) error {
	floor, err := p.consumer.ackFloor(ctx)
	if err != nil {
		return err
	}
	fence, records, err := shelf{p.w.js}.open(ctx, p.number, p.w.options.ID, h.pin)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ranges.all = make(map[rangeKey]*parkedRange, len(records))
	p.ranges.fence, p.ranges.delivered, p.ranges.kept = fence, floor, nil
	for _, record := range records {
		r := restore(record)
		p.ranges.all[r.key] = r
	}
	return nil
}

// closeRanges gives up what is not stored: it is delivered again. The caller holds the lock.
func (p *partition) closeRanges() {
	for _, r := range p.ranges.all {
		for _, x := range r.waiting {
			x.state = idle
		}
	}
	p.ranges.all = make(map[rangeKey]*parkedRange)
	p.ranges.kept = nil
}

const (
	storeGap   = 10 * time.Millisecond // what is parked meanwhile is stored at once
	storeEvery = 250 * time.Millisecond
	countEvery = 8 // of these
)

// storeRanges stores the ranges as they change, until ctx ends.
func (p *partition) storeRanges(ctx context.Context) {
	ticker := time.NewTicker(storeEvery)
	defer ticker.Stop()
	failing := false
	for tick := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-p.ranges.dirty:
		case <-ticker.C:
			tick++
			p.noteMoves(tick%countEvery == 0)
		}
		err := p.shelve(ctx)
		if err != nil && ctx.Err() == nil {
			if !failing {
				p.w.log.Warn("parked ranges are not stored; they will be", "partition", p.number, "error", err)
			}
			signal(p.ranges.dirty)
			wait(ctx, firstPause)
		}
		failing = err != nil
		wait(ctx, storeGap)
	}
}

// noteMoves has the beginnings stored that have moved, and where it is time the counts, which are for people.
func (p *partition) noteMoves(counts bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.ranges.all {
		if r.moved || counts && r.count != r.counted {
			r.version++
			r.moved = false
		}
	}
}

// shelve stores the ranges that have changed, and settles what waited for that.
func (p *partition) shelve(ctx context.Context) error {
	type change struct {
		r       *parkedRange
		version uint64
		gone    bool
		record  rangeRecord
	}
	p.ranges.storing.Lock()
	defer p.ranges.storing.Unlock()
	var changes []change
	p.mu.Lock()
	h, fence := p.hold, p.ranges.fence
	for _, r := range p.ranges.all {
		if r.version > r.durable {
			changes = append(changes, change{r, r.version, r.gone, r.record(p.number, p.w.options.ID)})
		}
	}
	p.mu.Unlock()
	if h == nil {
		return nil
	}
	var failed error
	for _, c := range changes {
		err := shelf{p.w.js}.put(ctx, p.number, fence, c.record, c.gone)
		if errors.Is(err, errFenced) {
			h.end(errTakenOver)
			p.signal()
			return err
		}
		if err != nil {
			failed = err
			continue
		}
		p.mu.Lock()
		if p.ranges.all[c.r.key] == c.r && p.hold == h {
			c.r.begins, c.r.counted = c.record.Spans[0].From, c.record.Count
			p.stored(c.r, c.version)
		}
		p.mu.Unlock()
	}
	return failed
}

// stored notes that a version of a range is stored. The caller holds the lock.
func (p *partition) stored(r *parkedRange, version uint64) {
	r.durable = version
	if r.gone && r.version == version {
		delete(p.ranges.all, r.key)
		if len(p.ranges.all) == 0 {
			p.acknowledge()
		}
		return
	}
	if r.durable < r.needs {
		return // what waits came later; it is soon its turn
	}
	waiting := r.waiting
	r.waiting = nil
	for _, x := range waiting {
		p.shelved(x)
	}
}

// keep takes records that a range may still come by out of those that are to be forgotten.
func (s *ranges) keep(free []settledRecord) []settledRecord {
	if len(s.all) == 0 {
		return free
	}
	return slices.DeleteFunc(free, func(record settledRecord) bool {
		key, ok := rangeKeyOf(record.key)
		if _, there := s.all[key]; !ok || !there {
			return false
		}
		s.kept = append(s.kept, keptRecord{settledRecord: record, key: key, stream: s.delivered})
		return true
	})
}

// retain is keep, and gives what no range comes by any more besides. The caller holds no lock.
func (p *partition) retain(free []settledRecord) []settledRecord {
	p.mu.Lock()
	defer p.mu.Unlock()
	free = p.ranges.keep(free)
	p.ranges.kept = slices.DeleteFunc(p.ranges.kept, func(k keptRecord) bool {
		if k.line != nil && k.line.known.At.Compare(k.at) < 0 {
			return false
		}
		if r, there := p.ranges.all[k.key]; there && r.begins <= k.stream {
			return false
		}
		free = append(free, k.settledRecord)
		return true
	})
	return free
}

// rangeKeyOf reads observer and action from an effect key: <id>~<observer>~<action>.
func rangeKeyOf(effectKey string) (rangeKey, bool) {
	parts := make([]string, 0, 2)
	end := len(effectKey)
	for i := end - 1; i >= 0 && len(parts) < 2; i-- {
		if effectKey[i] == '~' {
			parts = append(parts, effectKey[i+1:end])
			end = i
		}
	}
	if len(parts) < 2 {
		return rangeKey{}, false
	}
	return rangeKey{observer: parts[1], action: parts[0]}, true
}
