package worker

import (
	"context"
	"errors"
	"time"

	"github.com/tributary-dev/tributary/pkg/dedupkv"
)

// Effects of rows are claimed in the ledger of their partition. Effects of what applications publish have records of
// their own, since a duplicate may come in another partition.

// register is where an effect is claimed and settled: a dedupkv.Ledger or a dedupkv.Store.
type register interface {
	Holds(ctx context.Context, key string, claim dedupkv.Claim) error
	Settle(ctx context.Context, key string, claim dedupkv.Claim, result dedupkv.Result) error
	Release(ctx context.Context, key string, claim dedupkv.Claim) error
}

func (w *Worker) registerOf(x *effect) register {
	if x.ledgered {
		return x.owner.ledger
	}
	return w.dedup
}

// reserved is the claim of an effect before its turn. The zero value is none.
type reserved struct {
	pending dedupkv.Pending
	made    bool
}

// ahead is how many effects of a partition are claimed before their turn, so that who begins one need not wait for its
// claim. Where their worker dies they count as begun, once.
const ahead = 128

// reserve claims what waits in the lanes, the oldest first, for as long as there is room. It is called under the
// partition's lock.
func (p *partition) reserve(queue ...*effect) {
	for _, x := range queue {
		if x.ledgered {
			p.waiting.push(x)
		}
	}
	if p.reserved > ahead/2 {
		return
	}
	for p.reserved < ahead && p.waiting.len() > 0 {
		x := p.waiting.pop()
		if x.state == queued && !x.reserved.made {
			x.reserved = reserved{pending: p.ledger.Reserve(x.id, x.judgement()), made: true}
			p.reserved++
		}
	}
}

// unreserve ends the reservation of an effect. It is called under the partition's lock.
func (p *partition) unreserve(x *effect) {
	if x.reserved.made {
		x.reserved = reserved{}
		p.reserved--
	}
}

// withdraw gives back the reservations of effects that have not begun. It is called under the partition's lock.
func (p *partition) withdraw(effects ...*effect) {
	var ids []dedupkv.ID
	for _, x := range effects {
		if x.reserved.made {
			ids = append(ids, x.id)
			p.unreserve(x)
		}
	}
	p.ledger.Withdraw(ids...)
}

