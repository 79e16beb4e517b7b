// Package dedupkv remembers in KV dedup which effects are claimed and which are settled, and how far the events of each
// partition are settled.
//
// It promises that of those who claim an effect at the same time one has it, that what was settled is told to whoever
// claims it later, and that a watermark never goes back. It relies on whoever claims to hold the effect's partition:
// an unsettled claim of another owner is taken over at once. It executes nothing.
//
// There are two ways to keep claims. A Ledger holds those of a whole partition in one record, and writes them in groups:
// it is for effects that come in one partition alone. A Store has a record for each effect, wherever it comes: one lives
// for Hold, which outlasts every redelivery, until the saved watermark has passed its event; Forget shortens it to Window
// then.
package dedupkv

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tributary-dev/tributary/internal/natskv"
	"github.com/tributary-dev/tributary/pkg/events"
)

// MostBegun is how often an effect is begun without an end before it counts as crashed.
const MostBegun = 3

// ErrLost says that another owner has taken the claim over.
var ErrLost = errors.New("claim was taken over")

// Options are what a Store may be given.
type Options struct {
	Window time.Duration // how long Forget keeps a record; 5 min where it is 0
	Hold   time.Duration // how long a record is kept without Forget; 24 h where it is 0
}

// Store is claims, records and watermarks. It is safe for concurrent use. While NATS is away its methods wait, until
// ctx ends.
type Store struct {
	bucket  *natskv.Bucket
	options Options
}

// New gives a Store on KV dedup, which must exist when it is used.
func New(bucket *natskv.Bucket, options Options) (*Store, error) {
	if options.Window == 0 {
		options.Window = 5 * time.Minute
	}
	if options.Hold == 0 {
		options.Hold = max(24*time.Hour, options.Window)
	}
	switch {
	case options.Window < time.Second:
		return nil, fmt.Errorf("dedup.window must be at least 1s, got %s", options.Window)
	case options.Hold < options.Window:
		return nil, fmt.Errorf("dedup.hold must be at least dedup.window (%s), got %s", options.Window, options.Hold)
	}
	return &Store{bucket: bucket, options: options}, nil
}

// Owner says who begins an effect: a worker, under a pin of the effect's partition.
type Owner struct {
	Worker string
	Pin    string
}

// State says what a claim found.
type State int

// The states of a claim.
const (
	Fresh     State = iota + 1 // nobody had begun the effect
	TakenOver                  // it was begun and not settled
	Settled                    // it is settled: nothing is left to do
	Crashed                    // it was begun MostBegun times and not settled
)

// String names a state, for logs and metrics.
func (s State) String() string {
	switch s {
	case Fresh:
		return "fresh"
	case TakenOver:
		return "taken_over"
	case Settled:
		return "settled"
	case Crashed:
		return "crashed"
	default:
		return "unknown"
	}
}

// Claim is what Claim found. The effect is the caller's to begin where State is Fresh or TakenOver, and to settle
// where it is Crashed.
type Claim struct {
	State      State
	Revision   uint64 // of the record
	Begun      int    // how often the effect was begun, this time included
	Owner      Owner  // the caller; who settled it where State is Settled
	Generation string // the one that the effect is judged by: of whoever began it first
	Result     Result // where State is Settled
}

// Claim takes an effect, by its key, for owner, before it is begun. Asked again by the same owner it gives the same
// claim; the caller sees to it that it does not run one effect twice at the same time.
func (s *Store) Claim(ctx context.Context, key string, owner Owner, generation string) (Claim, error) {
	claim, err := s.claim(ctx, events.KVKey(key), owner, generation)
	if err != nil {
		return Claim{}, fmt.Errorf("claim %s: %w", key, err)
	}
	return claim, nil
}

func (s *Store) claim(ctx context.Context, kvKey string, owner Owner, generation string) (Claim, error) {
	first := record{begun: 1, worker: owner.Worker, pin: owner.Pin, generation: generation}
	for {
		there, err := s.bucket.CreateOrGet(ctx, kvKey, first.encode(), s.options.Hold)
		if err == nil {
			return Claim{State: Fresh, Revision: there.Revision, Begun: 1, Owner: owner, Generation: generation}, nil
		}
		if !errors.Is(err, natskv.ErrConflict) {
			return Claim{}, err
		}
		claim, err := s.takeOver(ctx, kvKey, there, owner)
		if !errors.Is(err, natskv.ErrConflict) {
			return claim, err
		}
		// Settled or released by its owner at this moment, or expired: look again.
	}
}

