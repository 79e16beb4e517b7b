package observers

import (
	"encoding/json"
	"errors"
	"fmt"
)

// ErrNoObserver says that a set has no observer of a name.
var ErrNoObserver = errors.New("there is no such observer")

// Paused tells whether what an observer is to do waits. One that is not there is not paused.
func (s *Set) Paused(observer string) bool { return s.paused[observer] }

// SetPaused gives a set that differs in whether one observer is paused. It errs with ErrNoObserver.
func (s *Set) SetPaused(observer string, paused bool) (*Set, error) {
	var source struct {
		Observers []map[string]json.RawMessage `json:"observers"`
	}
	if err := json.Unmarshal(s.source, &source); err != nil {
		return nil, fmt.Errorf("read the canonical form of observers: %w", err)
	}
	found := false
	for i, o := range s.observers {
		if o.Name != observer {
			continue
		}
		found = true
		delete(source.Observers[i], "paused")
		if paused {
			source.Observers[i]["paused"] = json.RawMessage("true")
		}
	}
	if !found {
		return nil, fmt.Errorf("%w: %s", ErrNoObserver, observer)
	}
	text, err := marshal(source)
	if err != nil {
		return nil, fmt.Errorf("write observers: %w", err)
	}
	return Parse("observers", text)
}

func pausedOf(list []*Observer) map[string]bool {
	var paused map[string]bool
	for _, o := range list {
		if o.Paused {
			if paused == nil {
				paused = make(map[string]bool)
			}
			paused[o.Name] = true
		}
	}
	return paused
}
