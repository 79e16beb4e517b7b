package worker

import (
	"cmp"
	"time"

	"github.com/tributary-dev/tributary/pkg/deadletter"
	"github.com/tributary-dev/tributary/pkg/dedupkv"
	"github.com/tributary-dev/tributary/pkg/observers"
	"github.com/tributary-dev/tributary/pkg/trace"
)

// effectTrace is what an effect's record tells beside how it ended. It belongs to who runs the effect.
type effectTrace struct {
	attempt *trace.Attempt
	reason  deadletter.Reason // why it was given up
	cause   error             // and what was wrong, where there was no attempt
	next    time.Time         // when it is tried again
	word    trace.Outcome     // where the result does not say it
}

// traceJudgement records what the observers said of an event.
func (w *Worker) traceJudgement(p *partition, e *entry, id string, set *observers.Set, j *observers.Judgement) {
	if w.traces == nil {
		return
	}
	var matched [4]string // most events match few observers
	evaluation := trace.Evaluation{More: j.More, Matched: matched[:0]}
	for _, m := range j.Matches {
		if m.Err != nil {
			evaluation.Failed = append(evaluation.Failed, trace.Failure{Observer: m.Observer.Name, Error: m.Err.Error()})
		} else {
			evaluation.Matched = append(evaluation.Matched, m.Observer.Name)
		}
	}
	for _, o := range j.False {
		evaluation.False = append(evaluation.False, o.Name)
	}
	w.traces.Note(p.number, &trace.Record{
		Event: id, Sequence: e.stream, At: time.Now(), Generation: set.Generation(), Evaluation: &evaluation,
	})
}

// traceAttempt keeps an attempt for the effect's record.
func (x *effect) traceAttempt(a deadletter.Attempt) {
	x.trace = effectTrace{attempt: &trace.Attempt{
		Round: a.Round, Number: a.Number, Started: a.Started, Ended: a.Ended, Status: a.Status, Error: a.Error,
	}}
}

// traceEffect records how an effect has ended here.
func (w *Worker) traceEffect(x *effect, claim dedupkv.Claim, outcome dedupkv.Result) {
	e := x.entry
	if w.traces == nil || e.event == nil {
		return
	}
	d, t := x.due, &x.trace
	told := trace.Effect{
		Observer: d.observer, Action: d.action, Outcome: cmp.Or(t.word, outcomeWord(outcome)), Reason: string(t.reason), Attempt: t.attempt, Next: t.next,
	}
	if t.attempt == nil && t.cause != nil {
		told.Error = t.cause.Error()
	}
	if claim.Begun > 1 {
		told.Begun = claim.Begun
	}
	at := time.Now()
	if t.attempt != nil {
		at = t.attempt.Ended
	}
	w.traces.Note(x.owner.number, &trace.Record{
		Event: e.address.EffectID(e.event), Sequence: e.stream, At: at, Generation: cmp.Or(claim.Generation, d.generation), Effect: &told,
	})
}

// outcomeWord is the word of traces for a result.
func outcomeWord(result dedupkv.Result) trace.Outcome {
	switch result {
	case dedupkv.Done:
		return trace.Done
	case dedupkv.Handed:
		return trace.Handed
	case dedupkv.Dead:
		return trace.Dead
	case dedupkv.Skipped:
		return trace.Skipped
	default:
		return trace.Outcome(result)
	}
}