func (s *Store) takeOver(ctx context.Context, kvKey string, there natskv.Entry, owner Owner) (Claim, error) {
	r, err := decodeRecord(there.Value)
	if err != nil {
		return Claim{}, err
	}
	claim := Claim{Revision: there.Revision, Begun: r.begun, Owner: Owner{Worker: r.worker, Pin: r.pin}, Generation: r.generation}
	switch {
	case r.result != "":
		claim.State, claim.Result = Settled, r.result
		return claim, nil
	case claim.Owner == owner: // the answer to an earlier Claim of ours was lost
		claim.State = TakenOver
		if r.begun == 1 {
			claim.State = Fresh
		}
		return claim, nil
	case r.begun >= MostBegun:
		claim.State = Crashed
		return claim, nil
	}
	r.begun++
	r.worker, r.pin = owner.Worker, owner.Pin
	revision, err := s.bucket.Update(ctx, kvKey, r.encode(), there.Revision, s.options.Hold)
	if err != nil {
		return Claim{}, err
	}
	return Claim{State: TakenOver, Revision: revision, Begun: r.begun, Owner: owner, Generation: r.generation}, nil
}

// Holds errs with ErrLost where somebody else has claimed the effect since, or has settled it.
func (s *Store) Holds(ctx context.Context, key string, claim Claim) error {
	there, err := s.bucket.Get(ctx, events.KVKey(key))
	switch {
	case errors.Is(err, natskv.ErrNotFound):
		return fmt.Errorf("look after claim of %s: %w: it has expired", key, ErrLost)
	case err != nil:
		return fmt.Errorf("look after claim of %s: %w", key, err)
	case there.Revision != claim.Revision:
		return fmt.Errorf("look after claim of %s: %w", key, ErrLost)
	default:
		return nil
	}
}

// Settle records the result of a claimed effect. It errs with ErrLost where somebody else has claimed it since. A
// claim that this very call has settled before is success.
func (s *Store) Settle(ctx context.Context, key string, claim Claim, result Result) error {
	r := record{result: result, begun: claim.Begun, worker: claim.Owner.Worker, pin: claim.Owner.Pin}
	return s.replace(ctx, "settle", key, claim, r)
}

// Release takes the beginning of an effect back, because its owner stops before the effect's end, or before it began
// at all. It errs with ErrLost where somebody else has claimed it since.
func (s *Store) Release(ctx context.Context, key string, claim Claim) error {
	r := record{begun: max(claim.Begun-1, 0), generation: claim.Generation}
	return s.replace(ctx, "release", key, claim, r)
}

func (s *Store) replace(ctx context.Context, verb, key string, claim Claim, r record) error {
	value := r.encode()
	_, err := s.bucket.Update(ctx, events.KVKey(key), value, claim.Revision, s.options.Hold)
	switch {
	case err == nil:
		return nil
	case !errors.Is(err, natskv.ErrConflict):
		return fmt.Errorf("%s claim of %s: %w", verb, key, err)
	}
	// Update takes an equal value for its own within one call; an earlier call may have ended without its answer.
	there, err := s.bucket.Get(ctx, events.KVKey(key))
	switch {
	case errors.Is(err, natskv.ErrNotFound):
		return fmt.Errorf("%s claim of %s: %w: it has expired", verb, key, ErrLost)
	case err != nil:
		return fmt.Errorf("%s claim of %s: %w", verb, key, err)
	case string(there.Value) == string(value):
		return nil
	default:
		return fmt.Errorf("%s claim of %s: %w", verb, key, ErrLost)
	}
}

// Forget shortens the life of a record to Window: the saved watermark has passed its event. It does not wait for an
// answer; a record that it misses lives for Hold.
func (s *Store) Forget(key string, result Result) error {
	r := record{result: result}
	if err := s.bucket.PutAsync(events.KVKey(key), r.encode(), s.options.Window); err != nil {
		return fmt.Errorf("forget %s: %w", key, err)
	}
	return nil
}
