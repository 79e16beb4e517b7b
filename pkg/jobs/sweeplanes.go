package jobs

import (
	"context"
	"strings"
	"time"
)

// openLanes is what a sweep needs to know of lanes: about 300 bytes for each job that is parked, or holds its lane. As a
// lane goes on by itself, a sweep has to look only at what somebody who died left undone, and at dead letters that were
// removed by other means than Tributary's own. So it looks at a lane after a change, and then ever more rarely.
type openLanes struct {
	jobs    map[string]openPlace // by id: those that are parked, or hold their lane
	entries map[string]struct{}  // ids of which an entry was read, until their jobs have ended
	lanes   map[string]*openLane // by key: those of jobs
}

type openPlace struct {
	lane  *Lane
	holds bool
}

type openLane struct {
	lane     *Lane
	jobs     int // parked, or holding
	holding  int
	changed  time.Time
	looks    int // since it changed
	notUntil time.Time
}

// rarest is the most doublings of the time between two looks at one lane: 11 minutes at 10 s.
const rarest = 6

func (o *openLanes) noteEntry(id string) {
	if o.entries == nil {
		o.entries = make(map[string]struct{})
	}
	o.entries[id] = struct{}{}
}

// note takes in how a job stands.
func (o *openLanes) note(record *Record) {
	if was, there := o.jobs[record.ID]; there {
		o.count(was, -1)
		delete(o.jobs, record.ID)
	}
	if record.gone() {
		delete(o.entries, record.ID)
	}
	if record.Lane == nil || record.State != Parked && !record.holds() {
		return
	}
	if o.jobs == nil {
		o.jobs, o.lanes = make(map[string]openPlace), make(map[string]*openLane)
	}
	place := openPlace{lane: record.Lane, holds: record.holds()}
	o.jobs[record.ID] = place
	o.count(place, 1)
}

func (o *openLanes) count(place openPlace, by int) {
	l := o.lanes[place.lane.Key]
	if l == nil {
		l = &openLane{lane: place.lane}
		o.lanes[place.lane.Key] = l
	}
	l.jobs += by
	if place.holds {
		l.holding += by
	}
	l.changed, l.looks, l.notUntil = time.Now(), 0, time.Time{}
	if l.jobs == 0 {
		delete(o.lanes, place.lane.Key)
	}
}

// sweepLanes mends what is left undone in lanes that have not changed for a while.
func (s *sweeper) sweepLanes(ctx context.Context, now time.Time) error {
	held := 0
	for _, l := range s.lanes.lanes {
		if l.holding > 0 {
			held++
		}
	}
	s.store.metrics.lanesHeld.Set(float64(held))
	s.store.metrics.parked.Set(float64(len(s.lanes.jobs)))
	for id, place := range s.lanes.jobs {
		if _, there := s.lanes.entries[id]; there || now.Before(s.lanes.lanes[place.lane.Key].changed.Add(s.margin)) {
			continue
		}
		if err := ignore(s.store.Resume(ctx, id), ErrNotFound); err != nil {
			return err
		}
	}
	for _, l := range s.lanes.lanes {
		if now.Before(l.changed.Add(s.margin)) || now.Before(l.notUntil) {
			continue
		}
		if err := s.store.mend(ctx, l.lane); err != nil {
			return err
		}
		l.notUntil = now.Add(s.every << min(l.looks, rarest))
		l.looks++
	}
	return nil
}

// entryID gives the id that an entry of a lane holds.
func entryID(subject string, value []byte) (id string, is bool) {
	return string(value), strings.HasPrefix(subject, kvSubjects+lanePrefix) && len(value) > 0
}
