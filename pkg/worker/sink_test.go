package worker_test

import (
	"context"
	"slices"
	"sync"
	"testing"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/events"
)

// call is one attempt that a sink saw.
type call struct {
	worker  *running
	effect  actions.Effect
	request actions.Request
	key     string // the partition key of its event
	at      events.Sequence
	done    bool // it ended without an error
}

// sink is the action of every worker of a rig.
type sink struct {
	answer func(ctx context.Context, c call) error // nil: success

	mu    sync.Mutex
	calls []call
}

type sinkOf struct {
	sink   *sink
	worker *running
}

func (s *sink) of(w *running) actions.Action { return sinkOf{s, w} }

// Do notes the attempt and gives the answer.
func (s sinkOf) Do(ctx context.Context, effect actions.Effect, request actions.Request) (actions.Outcome, error) {
	event, err := events.Parse(request.Body)
	if err != nil {
		return actions.Outcome{}, err
	}
	c := call{worker: s.worker, effect: effect, request: request, key: event.PartitionKey, at: event.Sequence}
	s.sink.mu.Lock()
	n := len(s.sink.calls)
	s.sink.calls = append(s.sink.calls, c)
	answer := s.sink.answer
	s.sink.mu.Unlock()
	if answer != nil {
		err = answer(ctx, c)
	}
	s.sink.mu.Lock()
	defer s.sink.mu.Unlock()
	s.sink.calls[n].done = err == nil
	return actions.Outcome{Status: 200}, err
}

func (s *sink) seen() []call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

func (s *sink) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.calls)
}

func (s *sink) done() int {
	n := 0
	for _, c := range s.seen() {
		if c.done {
			n++
		}
	}
	return n
}

// inOrder checks that the first attempts of each lane began in the order of their events.
func (s *sink) inOrder(t testing.TB) {
	t.Helper()
	last := make(map[[3]string]events.Sequence)
	first := make(map[string]bool)
	for _, c := range s.seen() {
		if first[c.effect.Key] {
			continue
		}
		first[c.effect.Key] = true
		lane := [3]string{c.key, c.effect.Observer, c.effect.Action}
		if c.at.Compare(last[lane]) <= 0 {
			t.Errorf("lane %v: %s began after %s", lane, c.at, last[lane])
		}
		last[lane] = c.at
	}
}

// times gives how often each effect began, by its key.
func (s *sink) times() map[string]int {
	times := make(map[string]int)
	for _, c := range s.seen() {
		times[c.effect.Key]++
	}
	return times
}

// once checks that n effects began, each once.
func (s *sink) once(t testing.TB, n int) {
	t.Helper()
	times := s.times()
	if len(times) != n {
		t.Errorf("%d effects began, want %d", len(times), n)
	}
	for key, n := range times {
		if n != 1 {
			t.Errorf("effect %s began %d times", key, n)
		}
	}
}
