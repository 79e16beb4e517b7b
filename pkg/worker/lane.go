package worker

import (
	"slices"
	"sync"
	"time"
)

// A lane is the effects of one key, observer and action. One of them is under way at a time, in the order in which they
// came. An effect without an order has a lane to itself.
type laneKey struct {
	key, observer, action string
	sole                  uint64 // the stream sequence, where the effect is alone in its lane; else 0
}

type lane struct {
	set     *laneSet
	key     laneKey
	waiting fifo[*effect]
	taken   bool // its first effect was given out, and has not come back
	listed  bool // in the ready list of an endpoint
	paused  bool // until its timer fires
	gone    bool // from its set
}

// laneSet is the lanes of one partition. It is guarded by the scheduler's lock.
type laneSet struct{ lanes map[laneKey]*lane }

// endpoint is what shares a part of the slots: usually an origin that requests go to.
type endpoint struct {
	name   string
	busy   int
	ready  fifo[*lane] // lanes whose first effect needs this endpoint
	listed bool        // in the scheduler's ring
	paused bool        // until its timer fires: its rate is used up
}

// pacer is circuit.Circuits.
type pacer interface {
	// Most gives how many calls of an endpoint may be under way.
	Most(endpoint string, slots int) int
	// Take takes one call from the endpoint's rate, or tells how long to wait for one.
	Take(endpoint string) time.Duration
}

// scheduler gives out a fixed number of slots to effects. A slot is a goroutine: there is one for each effect under
// way, and none for those that wait.
//
// An endpoint may hold at most twice as many slots as are free, by the dynamic thresholds of Choudhury and Hahne
// (1998): one that hangs ends at two thirds of them, several share, and some are always left for the others.
type scheduler struct {
	slots int
	// run takes an effect through its stages; an answer above 0 asks for it to be run again, before all others of its
	// lane, after so long. An answer of unrecorded gives its slot back alone, and its lane with free.
	run func(*effect) time.Duration
	// pace bounds what endpoints are asked for; nil: nothing does.
	pace pacer

	mu        sync.Mutex
	busy      int
	lanes     int
	endpoints map[string]*endpoint
	ring      fifo[*endpoint] // those with ready lanes, in turn
	closed    bool
	running   sync.WaitGroup
}

func newScheduler(slots int, run func(*effect) time.Duration) *scheduler {
	return &scheduler{slots: slots, run: run, endpoints: make(map[string]*endpoint)}
}

// add puts effects into their lanes, behind all that are there.
func (s *scheduler) add(set *laneSet, effects ...*effect) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range effects {
		l, ok := set.lanes[x.lane]
		if !ok {
			l = &lane{set: set, key: x.lane}
			if set.lanes == nil {
				set.lanes = make(map[laneKey]*lane)
			}
			set.lanes[x.lane] = l
			s.lanes++
		}
		x.in = l
		l.waiting.push(x)
		s.list(l)
	}
	s.dispatch()
}

// drop takes all effects that have not been given out from the lanes of set.
func (s *scheduler) drop(set *laneSet) []*effect {
	s.mu.Lock()
	defer s.mu.Unlock()
	var dropped []*effect
	for _, l := range set.lanes {
		dropped = append(dropped, l.waiting.take()...)
		s.tidy(l)
	}
	return dropped
}

// pull takes those effects from the lanes of set that have not been given out and are wanted, in order.
func (s *scheduler) pull(set *laneSet, wanted func(*effect) bool) []*effect {
	s.mu.Lock()
	defer s.mu.Unlock()
	var pulled []*effect
	for _, l := range set.lanes {
		if !slices.ContainsFunc(l.waiting.items[l.waiting.head:], wanted) {
			continue
		}
		for _, x := range l.waiting.take() {
			if wanted(x) {
				pulled = append(pulled, x)
			} else {
				l.waiting.push(x)
			}
		}
		s.tidy(l)
	}
	return pulled
}

// load tells how many slots are taken, and how many lanes there are.
func (s *scheduler) load() (busy, lanes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.busy, s.lanes
}

// close begins no effect any more, and blocks until none is under way.
func (s *scheduler) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.running.Wait()
}

