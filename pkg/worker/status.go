package worker

import (
	"cmp"
	"slices"
	"time"
)

// Status is a live view of a worker.
type Status struct {
	ID         string            `json:"id"`
	InFlight   int               `json:"in_flight"` // effects that have a slot
	Lanes      int               `json:"lanes"`
	Known      bool              `json:"known"`      // the other workers count on this one
	Workers    int               `json:"workers"`    // that share the partitions, as far as this one hears; it counts itself
	Partitions []PartitionStatus `json:"partitions"` // that are assigned, in order
}

// PartitionStatus is a live view of one partition.
type PartitionStatus struct {
	Partition int  `json:"partition"`
	Held      bool `json:"held"`      // the server has pinned it to this worker, or will with its next event
	Events    int  `json:"events"`    // in hand
	Bytes     int  `json:"bytes"`     // of those that are not settled
	InFlight  int  `json:"in_flight"` // effects that are begun

	Why string `json:"why,omitempty"` // it could not be held the last time; empty once it is
}

// Status gives a live view. It is safe for concurrent use.
func (w *Worker) Status() Status {
	s := Status{ID: w.options.ID, Known: w.members.known(), Workers: len(w.members.live()), Partitions: []PartitionStatus{}}
	s.InFlight, s.Lanes = w.scheduler.load()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range w.partitions {
		if !a.over() {
			s.Partitions = append(s.Partitions, a.status())
		}
	}
	slices.SortFunc(s.Partitions, func(a, b PartitionStatus) int { return cmp.Compare(a.Partition, b.Partition) })
	return s
}

func (p *partition) status() PartitionStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	return PartitionStatus{
		Partition: p.number, Held: p.first || p.hold != nil && p.hold.sure(), Events: len(p.entries), Bytes: p.bytes, InFlight: len(p.running),
		Why: p.why,
	}
}

// measure sets the gauges.
func (w *Worker) measure() {
	_, lanes := w.scheduler.load()
	w.metrics.lanes.Set(float64(lanes))
	w.mu.Lock()
	defer w.mu.Unlock()
	held, waiting, ranges, above := 0, 0, 0, 0
	oldest := 0.0
	for _, a := range w.partitions {
		if a.status().Held {
			held++
		}
		effects, number, since := a.parkedLoad()
		waiting, ranges = waiting+effects, ranges+number
		if !since.IsZero() {
			oldest = max(oldest, time.Since(since).Seconds())
		}
		a.partition.mu.Lock()
		above += a.above()
		a.partition.mu.Unlock()
	}
	w.metrics.waiting.Set(float64(waiting))
	w.metrics.ranges.Set(float64(ranges))
	w.metrics.oldest.Set(oldest)
	w.metrics.partitions.Set(float64(held))
	w.metrics.above.Set(float64(above))
}
