package jobs

import (
	"context"
	"errors"
	"time"

	"github.com/tributary-dev/tributary/internal/natskv"
	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/deadletter"
	"github.com/tributary-dev/tributary/pkg/retry"
)

// troubled is the pause before a ticket comes again whose record could not be read or written.
const troubled = 5 * time.Second

// process brings one ticket to its end: acknowledged, given back, or left to come again.
func (r *Runner) process(p phases, h *held) {
	defer r.drop(h)
	for {
		if !r.ripen(p.taking, h) || !r.queue(p.taking, h) {
			r.nak(h)
			return
		}
		ended := r.handle(p, h)
		h.pass.Return()
		h.pass = nil
		<-r.slots
		if h.placed {
			h.placed = false
			r.shares.leave(h.endpoint)
		}
		if ended {
			return
		}
	}
}

// queue waits for a place of the endpoint, where that is known to be needed, and then for a slot. It says no when ctx
// ended first, and holds neither then.
func (r *Runner) queue(ctx context.Context, h *held) bool {
	if h.endpoint != "" && !h.postpone {
		if h.postpone = !r.wait(); !h.postpone {
			h.placed = r.shares.take(ctx, h.endpoint)
			r.unwait()
			if !h.placed {
				return false
			}
		}
	}
	select {
	case r.slots <- struct{}{}:
		return true
	case <-ctx.Done():
		if h.placed {
			h.placed = false
			r.shares.leave(h.endpoint)
		}
		return false
	}
}

// place takes a place of the record's endpoint, if there is one.
func (r *Runner) place(h *held, record *Record) bool {
	if !h.placed {
		h.endpoint = shareOf(&record.Request)
		h.placed = r.shares.try(h.endpoint)
	}
	return h.placed
}

// yield lets a ticket wait for its endpoint: here, or where there is no room, on the server.
func (r *Runner) yield(ctx context.Context, h *held, record *Record) (ended bool) {
	switch {
	case !h.postpone:
	case record.State == Running: // only the ticket that it runs by can take it over
		r.nakLater(h, r.options.crowded)
	default:
		later := *record
		pause := r.options.crowded
		later.Due = time.Now().Add(pause + time.Duration(r.options.Random()*float64(pause)))
		r.reticket(ctx, h, &later, 0)
	}
	return h.postpone
}

// handle does what the ticket means for its record. It says no where that has changed meanwhile: look again.
func (r *Runner) handle(p phases, h *held) (ended bool) {
	record, revision, err := r.store.load(p.settling, h.ID)
	switch {
	case err != nil:
		r.unreadable(p.settling, h, err)
		return true
	case p.taking.Err() != nil:
		r.nak(h)
		return true
	}
	now := time.Now().UTC()
	meaning := record.next(h.delivery, now, graceWaits*r.options.AckWait)
	switch meaning {
	case stale:
		r.metrics.stale.Inc()
		if r.finish(p.settling, h, record) {
			r.ack(h)
		}
		return true
	case hold:
		h.due = record.Due
		if h.postpone {
			r.reticket(p.settling, h, record, 0)
		}
		return h.postpone
	case mend:
		r.reticket(p.settling, h, record, near)
		return true
	case foreign:
		r.log.Error("job has a state that is not known here", "job", record.ID, "state", record.State)
		r.nakLater(h, troubled)
		return true
	case carryOut:
		return r.carryOut(p.settling, h, record, revision)
	case begin, takeOver:
		if ended, waits := r.defers(p, h, record, revision, now); waits {
			return ended
		}
		return r.claim(p, h, record, revision, meaning, now)
	case exhaust:
		return r.claim(p, h, record, revision, meaning, now)
	default:
		panic("jobs: a step without a case")
	}
}

// claim writes what begins, or dies, and goes on with it if nobody else was faster.
func (r *Runner) claim(p phases, h *held, record *Record, revision uint64, meaning step, now time.Time) (ended bool) {
	lost := record.Owner
	if meaning == takeOver {
		record.interrupt(now)
	}
	if meaning == exhaust {
		record.condemn(deadletter.Exhausted, record.lastError(), now)
	}
	cancelled := record.State == Cancelled // while the runner that was lost had it
	if record.Verdict == nil && !cancelled {
		record.begin(r.options.Owner, h.sequence, now)
	}
	revision, err := r.store.update(p.settling, record, revision, r.keep(record))
	if err != nil {
		return r.unwritten(h, err)
	}
	if meaning == takeOver {
		r.metrics.interrupted.Inc()
		r.traceAttempt(record)
		r.log.Warn("job was interrupted", "job", record.ID, "attempt", record.attempt(), "lost", lost)
	}
	switch {
	case cancelled:
		if r.finish(p.settling, h, record) {
			r.ack(h)
		}
		return true
	case record.Verdict != nil:
		return r.carryOut(p.settling, h, record, revision)
	default:
		r.execute(p, h, record, revision)
		return true
	}
}

