package jobs

import (
	"cmp"
	"strings"

	"github.com/tributary-dev/tributary/pkg/deadletter"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/trace"
)

// tracer is told of each attempt; it is a trace.Recorder. It neither blocks nor keeps the record.
type tracer interface {
	Note(partition int, r *trace.Record)
}

// traceAttempt records the last attempt at a job, and what it has led to. A job whose event is not known has no trace.
func (r *Runner) traceAttempt(record *Record) {
	address, err := events.ParseAddress(record.Subject)
	event, ok := strings.CutSuffix(record.ID, "~"+record.Effect.Observer+"~"+record.Effect.Action)
	if r.options.Traces == nil || err != nil || !ok || len(record.Attempts) == 0 {
		return
	}
	last := record.Attempts[len(record.Attempts)-1]
	r.options.Traces.Note(address.Partition, &trace.Record{
		Event: event, At: cmp.Or(last.Ended, record.Updated), Generation: record.Generation, Effect: effectOf(record, last),
	})
}

func effectOf(record *Record, last deadletter.Attempt) *trace.Effect {
	x := &trace.Effect{
		Observer: record.Effect.Observer, Action: record.Effect.Action,
		Attempt: &trace.Attempt{
			Round: last.Round, Number: last.Number, Started: last.Started, Ended: last.Ended, Status: last.Status, Error: last.Error,
		},
	}
	switch {
	case record.Verdict != nil:
		x.Outcome, x.Reason = trace.Dead, string(record.Verdict.Reason)
	case record.State == Done:
		x.Outcome = trace.Done
	case record.State == Cancelled:
		x.Outcome = trace.Outcome(Cancelled)
	case last.Interrupted: // it begins again at once
		x.Outcome = trace.Again
	default:
		x.Outcome, x.Next = trace.Again, record.Due
	}
	return x
}
