package worker

import (
	"context"
	"errors"
	"time"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/deadletter"
	"github.com/tributary-dev/tributary/pkg/dedupkv"
	"github.com/tributary-dev/tributary/pkg/jobs"
	"github.com/tributary-dev/tributary/pkg/retry"
	"github.com/tributary-dev/tributary/pkg/trace"
)

const (
	claimWithin = 2 * time.Second
	twinPause   = 50 * time.Millisecond
)

// errStopped is the cause of contexts that the worker's own stop has ended.
var errStopped = errors.New("the worker stops")

// run takes an effect that has a slot through claim, run and settle. It is the one place that settles effects. An
// answer above 0 says that the effect could not begin, and is to be tried again after so long.
func (w *Worker) run(x *effect) time.Duration {
	p := x.owner
	owner, verdict := p.begin(x)
	switch verdict {
	case dropped:
		return 0
	case waits:
		return twinPause
	case begins:
	}
	pass, admitted := w.admit(x)
	if !admitted {
		return 0
	}
	x.pass = pass
	defer pass.Return()
	w.metrics.inFlight.Inc()
	defer w.metrics.inFlight.Dec()

	claim, again := w.claim(x, owner)
	switch {
	case again > 0:
		p.giveUp(x, queued, nil)
		return again
	case claim.State == 0:
		p.giveUp(x, idle, errTakenOver)
		return 0
	}
	if p.overtaken(x) {
		claim = dedupkv.Claim{State: dedupkv.Settled, Result: dedupkv.Skipped}
	}
	result := claim.Result
	if claim.State != dedupkv.Settled {
		var err error
		if result, err = w.carryOut(x, claim); err != nil {
			w.release(x, claim)
			return 0
		}
	}
	return w.finish(x, claim, result)
}

// unclaimed is the claim of an effect that runs although KV is away.
var unclaimed = dedupkv.Claim{State: dedupkv.Fresh, Begun: 1}

// claim takes the effect for this worker. An answer above 0 says when to try again; without one and without a claim the
// effect is somebody else's.
func (w *Worker) claim(x *effect, owner dedupkv.Owner) (dedupkv.Claim, time.Duration) {
	claim, err := w.claimOf(x, owner)
	switch {
	case err == nil:
		w.metrics.claim(claim.State).Inc()
		x.tries = 0
		return claim, 0
	case errors.Is(err, dedupkv.ErrLost):
		w.metrics.claims.WithLabelValues(claimFailed).Inc()
		return dedupkv.Claim{}, 0
	case w.options.OnError == Run && w.settling.Err() == nil:
		w.metrics.claims.WithLabelValues(claimNone).Inc()
		return unclaimed, 0
	}
	w.metrics.claims.WithLabelValues(claimFailed).Inc()
	if x.tries == 0 {
		w.log.Warn("effect is not claimed", "effect", x.key, "error", err)
	}
	x.tries++
	return dedupkv.Claim{}, min(firstPause<<min(x.tries, 10), mostPause)
}

