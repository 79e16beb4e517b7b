package generations

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tributary-dev/tributary/internal/natskv"
	"github.com/tributary-dev/tributary/pkg/observers"
)

// Rules are the observers in force, as they change. They are safe for concurrent use.
type Rules struct {
	store *Store
	log   *slog.Logger
	set   atomic.Pointer[observers.Set]

	mu      sync.Mutex
	number  uint64                    // of set; 0 where none was ever applied; guarded by mu
	earlier map[string]*observers.Set // by generation; guarded by mu
}

// remembered is how many generations before the one in force are kept in memory.
const remembered = 3

// Follow reads the observers in force; none where none were ever applied. Run keeps them up to date.
func (s *Store) Follow(ctx context.Context, log *slog.Logger) (*Rules, error) {
	empty, err := observers.Parse("no observers", []byte("observers: []\n"))
	if err != nil {
		return nil, err
	}
	r := &Rules{store: s, log: log, earlier: make(map[string]*observers.Set)}
	r.set.Store(empty)
	current, err := s.Current(ctx)
	switch {
	case errors.Is(err, ErrNone):
		log.Warn("no observers have been applied: events are acknowledged and nothing is done; " +
			"`tributary observers apply FILE`, or name a file in the key observers")
		return r, nil
	case err != nil:
		return nil, err
	}
	return r, r.follow(ctx, current)
}

// Current gives the generation in force.
func (r *Rules) Current() *observers.Set { return r.set.Load() }

// At gives an older generation; false where it is not known any more.
func (r *Rules) At(generation string) (*observers.Set, bool) {
	if set := r.set.Load(); set.Generation() == generation {
		return set, true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	set, ok := r.earlier[generation]
	return set, ok
}

// Run follows until ctx ends; it returns nil then. A generation that can't be read is logged, and the one before stays.
func (r *Rules) Run(ctx context.Context) error {
	for {
		err := r.store.bucket.Watch(ctx, keyCurrent, func(c *natskv.Change) error {
			if c == nil || c.Removed {
				return nil
			}
			current, err := decodeCurrent(c.Entry.Value)
			if err != nil {
				return err
			}
			return r.follow(ctx, current)
		})
		if ctx.Err() != nil {
			return nil
		}
		r.log.Warn("observers are not followed; it is tried again", "err", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

// follow swaps to a generation, unless it is in force already.
func (r *Rules) follow(ctx context.Context, current Current) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if current.Number <= r.number {
		return nil
	}
	set, err := r.store.load(ctx, Earlier{current.Number, current.Generation})
	if err != nil {
		return err
	}
	before := r.set.Load()
	known := map[string]*observers.Set{before.Generation(): before}
	for _, earlier := range current.Previous[:min(remembered, len(current.Previous))] {
		if was, ok := r.earlier[earlier.Generation]; ok {
			known[earlier.Generation] = was
		} else if _, ok := known[earlier.Generation]; !ok {
			if was, err := r.store.load(ctx, earlier); err == nil {
				known[earlier.Generation] = was
			}
		}
	}
	r.number, r.earlier = current.Number, known
	r.set.Store(set)
	r.log.Info("observers are in force", "observers", len(set.Observers()), "generation", set.Generation(), "number", current.Number,
		"applied", current.Applied, "by", current.By)
	return nil
}