// list puts a lane whose first effect may begin among the ready ones of that effect's endpoint.
func (s *scheduler) list(l *lane) {
	if l.taken || l.listed || l.paused || l.waiting.len() == 0 {
		return
	}
	l.listed = true
	name := l.waiting.first().endpoint
	e, ok := s.endpoints[name]
	if !ok {
		e = &endpoint{name: name}
		s.endpoints[name] = e
	}
	e.ready.push(l)
	if !e.listed {
		e.listed = true
		s.ring.push(e)
	}
}

// tidy forgets a lane with nothing in it.
func (s *scheduler) tidy(l *lane) {
	if !l.taken && !l.listed && !l.paused && l.waiting.len() == 0 && !l.gone {
		l.gone = true
		delete(l.set.lanes, l.key)
		s.lanes--
	}
}

// next takes the effect that may begin now, if there is one.
func (s *scheduler) next() *effect {
	for full := 0; !s.closed && full < s.ring.len() && s.busy < s.slots; {
		e := s.ring.pop()
		if e.busy > 0 && e.busy >= 2*(s.slots-s.busy) || !s.paced(e) {
			s.ring.push(e)
			full++
			continue
		}
		x := s.nextOf(e)
		e.listed = e.ready.len() > 0
		if e.listed {
			s.ring.push(e)
		}
		if x != nil {
			e.busy++
			s.busy++
			return x
		}
		s.tidyEndpoint(e)
	}
	return nil
}

// paced tells whether the endpoint's limits leave room for a call.
func (s *scheduler) paced(e *endpoint) bool {
	if s.pace == nil || e.name == endpointOwn {
		return true
	}
	if e.paused || e.busy > 0 && e.busy >= s.pace.Most(e.name, s.slots) {
		return false
	}
	left := s.pace.Take(e.name)
	if left <= 0 {
		return true
	}
	e.paused = true
	time.AfterFunc(left, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		e.paused = false
		s.tidyEndpoint(e)
		s.dispatch()
	})
	return false
}

func (s *scheduler) nextOf(e *endpoint) *effect {
	for e.ready.len() > 0 {
		l := e.ready.pop()
		l.listed = false
		switch {
		case l.waiting.len() == 0: // dropped meanwhile
			s.tidy(l)
		case l.waiting.first().endpoint != e.name: // dropped, and filled again
			s.list(l)
		default:
			l.taken = true
			return l.waiting.pop()
		}
	}
	return nil
}

func (s *scheduler) tidyEndpoint(e *endpoint) {
	if e.busy == 0 && !e.listed && !e.paused {
		delete(s.endpoints, e.name)
	}
}

// dispatch begins what may begin.
func (s *scheduler) dispatch() {
	for x := s.next(); x != nil; x = s.next() {
		s.running.Go(func() { s.work(x) })
	}
}

// work goes on with the next effect in the same goroutine for as long as there is one for it.
func (s *scheduler) work(x *effect) {
	for x != nil {
		x = s.release(x, s.run(x))
	}
}

// release gives x's slot back and takes the next effect for it.
func (s *scheduler) release(x *effect, again time.Duration) *effect {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy--
	e := s.endpoints[x.endpoint]
	e.busy--
	l := x.in
	if again > 0 {
		l.waiting.pushFront(x)
		s.pause(l, again)
	}
	if again != unrecorded {
		s.leave(l)
	}
	s.tidyEndpoint(e)
	following := s.next()
	s.dispatch()
	return following
}

// unrecorded is the answer of run for an effect that has ended and is not on record. The next one of its lane waits
// for that: where this worker dies, no more than the last of a lane comes again, so that nobody sees its entity go back.
const unrecorded = time.Duration(-1)

// free gives back the lane of an effect whose slot was given back before.
func (s *scheduler) free(x *effect) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leave(x.in)
	s.dispatch()
}

// leave lets the next effect of a lane begin.
func (s *scheduler) leave(l *lane) {
	l.taken = false
	s.list(l)
	s.tidy(l)
}

// pause keeps a lane from beginning for a while.
func (s *scheduler) pause(l *lane, d time.Duration) {
	l.paused = true
	time.AfterFunc(d, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		l.paused = false
		s.list(l)
		s.tidy(l)
		s.dispatch()
	})
}