// carryOut does what the claim allows. It errs only where the worker stops, or must not go on, before the effect has
// ended.
func (w *Worker) carryOut(x *effect, claim dedupkv.Claim) (dedupkv.Result, error) {
	if !x.owner.held() {
		return "", errUnsure
	}
	if claim.State != dedupkv.Fresh { // who began it may have made it a job, and died before that was recorded
		handed, err := w.isJob(x)
		if err != nil {
			return "", err
		}
		if handed {
			return dedupkv.Handed, nil
		}
	}
	if claim.State == dedupkv.Crashed {
		return w.bury(x, deadletter.Crashed, errCrashed, nil)
	}
	if claim.Generation != x.due.generation {
		w.rejudge(x, claim.Generation)
	}
	d := x.due
	if d.dryRun {
		return w.rehearse(x), nil
	}
	waits, err := w.waits(x)
	switch {
	case err != nil:
		return "", err
	case d.err != nil:
		return w.bury(x, d.reason, d.err, nil)
	case x.expired:
		return w.bury(x, deadletter.Exhausted, errParkedLong, nil)
	case d.async || waits:
		return w.hand(x, nil, time.Time{})
	}
	attempt := deadletter.Attempt{Number: 1, Started: time.Now().UTC()}
	outcome, err := w.attempt(x, claim)
	attempt.Ended = time.Now().UTC()
	w.metrics.seconds.Observe(attempt.Ended.Sub(attempt.Started).Seconds())
	attempt.Status = outcome.Status
	switch {
	case err == nil:
		x.traceAttempt(attempt)
		x.pass.Done(nil)
		return dedupkv.Done, nil
	case errors.Is(err, actions.ErrNotDue):
		x.trace.word = trace.NotDue
		return dedupkv.Skipped, nil
	case errors.Is(err, errShut): // what was sealed is not asked for again: a job waits for the circuit
		return w.hand(x, nil, time.Time{})
	case w.acting.Err() != nil:
		return "", errStopped
	}
	x.pass.Done(err)
	if err := w.holds(x, claim); err != nil {
		return "", err
	}
	attempt.Error = err.Error()
	x.traceAttempt(attempt)
	attempts := []deadletter.Attempt{attempt}
	var unrendered *actions.RenderError
	switch {
	case errors.As(err, &unrendered):
		return w.bury(x, reasonOf(unrendered), err, attempts)
	case retry.IsPermanent(err):
		return w.bury(x, deadletter.Permanent, err, attempts)
	case d.policy.Exhausted(len(attempts)):
		return w.bury(x, deadletter.Exhausted, err, attempts)
	default:
		delay := d.policy.Delay(len(attempts), retry.DelayOf(err), w.options.Random)
		return w.hand(x, attempts, attempt.Ended.Add(delay))
	}
}

// holds errs where somebody else has taken the effect over: who was frozen while it was under way must not hand on what
// may be done by now.
func (w *Worker) holds(x *effect, claim dedupkv.Claim) error {
	if claim.Revision == 0 {
		return nil
	}
	return w.insist(func(ctx context.Context) error { return w.registerOf(x).Holds(ctx, x.key, claim) }, dedupkv.ErrLost)
}

var errCrashed = errors.New("it was begun too often without an end")

func (w *Worker) isJob(x *effect) (bool, error) {
	err := w.insist(func(ctx context.Context) error { return w.jobs.Resume(ctx, x.key) }, jobs.ErrNotFound)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, jobs.ErrNotFound):
		return false, nil
	default:
		return false, err
	}
}

// hand makes the effect a job.
func (w *Worker) hand(x *effect, attempts []deadletter.Attempt, notBefore time.Time) (dedupkv.Result, error) {
	d := x.due
	x.trace.next = notBefore
	err := w.insist(func(ctx context.Context) error {
		return w.jobs.Enqueue(ctx, jobs.New{
			Effect: x.name(), Request: d.request, Policy: d.policy, OnFailure: d.onFailure, Generation: d.generation,
			Attempts: attempts, NotBefore: notBefore, Event: x.entry.data, Subject: x.entry.subject, Lane: d.lane,
		})
	}, jobs.ErrInvalid)
	switch {
	case errors.Is(err, jobs.ErrTooLarge):
		return w.bury(x, deadletter.Oversize, err, attempts)
	case errors.Is(err, jobs.ErrInvalid):
		return w.bury(x, deadletter.Permanent, err, attempts)
	case err != nil:
		return "", err
	default:
		return dedupkv.Handed, nil
	}
}