// reticket publishes the record's own ticket, and ends the one that is held.
func (r *Runner) reticket(ctx context.Context, h *held, record *Record, within time.Duration) {
	if err := r.store.publishTicket(ctx, record, within); err != nil {
		r.log.Error("ticket could not be written", "job", record.ID, "error", err)
		r.nakLater(h, troubled)
		return
	}
	r.ack(h)
}

// unwritten deals with a record that could not be written before anything was done for it.
func (r *Runner) unwritten(h *held, err error) (ended bool) {
	if errors.Is(err, natskv.ErrConflict) {
		return false
	}
	r.log.Error("job could not be written", "job", h.ID, "error", err)
	r.nakLater(h, troubled)
	return true
}

// unreadable deals with a ticket whose record can't be had.
func (r *Runner) unreadable(ctx context.Context, h *held, err error) {
	var undecodable *undecodableError
	switch {
	case errors.Is(err, ErrNotFound):
		r.metrics.stale.Inc()
		r.ack(h)
	case errors.As(err, &undecodable):
		// The record stays as it is, and so does what names it: only the ticket goes.
		err := r.dead.Write(ctx, deadletter.Record{
			ID: h.ID, Reason: deadletter.Undecodable, EffectKey: h.ID, Error: shorten(err.Error()), Raw: undecodable.value,
			Subject: kvSubjects + h.Key, Round: h.Round,
		})
		if err != nil {
			r.log.Error("dead letter could not be written", "job", h.ID, "error", err)
			r.nakLater(h, troubled)
			return
		}
		r.metrics.dead.WithLabelValues(string(deadletter.Undecodable)).Inc()
		r.ack(h)
	default:
		r.log.Error("job could not be read", "job", h.ID, "error", err)
		r.nakLater(h, troubled)
	}
}

// execute runs the attempt that the record says is running here, and writes how it ended.
func (r *Runner) execute(p phases, h *held, record *Record, revision uint64) {
	r.metrics.running.Inc()
	defer r.metrics.running.Dec()
	if record.Request.Type == actions.Pending {
		var ended bool
		if record, revision, ended = r.resolve(p, h, record, revision); ended {
			return
		}
	}
	outcome, failure := r.do.Do(p.working, record.Effect, record.Request)
	r.conclude(p, h, record, revision, outcome, failure)
}

// conclude writes how the attempt that ran here ended, and ends its ticket.
func (r *Runner) conclude(p phases, h *held, record *Record, revision uint64, outcome actions.Outcome, failure error) {
	if errors.Is(failure, actions.ErrNotDue) {
		failure = nil // there is nothing to do, and that is done
	}
	now := time.Now().UTC()
	if failure != nil && p.working.Err() != nil {
		r.release(p.settling, h, record, revision, now)
		return
	}
	h.pass.Done(failure)
	r.metrics.seconds.Observe(now.Sub(record.Started).Seconds())
	record, revision, err := r.write(p.settling, record, revision, func(record *Record) {
		record.end(outcome, failure, now, r.options.Random)
	})
	if err != nil {
		// Another runner took the job over, or the time to end is up: the ticket is not ours to end.
		r.metrics.executions.WithLabelValues(outcomeLost).Inc()
		r.log.Warn("result of job was dropped", "job", record.ID, "error", err)
		return
	}
	r.metrics.executions.WithLabelValues(outcomeOf(failure)).Inc()
	r.traceAttempt(record)
	switch {
	case record.Verdict != nil:
		r.carryOut(p.settling, h, record, revision)
	case record.State == Scheduled:
		r.reticket(p.settling, h, record, near)
	case r.finish(p.settling, h, record):
		r.ack(h)
	}
}

