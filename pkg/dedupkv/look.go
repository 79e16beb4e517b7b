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
	Worker     string `json:"worker,omitempty"` // who began it last
	Generation string `json:"generation,omitempty"`
}

// Look reads what is on record of an effect, by its key, and changes nothing; false where nothing is.
func (s *Store) Look(ctx context.Context, key string) (Trace, bool, error) {
	there, err := s.bucket.Get(ctx, events.KVKey(key))
	if errors.Is(err, natskv.ErrNotFound) {
		return Trace{}, false, nil
	}
	if err != nil {
		return Trace{}, false, fmt.Errorf("look at %s: %w", key, err)
	}
	r, err := decodeRecord(there.Value)
	if err != nil {
		return Trace{}, false, fmt.Errorf("look at %s: %w", key, err)
	}
	return Trace{Result: r.result, Begun: r.begun, Worker: r.worker, Generation: r.generation}, true, nil
}