// bury gives the effect up, as its observer wants it.
func (w *Worker) bury(x *effect, reason deadletter.Reason, cause error, attempts []deadletter.Attempt) (dedupkv.Result, error) {
	d := x.due
	x.trace.reason, x.trace.cause, x.trace.next = reason, cause, time.Time{}
	log := w.log.With("effect", x.key, "reason", reason, "error", cause)
	if d.onFailure == jobs.Drop {
		log.Error("effect has failed, and is dropped")
		return dedupkv.Dead, nil
	}
	letter := deadletter.Record{
		ID: x.key, Reason: reason, Observer: d.observer, Action: d.action, Generation: d.generation,
		Error: cause.Error(), Attempts: attempts, Subject: x.entry.subject, OnFailure: string(d.onFailure),
	}
	if event := x.entry.event; event != nil {
		name := x.name()
		letter.EffectKey, letter.EventID, letter.Source = x.key, event.ID, x.entry.address.Source
		letter.Effect, letter.Event = &name, x.entry.data
	} else {
		letter.Raw = x.entry.data
	}
	if d.err == nil {
		letter.Request, letter.Policy = &d.request, &d.policy
	}
	if d.lane != nil {
		letter.Lane, letter.WhenDead = d.lane.Key, string(d.lane.WhenDead)
	}
	var sequence uint64
	err := w.insist(func(ctx context.Context) (err error) {
		sequence, err = w.dead.Store(ctx, letter)
		return err
	}, deadletter.ErrInvalid)
	if errors.Is(err, deadletter.ErrInvalid) {
		log.Error("effect has failed, and its dead letter can't be written", "problem", err)
		return dedupkv.Dead, nil
	}
	if err == nil {
		err = w.hold(x, reason, cause, sequence)
	}
	if err != nil {
		return "", err
	}
	if d.onFailure == jobs.Alert {
		w.metrics.alerts.Inc()
		log.Error("effect has failed")
	}
	return dedupkv.Dead, nil
}

// record notes how the effect has ended. It is false where the effect is not this worker's to settle any more.
func (w *Worker) record(x *effect, claim dedupkv.Claim, result dedupkv.Result) bool {
	if claim.Revision == 0 {
		return true
	}
	err := w.insist(func(ctx context.Context) error { return w.registerOf(x).Settle(ctx, x.key, claim, result) }, dedupkv.ErrLost)
	if err == nil {
		return true
	}
	w.lose(x, claim, result, err)
	return false
}

// lose leaves an effect that has ended to whoever has taken it over.
func (w *Worker) lose(x *effect, claim dedupkv.Claim, result dedupkv.Result, err error) {
	w.log.Warn("effect has ended, and is not recorded", "effect", x.key, "result", result, "error", err)
	w.metrics.effects.WithLabelValues(outcomeLost).Inc()
	w.traceEffect(x, claim, outcomeLost)
	x.owner.giveUp(x, idle, errTakenOver)
}

// release takes the beginning of an effect back: a stop is not a crash.
func (w *Worker) release(x *effect, claim dedupkv.Claim) {
	w.metrics.effects.WithLabelValues(outcomeReleased).Inc()
	if claim.Revision != 0 && claim.State != dedupkv.Crashed {
		ctx, cancel := context.WithTimeout(w.settling, claimWithin)
		defer cancel()
		if err := w.registerOf(x).Release(ctx, x.key, claim); err != nil && !errors.Is(err, dedupkv.ErrLost) {
			w.log.Warn("claim is not released", "effect", x.key, "error", err)
		}
	}
	x.owner.giveUp(x, idle, errUnsure)
}

// insist does what must not be lost until it is done, it errs with final, or the worker's last moment has passed.
func (w *Worker) insist(do func(context.Context) error, final error) error {
	for pause := firstPause; ; pause = min(2*pause, mostPause) {
		err := do(w.settling)
		if err == nil || errors.Is(err, final) {
			return err
		}
		if w.settling.Err() != nil {
			return errStopped
		}
		w.log.Warn("settling is tried again", "error", err)
		wait(w.settling, pause)
	}
}

// outcomeOf names what became of an effect, for metrics.
func outcomeOf(claim dedupkv.Claim, result dedupkv.Result) dedupkv.Result {
	if claim.State == dedupkv.Settled {
		return dedupkv.Skipped
	}
	return result
}

// doer performs attempts; it is actions.Registry.
type doer interface {
	Do(ctx context.Context, effect actions.Effect, request actions.Request) (actions.Outcome, error)
}
