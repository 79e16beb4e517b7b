package worker

import (
	"context"
	"errors"

	"github.com/tributary-dev/tributary/pkg/deadletter"
	"github.com/tributary-dev/tributary/pkg/jobs"
	"github.com/tributary-dev/tributary/pkg/observers"
)

// A lane whose order is strict is continued in JOBS as soon as one of its effects did not succeed here: those that follow
// are handed over in their order, and wait their turn there, until all of the lane in JOBS have ended. Only the holder of
// the partition hands over, one effect of a lane after the other, so what is not in JOBS when it looks does not come.

// laneOf gives the lane of jobs in which an action's effects are to wait for one another; nil for none.
func laneOf(o *observers.Observer, action string, e *entry) *jobs.Lane {
	if o.Order != observers.OrderStrict {
		return nil
	}
	return jobs.LaneOf(e.address.Source, e.event.PartitionKey, o.Name, action, jobs.WhenDead(o.WhenDead))
}

// waits tells whether the effect has to wait behind others of its lane.
func (w *Worker) waits(x *effect) (bool, error) {
	if x.due.lane == nil {
		return false, nil
	}
	err := w.insist(func(ctx context.Context) error {
		_, err := w.jobs.First(ctx, x.due.lane)
		return err
	}, jobs.ErrNotFound)
	if errors.Is(err, jobs.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// hold makes later effects of its lane wait for one that has died here, whose dead letter is the one at a sequence.
func (w *Worker) hold(x *effect, reason deadletter.Reason, cause error, letter uint64) error {
	d := x.due
	if d.lane == nil || d.lane.WhenDead != jobs.Park {
		return nil
	}
	err := w.insist(func(ctx context.Context) error {
		return w.jobs.Hold(ctx, jobs.New{
			Effect: x.name(), Request: d.request, Policy: d.policy, OnFailure: d.onFailure, Generation: d.generation,
			Subject: x.entry.subject, Lane: d.lane,
		}, reason, cause.Error(), letter)
	}, jobs.ErrInvalid)
	if errors.Is(err, jobs.ErrInvalid) {
		w.log.Error("effect has failed, and later ones do not wait for it", "effect", x.key, "problem", err)
		return nil
	}
	return err
}
