package jobs

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/actions/circuit"
	"github.com/tributary-dev/tributary/pkg/deadletter"
)

// A job whose circuit is open is deferred: its record names the circuit, its ticket goes, and nothing is charged. So a
// million of them cost nothing while the endpoint is down. The sweeper, which knows every job that is not settled, gives
// them tickets again: a few for probes, and when the circuit has closed the oldest first, more each second.

// errDeferredLong is why a job dies that was deferred for too long.
var errDeferredLong = errors.New("its circuit stayed open for longer than circuits.park_max_age")

const (
	laterPause = 50 * time.Millisecond  // before a runner asks again whether it probes
	rateSpread = 250 * time.Millisecond // over which those that wait for a rate ask again

	deferredEvery = time.Second // between sweeps while jobs are deferred
	firstRelease  = 16          // tickets of one circuit in the first sweep after it has closed; twice as many in each that follows
	mostRelease   = 8192
	probeTickets  = 5
)

// shareOf names what a job shares places with others by.
func shareOf(r *actions.Request) string { return cmp.Or(r.Circuit, r.Endpoint) }

// defers tells whether the job may not begin now, and sees to it that it comes again.
func (r *Runner) defers(p phases, h *held, record *Record, revision uint64, now time.Time) (ended, waits bool) {
	if observer := record.Effect.Observer; r.options.Rests.of(observer) {
		return r.put(p.settling, h, record, revision, resting+observer, now), true
	}
	name := circuit.Name(&record.Request)
	if r.options.Circuits.Shut(name) {
		return r.put(p.settling, h, record, revision, name, now), true
	}
	if !r.place(h, record) {
		return r.yield(p.settling, h, record), true
	}
	pass, answer := r.options.Circuits.Enter(name)
	switch answer {
	case circuit.No:
		return r.put(p.settling, h, record, revision, name, now), true
	case circuit.Later:
		h.due = now.Add(laterPause)
		return false, true
	case circuit.Yes:
	}
	if wait := r.options.Circuits.Take(shareOf(&record.Request)); wait > 0 {
		pass.Return()
		h.due = now.Add(wait + time.Duration(r.options.Random()*float64(rateSpread)))
		if h.postpone {
			return r.yield(p.settling, h, record), true
		}
		return false, true
	}
	h.pass = pass
	return false, false
}

// put defers the job, or lets it die where it has been deferred for too long.
func (r *Runner) put(ctx context.Context, h *held, record *Record, revision uint64, name string, now time.Time) (ended bool) {
	next := *record
	switch {
	case record.State == Running: // only the ticket that it runs by can take it over
		r.nakLater(h, troubled)
		return true
	case !strings.HasPrefix(name, resting) && !record.DeferredSince.IsZero() && now.Sub(record.DeferredSince) > r.options.ParkMaxAge:
		next.condemn(deadletter.Exhausted, errDeferredLong.Error(), now)
		revision, err := r.store.update(ctx, &next, revision, 0)
		if err != nil {
			return r.unwritten(h, err)
		}
		return r.carryOut(ctx, h, &next, revision)
	case record.Deferred == name:
	default:
		next.Deferred, next.Updated = name, now
		if next.DeferredSince.IsZero() {
			next.DeferredSince = now
		}
		if _, err := r.store.update(ctx, &next, revision, 0); err != nil {
			return r.unwritten(h, err)
		}
	}
	r.metrics.deferred.Inc()
	r.ack(h)
	return true
}

// release writes tickets for jobs that were deferred, as far as their circuits allow. It tells whether any are left.
func (s *sweeper) release(ctx context.Context, now time.Time) (left bool, err error) {
	byCircuit := make(map[string][]string) // ids
	for id, job := range s.open {
		if job.deferred != "" {
			byCircuit[job.deferred] = append(byCircuit[job.deferred], id)
		}
	}
	s.store.metrics.waitingFor.Set(float64(s.deferredCount(byCircuit)))
	maps.DeleteFunc(s.released, func(name string, _ int) bool { return len(byCircuit[name]) == 0 })
	for name, ids := range byCircuit {
		slices.SortFunc(ids, func(a, b string) int { return s.open[a].deadline.Compare(s.open[b].deadline) })
		if observer, is := strings.CutPrefix(name, resting); is && s.rests.of(observer) {
			delete(s.released, name)
			continue
		}
		budget := probeTickets
		var wanted func(*openJob) bool
		switch {
		case s.circuits.Shut(name):
			delete(s.released, name)
			wanted = func(job *openJob) bool { return now.Sub(job.deferredSince) > s.parkMaxAge }
			budget = mostRelease
		case s.circuits.State(name) == circuit.Closed:
			budget = min(cmp.Or(2*s.released[name], firstRelease), mostRelease)
			s.released[name] = budget
		}
		for _, id := range ids {
			job := s.open[id]
			if budget == 0 {
				break
			}
			if wanted != nil && !wanted(job) || now.Before(job.notUntil) {
				continue
			}
			budget--
			if err := s.ticket(ctx, id, job, now); err != nil {
				return true, err
			}
		}
	}
	return len(byCircuit) > 0, nil
}

func (s *sweeper) deferredCount(byCircuit map[string][]string) int {
	n := 0
	for _, ids := range byCircuit {
		n += len(ids)
	}
	return n
}
