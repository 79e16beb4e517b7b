// Package cachekv is a cache that all services share: the KV bucket cache, and in front of it, in each process, a near
// cache that a watch keeps coherent.
//
// It promises that no value is given out that is older than its TTL, as far as the clocks of those who share it agree;
// that a key is loaded once in a process, however many ask for it; and that a value which was loaded before its key was
// invalidated is not kept after it. A change is seen by the others as soon as the watch tells them, while Run runs; without it every read
// asks the bucket. It keeps nothing for ever: the bucket lies in memory, and drops the oldest where it is full.
package cachekv

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/internal/natskv"
	"github.com/tributary-dev/tributary/pkg/events"
)

// DefaultTTL is that of a value whose writer names none.
const DefaultTTL = time.Minute

// ErrMiss is the error of Get where the cache has no value.
var ErrMiss = errors.New("not in the cache")

// ErrAbsent is the error of a key that is known to have no value: a loader gives it, and so does what was remembered of it.
var ErrAbsent = errors.New("there is no value")

// Options of a Cache. The zero value works.
type Options struct {
	MaxBytes    int64            // of keys and values in the near cache; 0 means 32 MiB
	NegativeTTL time.Duration    // how long ErrAbsent is remembered; 0 means 5 s
	Now         func() time.Time // time.Now where it is nil
}

// Stats counts what became of lookups.
type Stats struct {
	Hits      uint64 // answered by the near cache
	Misses    uint64 // asked of the bucket
	Coalesced uint64 // waited for another's question about the same key
	Stale     uint64 // values that were dropped because their key was changed
	Evicted   uint64 // values that made room for others
	Entries   int
	Bytes     int64
}

// Cache is the cache of one process. It is safe for concurrent use.
type Cache struct {
	js     jetstream.JetStream
	bucket *natskv.Bucket
	o      Options

	misses, coalesced, stale atomic.Uint64

	mu      sync.Mutex
	near    near               // guarded by mu
	watched bool               // changes are heard of, so near may be used; guarded by mu
	flights map[string]*flight // guarded by mu
}

// flight is one question about a key, which others wait for.
type flight struct {
	done    chan struct{} // closed when value and err are there
	value   []byte
	err     error
	changed uint64 // the last revision of the key that was heard of meanwhile; guarded by Cache.mu
	dropped bool   // its prefix was invalidated meanwhile; guarded by Cache.mu
}

// New makes a cache on the bucket cache. It does no I/O.
func New(js jetstream.JetStream, o Options) *Cache {
	if o.MaxBytes <= 0 {
		o.MaxBytes = 32 << 20
	}
	if o.NegativeTTL <= 0 {
		o.NegativeTTL = 5 * time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Cache{js: js, bucket: natskv.Open(js, events.BucketCache), o: o, near: newNear(o.MaxBytes), flights: make(map[string]*flight)}
}

// Get gives the value of a key; it errs with ErrMiss or ErrAbsent where there is none. The value is not to be changed.
func (c *Cache) Get(ctx context.Context, key string) ([]byte, error) {
	return c.lookup(ctx, key, "get ", func(ctx context.Context, f *flight) ([]byte, error) {
		value, _, err := c.read(ctx, key, f)
		return value, err
	})
}

// Load is Get that calls load where the cache has no value, once for all who ask meanwhile, and keeps what it gives for ttl (0
// means DefaultTTL). An ErrAbsent of load is remembered too; no other error is.
func (c *Cache) Load(ctx context.Context, key string, ttl time.Duration, load func(context.Context) ([]byte, error)) ([]byte, error) {
	return c.LoadFor(ctx, key, TTLs{Value: ttl}, load)
}

// TTLs say how long what a loader gives is kept.
type TTLs struct {
	Value  time.Duration // 0 means DefaultTTL
	Absent time.Duration // of ErrAbsent; 0 means Options.NegativeTTL
}

// LoadFor is Load with a TTL of its own for ErrAbsent. Where a value was loaded and could not be kept, it comes with the error.
func (c *Cache) LoadFor(ctx context.Context, key string, ttl TTLs, load func(context.Context) ([]byte, error)) ([]byte, error) {
	return c.lookup(ctx, key, "load ", func(ctx context.Context, f *flight) ([]byte, error) {
		value, revision, err := c.read(ctx, key, f)
		if !errors.Is(err, ErrMiss) {
			return value, err
		}
		value, err = load(ctx)
		r := c.record(kindValue, ttl.Value, value)
		if errors.Is(err, ErrAbsent) {
			r = c.record(kindAbsent, cmp.Or(ttl.Absent, c.o.NegativeTTL), nil)
		} else if err != nil {
			return nil, err
		}
		return value, errors.Join(err, c.keep(ctx, key, r, revision, f))
	})
}

// lookup answers from the near cache, or asks once for all who want to know the same.
func (c *Cache) lookup(ctx context.Context, key, what string, ask func(context.Context, *flight) ([]byte, error)) ([]byte, error) {
	if key == "" {
		return nil, errors.New("the key is empty")
	}
	for {
		c.mu.Lock()
		if r, ok := c.near.get(key, c.o.Now()); ok && c.watched {
			c.mu.Unlock()
			return r.answer()
		}
		other, wait := c.flights[what+key]
		if !wait {
			f := &flight{done: make(chan struct{})}
			c.flights[what+key] = f
			c.mu.Unlock()
			c.misses.Add(1)
			c.fly(ctx, what+key, f, ask)
			return f.value, f.err
		}
		c.mu.Unlock()
		c.coalesced.Add(1)
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-other.done:
		}
		// Whoever asked may have had less time than we have.
		if errors.Is(other.err, context.Canceled) || errors.Is(other.err, context.DeadlineExceeded) {
			continue
		}
		return other.value, other.err
	}
}

