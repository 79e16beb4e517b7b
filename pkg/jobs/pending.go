package jobs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/actions/circuit"
	"github.com/tributary-dev/tributary/pkg/deadletter"
)

// Resolve makes the request of a job whose own is actions.Pending, for the event that came under subject. It errs with
// actions.ErrNotDue, *actions.RenderError, or as an attempt does.
type Resolve func(ctx context.Context, request actions.Request, subject string, event []byte) (actions.Request, error)

// resolve replaces the pending request of an attempt that runs here, and stores that before anything is sent: so every
// attempt that follows sends the same. It says ended where the attempt has ended with it.
func (r *Runner) resolve(p phases, h *held, record *Record, revision uint64) (_ *Record, _ uint64, ended bool) {
	request, failure := r.request(p.working, record)
	if _, unrendered := errors.AsType[*actions.RenderError](failure); unrendered {
		h.pass.Return() // it says nothing of what the lookups ask
	}
	if failure != nil {
		r.conclude(p, h, record, revision, actions.Outcome{}, failure)
		return nil, 0, true
	}
	resolved := *record
	resolved.Request = request
	if _, err := r.store.encode(&resolved); errors.Is(err, ErrInvalid) {
		h.pass.Return()
		r.conclude(p, h, record, revision, actions.Outcome{}, &actions.RenderError{Err: err})
		return nil, 0, true
	}
	now := time.Now().UTC()
	written, at, err := r.write(p.settling, record, revision, func(record *Record) {
		record.Request, record.Started = request, now
	})
	if err != nil {
		r.metrics.executions.WithLabelValues(outcomeLost).Inc()
		r.log.Warn("what a job is to send could not be written", "job", record.ID, "error", err)
		return nil, 0, true
	}
	// The pass was for what the lookups ask. What is sent needs one of its own, or waits as a job that is resolved.
	h.pass.Done(nil)
	pass, answer := r.options.Circuits.Enter(circuit.Name(&request))
	if answer != circuit.Yes {
		r.release(p.settling, h, written, at, now)
		return nil, 0, true
	}
	h.pass = pass
	return written, at, false
}

func (r *Runner) request(ctx context.Context, record *Record) (_ actions.Request, err error) {
	if r.options.Resolve == nil {
		return actions.Request{}, errors.New("this runner was made without lookups")
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("lookups panicked: %v", p)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, record.Request.Timeout)
	defer cancel()
	return r.options.Resolve(ctx, record.Request, record.Subject, record.Event)
}

// reasonOf says under which reason a job dies of which nothing can be rendered.
func reasonOf(err *actions.RenderError) deadletter.Reason {
	if err.Condition {
		return deadletter.Condition
	}
	return deadletter.Render
}
