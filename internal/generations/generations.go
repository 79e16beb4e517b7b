// Package generations keeps the observers in force in KV observers, and lets workers follow them.
//
// It promises that a generation is seen whole or not at all: its observers lie under keys that nobody else writes, and one
// key, changed by compare-and-swap, says which generation is in force. Who follows gives every event to one generation, and
// still knows those before it. It relies on package observers to tell whether two generations do the same.
package generations

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/internal/natskv"
	"github.com/tributary-dev/tributary/internal/natsread"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/observers"
)

const (
	keyCurrent = "current"
	keyPrefix  = "gen."
	stream     = "KV_" + events.BucketObservers
	subjects   = "$KV." + events.BucketObservers + "."

	// kept is how many generations stay behind the one in force: for events that were begun under them.
	kept = 8
)

// What Load and Apply err with.
var (
	ErrNone     = errors.New("no observers have been applied")
	ErrConflict = errors.New("somebody else has applied observers meanwhile")
	ErrDamaged  = errors.New("the generation in force is not whole")
)

// Current says which generation is in force.
type Current struct {
	V          int       `json:"v"`
	Number     uint64    `json:"n"`
	Generation string    `json:"generation"` // observers.Set's
	Observers  int       `json:"observers"`  // how many
	Applied    time.Time `json:"applied"`
	By         string    `json:"by,omitempty"`
	Previous   []Earlier `json:"previous,omitempty"` // the latest first
}

// Earlier is a generation that was in force.
type Earlier struct {
	Number     uint64 `json:"n"`
	Generation string `json:"generation"`
}

// Store is KV observers. It is safe for concurrent use.
type Store struct {
	js     jetstream.JetStream
	bucket *natskv.Bucket
}

// Open gives the Store; the bucket must exist when it is used.
func Open(js jetstream.JetStream) *Store {
	return &Store{js: js, bucket: natskv.Open(js, events.BucketObservers)}
}

// Current tells which generation is in force. It errs with ErrNone.
func (s *Store) Current(ctx context.Context) (Current, error) {
	current, _, err := s.current(ctx)
	return current, err
}

func (s *Store) current(ctx context.Context) (Current, uint64, error) {
	there, err := s.bucket.Get(ctx, keyCurrent)
	if errors.Is(err, natskv.ErrNotFound) {
		return Current{}, 0, ErrNone
	}
	if err != nil {
		return Current{}, 0, fmt.Errorf("read which observers are in force: %w", err)
	}
	current, err := decodeCurrent(there.Value)
	return current, there.Revision, err
}

func decodeCurrent(value []byte) (Current, error) {
	var current Current
	if err := json.Unmarshal(value, &current); err != nil {
		return current, fmt.Errorf("decode which observers are in force: %w", err)
	}
	if current.V != 1 {
		return current, fmt.Errorf("which observers are in force was written by a later version (%d)", current.V)
	}
	return current, nil
}

// Load gives the observers in force. It errs with ErrNone.
func (s *Store) Load(ctx context.Context) (*observers.Set, Current, error) {
	current, err := s.Current(ctx)
	if err != nil {
		return nil, current, err
	}
	set, err := s.load(ctx, Earlier{current.Number, current.Generation})
	return set, current, err
}