// keep is how long a record stays: for ever while something is left to do, or waits for it.
func (r *Runner) keep(record *Record) time.Duration {
	if record.gone() {
		return r.options.Keep
	}
	return 0
}

// write writes what to makes of the record of an attempt that ran here. A wish to cancel the job, which came meanwhile, is
// heeded; where another runner has taken the job over it errs with natskv.ErrConflict.
func (r *Runner) write(ctx context.Context, record *Record, revision uint64, to func(*Record)) (*Record, uint64, error) {
	for {
		next := *record
		to(&next)
		written, err := r.store.update(ctx, &next, revision, r.keep(&next))
		if !errors.Is(err, natskv.ErrConflict) {
			return &next, written, err
		}
		there, seen, look := r.store.load(ctx, record.ID)
		ours := look == nil && there.State == Running && there.Round == record.Round && there.Ticket == record.Ticket &&
			there.Owner == record.Owner && there.Started.Equal(record.Started)
		if !ours {
			return &next, 0, err
		}
		record, revision = there, seen
	}
}

// finish does what is left to do when a job has ended: its dead letter goes where it has succeeded, and who waits behind it
// goes on. It says no where that has to be tried again.
func (r *Runner) finish(ctx context.Context, h *held, record *Record) bool {
	if !r.tidy(ctx, h, record) {
		return false
	}
	if record.Lane == nil || !record.gone() {
		return true
	}
	if err := r.store.advance(ctx, record.Lane); err != nil {
		r.log.Error("jobs that wait behind another could not go on", "job", record.ID, "error", err)
		r.nakLater(h, troubled)
		return false
	}
	return true
}

// tidy removes the dead letter of a job that has succeeded. It says no where that has to be tried again.
func (r *Runner) tidy(ctx context.Context, h *held, record *Record) bool {
	if record.State != Done || record.Letter == 0 {
		return true
	}
	if err := r.dead.Settle(ctx, record.Letter, record.ID); err != nil {
		r.log.Error("dead letter of a job that succeeded could not be removed", "job", record.ID, "error", err)
		r.nakLater(h, troubled)
		return false
	}
	return true
}

func outcomeOf(err error) string {
	switch {
	case err == nil:
		return outcomeDone
	case retry.IsPermanent(err):
		return outcomePermanent
	default:
		return outcomeFailed
	}
}

// release gives an attempt back that the shutdown cut short: it is due at once, and not charged.
func (r *Runner) release(ctx context.Context, h *held, record *Record, revision uint64, now time.Time) {
	_, _, err := r.write(ctx, record, revision, func(record *Record) {
		if record.Cancel {
			record.rest(Cancelled, now, now)
		} else {
			record.rest(Ready, record.Due, now)
		}
	})
	if err != nil {
		r.metrics.executions.WithLabelValues(outcomeLost).Inc()
		r.log.Warn("job was not released", "job", record.ID, "error", err)
		return
	}
	r.metrics.executions.WithLabelValues(outcomeReleased).Inc()
	r.nak(h)
}

// carryOut lets a job die by its verdict: the dead letter, the state, then the ticket.
func (r *Runner) carryOut(ctx context.Context, h *held, record *Record, revision uint64) (ended bool) {
	letter := uint64(0)
	if record.OnFailure != Drop {
		var err error
		if letter, err = r.dead.Store(ctx, record.deadLetter()); err != nil {
			r.log.Error("dead letter could not be written", "job", record.ID, "error", err)
			r.nakLater(h, troubled)
			return true
		}
	}
	if record.Letter != 0 { // the one that was just written takes its place
		if err := r.dead.Settle(ctx, record.Letter, record.ID); err != nil {
			r.log.Error("dead letter that another one replaces could not be removed", "job", record.ID, "error", err)
			r.nakLater(h, troubled)
			return true
		}
	}
	record.die(letter, time.Now().UTC())
	if _, err := r.store.update(ctx, record, revision, r.keep(record)); err != nil {
		return r.unwritten(h, err)
	}
	r.metrics.dead.WithLabelValues(string(record.Verdict.Reason)).Inc()
	if record.OnFailure == Alert {
		r.metrics.alerts.Inc()
	}
	r.log.Warn("job died", "job", record.ID, "reason", record.Verdict.Reason, "error", record.Verdict.Error,
		"on_failure", record.OnFailure)
	if r.finish(ctx, h, record) {
		r.ack(h)
	}
	return true
}