// own takes the ledger for the present hold. Between the reading of its record and the writing the pin is asked for: a worker that
// was frozen on the way, and has lost the partition meanwhile, must not take the ledger from the next owner, whose effects under
// way could not be recorded any more, and would be repeated.
func (p *partition) own(ctx context.Context, h *hold) error {
	ctx, cancel := context.WithTimeout(ctx, loadWithin)
	defer cancel()
	estate, err := p.ledger.Own(ctx, dedupkv.Owner{Worker: p.w.options.ID, Pin: h.pin}, func(ctx context.Context) error {
		pin, _, err := p.consumer.state(ctx)
		if err == nil && pin != h.pin {
			err = errPinLost
		}
		return err
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	p.owned = err == nil
	if err == nil {
		p.reached, p.judged = estate.Reached, estate.Judged
	}
	if p.w.options.OnError == Run && !errors.Is(err, errPinLost) {
		return nil // it is tried again behind the session
	}
	return err
}

// judgement says by what the event of the effect was judged. Of one that is drained from a range its spans tell.
func (x *effect) judgement() dedupkv.Judgement {
	by := dedupkv.Judgement{Generation: x.due.generation}
	if x.drain == nil && x.entry.line != nil {
		by.Made, by.Sequence = x.entry.line.id.Made, x.entry.stream
	}
	return by
}

// ownBehind takes the ledger that could not be taken when the hold began.
func (p *partition) ownBehind(ctx context.Context, h *hold) {
	p.mu.Lock()
	owned := p.owned
	p.mu.Unlock()
	if owned || !h.sure() {
		return
	}
	err := p.own(ctx, h)
	if errors.Is(err, errPinLost) {
		h.end(err)
		p.signal()
	}
	if err != nil {
		p.w.log.Warn("ledger is not owned", "partition", p.number, "error", err)
	}
}

// overtaken tells whether the event was settled while the effect waited: after a rewind the same event may come twice
// within a line, and what the first one left in the ledger is forgotten when the watermark passes it. It is asked after the
// claim, which has found either the one or the other.
func (p *partition) overtaken(x *effect) bool {
	return x.ledgered && x.drain == nil && p.past(x.entry)
}

// claimOf gives the claim of an effect whose turn it is.
func (w *Worker) claimOf(x *effect, owner dedupkv.Owner) (dedupkv.Claim, error) {
	if x.reserved.made {
		if claim, ok, err := x.reserved.pending.Answer(); ok && err == nil {
			return claim, nil
		}
	}
	if !x.ledgered {
		ctx, cancel := context.WithTimeout(w.settling, claimWithin)
		defer cancel()
		x.owner.ledger.Note(x.judgement())
		return w.dedup.Claim(ctx, x.key, owner, x.due.generation)
	}
	if x.reserved.made {
		if claim, err := x.reserved.pending.Wait(w.settling, claimWithin); err == nil {
			return claim, nil
		}
	}
	return x.owner.ledger.ClaimID(w.settling, x.id, x.judgement(), claimWithin)
}

// mostUnrecorded is how many effects may have ended without being on record: a server that does not answer can't make
// more of them come again.
const mostUnrecorded = 128

// finish records how an effect has ended, and settles it then. The effect's slot need not wait for that, unless many do.
func (w *Worker) finish(x *effect, claim dedupkv.Claim, result dedupkv.Result) time.Duration {
	if claim.State == dedupkv.Settled {
		w.settled(x, claim, result)
		return 0
	}
	if !x.ledgered || claim.Revision == 0 || w.unrecorded.Load() >= mostUnrecorded {
		w.finishNow(x, claim, result)
		return 0
	}
	w.unrecorded.Add(1)
	x.owner.ledger.SettleID(x.id, claim, result, func(err error) {
		w.unrecorded.Add(-1)
		if err == nil {
			w.settled(x, claim, result)
			w.scheduler.free(x)
			return
		}
		w.scheduler.running.Go(func() { // it is rare, and may take its time
			w.finishNow(x, claim, result)
			w.scheduler.free(x)
		})
	})
	return unrecorded
}

func (w *Worker) finishNow(x *effect, claim dedupkv.Claim, result dedupkv.Result) {
	if w.record(x, claim, result) {
		w.settled(x, claim, result)
	}
}

func (w *Worker) settled(x *effect, claim dedupkv.Claim, result dedupkv.Result) {
	outcome := outcomeOf(claim, result)
	if x.rehearsed {
		outcome = outcomeDryRun
	}
	w.metrics.outcome(outcome).Inc()
	w.traceEffect(x, claim, outcome)
	w.unseal(x)
	x.owner.settle(x, result)
}

// pass tells the ledger what is settled without a gap. It is called under the partition's lock.
func (p *partition) pass(l *line) {
	if len(l.free) == 0 {
		return
	}
	free := p.ranges.keep(l.free)
	ids := make([]dedupkv.ID, len(free))
	for i, record := range free {
		ids[i] = record.id
	}
	p.ledger.Pass(l.id, l.reached, ids)
	clear(l.free)
	l.free = l.free[:0]
}

// passAll tells the ledger of all lines.
func (p *partition) passAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.lines {
		p.pass(l)
	}
}

// flush writes what the ledger knows, so that the next owner need not find out.
func (p *partition) flush(ctx context.Context) {
	p.passAll()
	ctx, cancel := context.WithTimeout(ctx, saveWithin)
	defer cancel()
	if err := p.ledger.Flush(ctx); err != nil {
		p.w.log.Debug("ledger is not flushed", "partition", p.number, "error", err)
	}
}

const passAt = 32 // effects
