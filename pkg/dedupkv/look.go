package dedupkv

import (
	"context"
	"errors"
	"fmt"

	"github.com/tributary-dev/tributary/internal/natskv"
	"github.com/tributary-dev/tributary/pkg/events"
)

// Trace is what is on record of one effect.
type Trace struct {
	Result     Result `json:"result,omitempty"` // empty while it is not settled
	Begun      int    `json:"begun,omitempty"`  // how often it was begun
	Worker     string `json:"worker,omitempty"` // who began it last, where that is known
	Generation string `json:"generation,omitempty"`
}

// Look reads what is on record of an effect of an event of a partition, by its key: in the partition's ledger, or in a
// record of its own. It changes nothing; false where nothing is.
func (s *Store) Look(ctx context.Context, partition int, key string) (Trace, bool, error) {
	trace, there, err := s.lookLedger(ctx, partition, IDOf(key))
	if err == nil && !there {
		trace, there, err = s.lookRecord(ctx, key)
	}
	if err != nil {
		return Trace{}, false, fmt.Errorf("look at %s: %w", key, err)
	}
	return trace, there, nil
}

func (s *Store) lookLedger(ctx context.Context, partition int, id ID) (Trace, bool, error) {
	key := ledgerKey(partition)
	there, err := s.bucket.Get(ctx, key)
	if errors.Is(err, natskv.ErrNotFound) {
		return Trace{}, false, nil
	}
	if err != nil {
		return Trace{}, false, err
	}
	h, err := decodeHead(there.Value, partition)
	if err != nil {
		return Trace{}, false, fmt.Errorf("decode %s: %w", key, err)
	}
	if b, ok := h.state.open[id]; ok {
		trace := Trace{Begun: b.begun, Generation: b.generation}
		if b.mine {
			trace.Worker = h.owner.Worker
		}
		return trace, true, nil
	}
	if result, ok := h.state.settled[id]; ok {
		return Trace{Result: result}, true, nil
	}
	for _, g := range h.state.segments {
		stored, err := s.bucket.Get(ctx, key+"."+g.name)
		if errors.Is(err, natskv.ErrNotFound) {
			continue
		}
		if err != nil {
			return Trace{}, false, err
		}
		settled, err := decodeSegment(stored.Value)
		if err != nil {
			return Trace{}, false, fmt.Errorf("decode %s.%s: %w", key, g.name, err)
		}
		if result, ok := settled[id]; ok {
			return Trace{Result: result}, true, nil
		}
	}
	return Trace{}, false, nil
}

func (s *Store) lookRecord(ctx context.Context, key string) (Trace, bool, error) {
	there, err := s.bucket.Get(ctx, events.KVKey(key))
	if errors.Is(err, natskv.ErrNotFound) {
		return Trace{}, false, nil
	}
	if err != nil {
		return Trace{}, false, err
	}
	r, err := decodeRecord(there.Value)
	if err != nil {
		return Trace{}, false, err
	}
	return Trace{Result: r.result, Begun: r.begun, Worker: r.worker, Generation: r.generation}, true, nil
}