// load reads one generation, and checks that it is whole.
func (s *Store) load(ctx context.Context, which Earlier) (*observers.Set, error) {
	var file bytes.Buffer
	file.WriteString(`{"observers":[`)
	n := 0
	query := natsread.Query{Stream: stream, Subjects: []string{subjects + numbered(which.Number) + ".*"}}
	err := natsread.Forward(ctx, s.js, query, func(msg *jetstream.RawStreamMsg) error {
		if n > 0 {
			file.WriteByte(',')
		}
		file.WriteByte('\n')
		file.Write(msg.Data)
		n++
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read observers of generation %d: %w", which.Number, err)
	}
	file.WriteString("\n]}\n")
	set, err := observers.Parse(fmt.Sprintf("generation %d", which.Number), file.Bytes())
	if err != nil {
		return nil, err
	}
	if set.Generation() != which.Generation {
		return nil, fmt.Errorf("%w: %d of %d observers make generation %s, not %s", ErrDamaged, n, which.Number, set.Generation(), which.Generation)
	}
	return set, nil
}

func numbered(n uint64) string { return keyPrefix + strconv.FormatUint(n, 10) }

// Apply puts a set in force, and tells what is in force then; changed is false where the same set was already. It errs
// with ErrConflict where another Apply was quicker: look at what it did first.
func (s *Store) Apply(ctx context.Context, set *observers.Set, by string) (current Current, changed bool, err error) {
	before, revision, err := s.current(ctx)
	if err != nil && !errors.Is(err, ErrNone) {
		return before, false, err
	}
	return s.apply(ctx, set, by, before, revision)
}

// Replace is Apply for a set that was made of the one in force: it errs with ErrConflict where another one is by now.
func (s *Store) Replace(ctx context.Context, of Current, set *observers.Set, by string) (current Current, changed bool, err error) {
	before, revision, err := s.current(ctx)
	if err != nil {
		return before, false, err
	}
	if before.Number != of.Number {
		return before, false, ErrConflict
	}
	return s.apply(ctx, set, by, before, revision)
}

func (s *Store) apply(ctx context.Context, set *observers.Set, by string, before Current, revision uint64) (current Current, changed bool, err error) {
	if before.Generation == set.Generation() {
		return before, false, nil
	}
	n, err := s.reserve(ctx, before.Number+1)
	if err != nil {
		return before, false, err
	}
	if err := s.write(ctx, n, set); err != nil {
		return before, false, err
	}
	current = Current{
		V: 1, Number: n, Generation: set.Generation(), Observers: len(set.Observers()), Applied: time.Now().UTC(), By: by, Previous: before.Previous,
	}
	if before.Number > 0 {
		current.Previous = append([]Earlier{{before.Number, before.Generation}}, current.Previous...)
	}
	var gone []Earlier
	if len(current.Previous) > kept {
		current.Previous, gone = current.Previous[:kept], current.Previous[kept:]
	}
	if err := s.swap(ctx, current, revision); err != nil {
		return before, false, errors.Join(err, s.forget(ctx, n))
	}
	for _, earlier := range gone {
		if err := s.forget(ctx, earlier.Number); err != nil {
			return current, true, err
		}
	}
	return current, true, nil
}

// reserve takes a number that nobody else writes under.
func (s *Store) reserve(ctx context.Context, from uint64) (uint64, error) {
	for n := from; ; n++ {
		_, err := s.bucket.Create(ctx, numbered(n), []byte(rand.Text()), 0)
		if err == nil {
			return n, nil
		}
		if !errors.Is(err, natskv.ErrConflict) {
			return 0, fmt.Errorf("reserve generation %d: %w", n, err)
		}
	}
}

func (s *Store) write(ctx context.Context, n uint64, set *observers.Set) error {
	var source struct{ Observers []json.RawMessage }
	if err := json.Unmarshal(set.Source(), &source); err != nil {
		return fmt.Errorf("read the canonical form of observers: %w", err)
	}
	for _, observer := range source.Observers {
		var named struct{ Name string }
		if err := json.Unmarshal(observer, &named); err != nil {
			return fmt.Errorf("read the canonical form of an observer: %w", err)
		}
		if _, err := s.bucket.Put(ctx, numbered(n)+"."+named.Name, observer, 0); err != nil {
			return fmt.Errorf("write observer %s: %w", named.Name, err)
		}
	}
	return nil
}

func (s *Store) swap(ctx context.Context, current Current, revision uint64) error {
	value, err := json.Marshal(current)
	if err != nil {
		return fmt.Errorf("encode which observers are in force: %w", err)
	}
	if _, err = s.bucket.Swap(ctx, keyCurrent, value, revision, 0); errors.Is(err, natskv.ErrConflict) {
		return ErrConflict
	}
	return err
}

// forget removes a generation that is not in force.
func (s *Store) forget(ctx context.Context, n uint64) error {
	kv, err := s.js.Stream(ctx, stream)
	if err != nil {
		return fmt.Errorf("forget generation %d: %w", n, err)
	}
	for _, subject := range []string{subjects + numbered(n) + ".*", subjects + numbered(n)} {
		err = cmp.Or(err, kv.Purge(ctx, jetstream.WithPurgeSubject(subject)))
	}
	if err != nil {
		return fmt.Errorf("forget generation %d: %w", n, err)
	}
	return nil
}
