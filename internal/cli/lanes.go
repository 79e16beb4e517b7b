package cli

import (
	"context"
	"errors"

	"github.com/tributary-dev/tributary/pkg/jobs"
)

// queues tells which job the ones of a lane wait for. It asks once for each lane.
type queues struct {
	jobs  *jobs.Store
	first map[string]string // by lane
}

// behind gives the id of the job that is first in the lane of one that waits its turn; empty where it waits for none.
func (q *queues) behind(ctx context.Context, r *jobs.Record) (string, error) {
	if r.State != jobs.Parked || r.Lane == nil {
		return "", nil
	}
	id, known := q.first[r.Lane.Key]
	if !known {
		var err error
		if id, err = q.jobs.First(ctx, r.Lane); err != nil && !errors.Is(err, jobs.ErrNotFound) {
			return "", err
		}
		if q.first == nil {
			q.first = make(map[string]string)
		}
		q.first[r.Lane.Key] = id
	}
	if id == r.ID {
		return "", nil // its turn has just come
	}
	return id, nil
}

// remark is what a table says of a job at the end of its line.
func remark(r *jobs.Record, behind string) string {
	if behind != "" {
		return "behind " + short(behind)
	}
	return lastError(r)
}

// laneText says what a job has to do with those of its lane.
func laneText(r *jobs.Record, behind string) string {
	switch {
	case behind != "":
		return "in order, waits behind " + short(behind) + " (" + behind + ")"
	case r.State == jobs.Dead && r.Lane.WhenDead == jobs.Park:
		return "in order; later ones of its key wait until its dead letter is retried or removed, or it is cancelled"
	case r.Lane.WhenDead == jobs.Park:
		return "in order; if it dies, later ones of its key wait until its dead letter is retried or removed"
	default:
		return "in order; if it dies, later ones of its key go on"
	}
}
