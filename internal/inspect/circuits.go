package inspect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/internal/natskv"
	"github.com/tributary-dev/tributary/pkg/actions/circuit"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/worker"
)

// Circuit is one that is, or lately was, not closed, or that effects wait for.
type Circuit struct {
	circuit.View
	Parked int                  `json:"parked"`                // about how many effects wait in ranges of EVENTS
	Oldest time.Time            `json:"parked_since,omitzero"` // when EVENTS took the first event that waits
	Ranges []worker.ParkedRange `json:"parked_ranges"`         // by partition, observer and action
}

// Circuits lists them, those that are not closed first.
func (s *System) Circuits(ctx context.Context) ([]Circuit, error) {
	views, err := circuit.List(ctx, natskv.Open(s.JS, events.BucketCircuits))
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		return nil, fmt.Errorf("%w (bucket %s)", ErrNotSetUp, events.BucketCircuits)
	}
	if err != nil {
		return nil, err
	}
	ranges, err := worker.ParkedRanges(ctx, s.JS)
	if err != nil {
		return nil, err
	}
	list := []Circuit{}
	at := make(map[string]int)
	add := func(v circuit.View) {
		at[v.Name] = len(list)
		list = append(list, Circuit{View: v, Ranges: []worker.ParkedRange{}})
	}
	for _, v := range views {
		add(v)
	}
	for _, r := range ranges {
		if _, known := at[r.Circuit]; !known {
			add(circuit.View{Name: r.Circuit, State: circuit.Closed})
		}
		c := &list[at[r.Circuit]]
		c.Parked += r.Events
		c.Ranges = append(c.Ranges, r)
		if c.Oldest.IsZero() || !r.Since.IsZero() && r.Since.Before(c.Oldest) {
			c.Oldest = r.Since
		}
	}
	rank := func(c Circuit) int {
		switch {
		case c.State != circuit.Closed:
			return 0
		case len(c.Ranges) > 0:
			return 1
		default:
			return 2
		}
	}
	slices.SortStableFunc(list, func(a, b Circuit) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(a.Name, b.Name))
	})
	return list, nil
}

// ForceCircuit opens a circuit for so long, or where that is 0 until it is reset.
func (s *System) ForceCircuit(ctx context.Context, name, by string, long time.Duration) error {
	return circuit.Force(ctx, natskv.Open(s.JS, events.BucketCircuits), name, by, long)
}

// ResetCircuit closes a circuit. It errs with ErrNotFound where none of the name is, or lately was, open.
func (s *System) ResetCircuit(ctx context.Context, name, by string) error {
	list, err := s.Circuits(ctx)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(list, func(c Circuit) bool { return c.Name == name }) {
		return fmt.Errorf("circuit %s: %w: `tributary circuits list` has those that are open", name, ErrNotFound)
	}
	return circuit.Reset(ctx, natskv.Open(s.JS, events.BucketCircuits), name, by)
}