// fly asks, and lets those go who wait, also where ask panics.
func (c *Cache) fly(ctx context.Context, name string, f *flight, ask func(context.Context, *flight) ([]byte, error)) {
	f.err = errors.New("the lookup did not end")
	defer func() {
		c.mu.Lock()
		delete(c.flights, name)
		c.mu.Unlock()
		close(f.done)
	}()
	f.value, f.err = ask(ctx, f)
}

// read asks the bucket. Along with ErrMiss it gives the revision that stands in the key's place, or 0.
func (c *Cache) read(ctx context.Context, key string, f *flight) ([]byte, uint64, error) {
	entry, err := c.bucket.Get(ctx, kvKey(key))
	switch {
	case errors.Is(err, natskv.ErrNotFound):
		return nil, 0, ErrMiss
	case err != nil:
		return nil, 0, err
	}
	r, ok := decode(entry)
	if !ok || !r.alive(c.o.Now()) {
		return nil, entry.Revision, ErrMiss
	}
	c.remember(key, r, f)
	value, err := r.answer()
	return value, entry.Revision, err
}

// keep stores what was loaded, unless the key was changed since revision was read.
func (c *Cache) keep(ctx context.Context, key string, r record, revision uint64, f *flight) error {
	c.mu.Lock()
	dropped := f.dropped
	c.mu.Unlock()
	if dropped {
		c.stale.Add(1)
		return nil
	}
	var err error
	if r.revision, err = c.bucket.Swap(ctx, kvKey(key), r.encode(), revision, r.ttl); errors.Is(err, natskv.ErrConflict) {
		c.stale.Add(1)
		return nil
	}
	if err != nil {
		return fmt.Errorf("keep what was loaded: %w", err)
	}
	c.remember(key, r, f)
	return nil
}

// remember puts a record into the near cache, unless a later one was heard of.
func (c *Cache) remember(key string, r record, f *flight) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.watched && !f.dropped && f.changed <= r.revision {
		c.near.put(key, r)
	}
}

// Set gives a key a value for ttl (0 means DefaultTTL).
func (c *Cache) Set(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	return c.write(ctx, key, c.record(kindValue, ttl, value))
}

// Invalidate drops a key's value, here at once and elsewhere as soon as the watch tells.
func (c *Cache) Invalidate(ctx context.Context, key string) error {
	return c.write(ctx, key, c.record(kindGone, goneTTL, nil))
}

// goneTTL is how long it is remembered that a key was invalidated, for loads that began before.
const goneTTL = 2 * time.Minute

func (c *Cache) write(ctx context.Context, key string, r record) error {
	if key == "" {
		return errors.New("the key is empty")
	}
	var err error
	if r.revision, err = c.bucket.Put(ctx, kvKey(key), r.encode(), r.ttl); err != nil {
		return err
	}
	c.heard(key, r)
	return nil
}

// InvalidatePrefix drops the values of all keys that begin with prefix.
func (c *Cache) InvalidatePrefix(ctx context.Context, prefix string) error {
	if prefix == "" {
		return errors.New("the prefix is empty")
	}
	stream, err := c.js.Stream(ctx, streamName)
	if err != nil {
		return fmt.Errorf("look at the bucket cache: %w", err)
	}
	// First it is told, so that no load that runs now keeps what it brings; then it is done.
	if _, err := c.bucket.Put(ctx, prefixKey, c.record(kindPrefix, goneTTL, []byte(prefix)).encode(), goneTTL); err != nil {
		return err
	}
	c.heardPrefix(prefix)
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(subjectPrefix+">"))
	if err != nil {
		return fmt.Errorf("list the keys of the bucket cache: %w", err)
	}
	for subject := range info.State.Subjects {
		key, ok := keyOf(subject[len(subjectPrefix):])
		if ok && len(key) >= len(prefix) && key[:len(prefix)] == prefix {
			if err := c.Invalidate(ctx, key); err != nil {
				return err
			}
		}
	}
	return nil
}

// Stats gives the counts since New.
func (c *Cache) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Stats{
		Hits: c.near.hits, Misses: c.misses.Load(), Coalesced: c.coalesced.Load(), Stale: c.stale.Load(), Evicted: c.near.evicted,
		Entries: c.near.order.Len(), Bytes: c.near.bytes,
	}
}

func (c *Cache) record(kind byte, ttl time.Duration, value []byte) record {
	if ttl <= 0 {
		ttl = DefaultTTL
	}
	return record{kind: kind, until: c.o.Now().Add(ttl), ttl: ttl, value: value}
}
