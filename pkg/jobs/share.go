package jobs

import (
	"context"
	"slices"
	"sync"

	"github.com/tributary-dev/tributary/pkg/actions/circuit"
)

// shares keeps any one endpoint from taking all the slots: a hung one delays only what needs it.
type shares struct {
	most     int
	circuits *circuit.Circuits // may allow less of an endpoint

	mu  sync.Mutex
	all map[string]*share // by endpoint, while it is used; guarded by mu, with what it holds
}

type share struct {
	used    int
	waiting []chan struct{} // first come, first served; closed when the place is given
}

func newShares(concurrency int, circuits *circuit.Circuits) *shares {
	return &shares{most: max(1, concurrency/2), circuits: circuits, all: make(map[string]*share)}
}

// try takes a place of the endpoint, if one is free. The empty endpoint is none, and has places without end.
func (s *shares) try(endpoint string) bool {
	if endpoint == "" {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tryLocked(endpoint) != nil
}

func (s *shares) tryLocked(endpoint string) *share {
	e := s.all[endpoint]
	if e == nil {
		e = new(share)
		s.all[endpoint] = e
	}
	if e.used >= s.circuits.Most(endpoint, s.most) {
		return nil
	}
	e.used++
	return e
}

// take waits for a place of the endpoint. It says no when ctx ended first.
func (s *shares) take(ctx context.Context, endpoint string) bool {
	s.mu.Lock()
	if s.tryLocked(endpoint) != nil {
		s.mu.Unlock()
		return true
	}
	e, given := s.all[endpoint], make(chan struct{})
	e.waiting = append(e.waiting, given)
	s.mu.Unlock()
	select {
	case <-given:
		return true
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(e.waiting, given); i >= 0 {
		e.waiting = slices.Delete(e.waiting, i, i+1)
	} else {
		s.leaveLocked(endpoint) // it was given meanwhile
	}
	return false
}

// leave gives a place back, to who waits longest.
func (s *shares) leave(endpoint string) {
	if endpoint == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leaveLocked(endpoint)
}

func (s *shares) leaveLocked(endpoint string) {
	e := s.all[endpoint]
	if len(e.waiting) > 0 {
		close(e.waiting[0])
		e.waiting = e.waiting[1:]
		return
	}
	if e.used--; e.used == 0 {
		delete(s.all, endpoint)
	}
}
