// Package natskv reads and writes keys of a JetStream KV bucket where a decision hangs on them: claims, jobs, leases.
//
// It promises compare-and-swap that keeps a key's TTL, reads from the stream's leader, and an answer for writes whose
// acknowledgement was lost: they are asked again, and settled by reading. It relies on buckets that keep one message
// for each key, allow TTLs on messages, and leave no markers of deletes; a marker that a person's `nats kv del` left
// is taken for an absent key all the same. It makes no buckets, and does not cache.
package natskv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// ErrNotFound is the error of a read where the key is absent: never written, deleted or expired.
var ErrNotFound = errors.New("key not found")

// ErrConflict is the error of a write whose expectation does not hold: somebody else's write was there first. Where the
// answer to a write was lost it may also mean that the write was stored, and was written over before it was looked for.
var ErrConflict = errors.New("key was changed by another writer")

// Entry is what a key holds.
type Entry struct {
	Value    []byte
	Revision uint64 // of the write; grows with every write to the bucket

	// Written is when the server took the write, by its clock. It is 0 in what a write gives.
	Written time.Time
}

// Bucket is one KV bucket. It is safe for concurrent use.
//
// Reads and writes of one key, but for PutAsync, go on until they are answered or ctx ends: without a deadline, for as
// long as NATS is away. They err with jetstream.ErrStreamNotFound where the bucket does not exist.
type Bucket struct {
	js     jetstream.JetStream
	nc     *nats.Conn
	name   string
	stream string
	prefix string // of subjects
	async  func() (jetstream.JetStream, error)
}

// What PutAsync keeps in flight, and for how long at most.
const (
	asyncWindow  = 2048
	asyncTimeout = 10 * time.Second
)

// Open gives a bucket by its name. It does not ask whether the bucket exists.
func Open(js jetstream.JetStream, bucket string) *Bucket {
	return &Bucket{
		js:     js,
		nc:     js.Conn(),
		name:   bucket,
		stream: "KV_" + bucket,
		prefix: "$KV." + bucket + ".",
		// A window of its own: whoever shares js must not stall because keys are written, nor the other way round.
		async: sync.OnceValues(func() (jetstream.JetStream, error) {
			return jetstream.New(js.Conn(),
				jetstream.WithPublishAsyncMaxPending(asyncWindow), jetstream.WithPublishAsyncTimeout(asyncTimeout))
		}),
	}
}

// Get reads a key from the leader. It errs with ErrNotFound.
func (b *Bucket) Get(ctx context.Context, key string) (Entry, error) {
	last, err := b.last(ctx, key)
	switch {
	case err != nil:
		return Entry{}, b.wrap("get", key, err)
	case last.absent:
		return Entry{}, b.wrap("get", key, ErrNotFound)
	default:
		return last.Entry, nil
	}
}

// Create writes a key that is absent, for ttl (rounded up to whole seconds; 0 for ever), and gives its revision. It
// errs with ErrConflict where the key is there. The value must be the writer's own, such as one with its name in it:
// a value that is equal to ours after a lost answer is taken for ours.
func (b *Bucket) Create(ctx context.Context, key string, value []byte, ttl time.Duration) (uint64, error) {
	entry, err := b.write(ctx, write{key: key, value: value, ttl: ttl, fence: absent})
	if err != nil {
		return 0, b.wrap("create", key, err)
	}
	return entry.Revision, nil
}

// CreateOrGet is Create, but for what it gives along with ErrConflict: the entry that is there, in the same call.
func (b *Bucket) CreateOrGet(ctx context.Context, key string, value []byte, ttl time.Duration) (Entry, error) {
	entry, err := b.write(ctx, write{key: key, value: value, ttl: ttl, fence: absent})
	if err != nil {
		return entry, b.wrap("create", key, err)
	}
	return entry, nil
}

// Update writes a key whose revision is still the given one, for ttl from now on (as in Create), and gives its new
// revision. It errs with ErrConflict where the key has another revision, or is absent. What Create says of values holds.
func (b *Bucket) Update(ctx context.Context, key string, value []byte, revision uint64, ttl time.Duration) (uint64, error) {
	entry, err := b.write(ctx, write{key: key, value: value, ttl: ttl, fence: exactly, expected: revision})
	if err != nil {
		return 0, b.wrap("update", key, err)
	}
	return entry.Revision, nil
}

// Swap is Update, or Create where revision is 0: that of a key that a read found absent.
func (b *Bucket) Swap(ctx context.Context, key string, value []byte, revision uint64, ttl time.Duration) (uint64, error) {
	if revision == 0 {
		return b.Create(ctx, key, value, ttl)
	}
	return b.Update(ctx, key, value, revision, ttl)
}

// Put writes a key whatever it holds, for ttl (as in Create), and gives its revision. Asked again after a lost answer,
// it may write twice.
func (b *Bucket) Put(ctx context.Context, key string, value []byte, ttl time.Duration) (uint64, error) {
	entry, err := b.write(ctx, write{key: key, value: value, ttl: ttl, fence: none})
	if err != nil {
		return 0, b.wrap("put", key, err)
	}
	return entry.Revision, nil
}

// PutAsync sends a Put and does not wait for its answer: for writes that nothing hangs on. Up to 2048 are in flight;
// it errs, and sends nothing, where they stay unanswered.
func (b *Bucket) PutAsync(key string, value []byte, ttl time.Duration) error {
	msg, err := b.message(write{key: key, value: value, ttl: ttl, fence: none})
	if err != nil {
		return b.wrap("put", key, err)
	}
	js, err := b.async()
	if err != nil {
		return b.wrap("put", key, err)
	}
	if _, err := js.PublishMsgAsync(msg); err != nil {
		return b.wrap("put", key, err)
	}
	return nil
}

// Delete removes a key whose revision is the given one and leaves nothing behind. It errs with ErrConflict where the
// key has a newer revision; that it is absent already is no error.
func (b *Bucket) Delete(ctx context.Context, key string, revision uint64) error {
	if err := b.purge(ctx, key, revision); err != nil {
		return b.wrap("delete", key, err)
	}
	return nil
}

func (b *Bucket) wrap(verb, key string, err error) error {
	return fmt.Errorf("%s key %s of bucket %s: %w", verb, key, b.name, err)
}

// validKey tells whether key is of the alphabet that KV clients agree on. What it lets through needs no escape in
// subjects, nor in JSON.
func validKey(key string) bool {
	if key == "" || key[0] == '.' || key[len(key)-1] == '.' {
		return false
	}
	for i := range len(key) {
		c := key[i]
		alphanumeric := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alphanumeric && bytes.IndexByte([]byte("-/_=."), c) < 0 {
			return false
		}
		if c == '.' && key[i-1] == '.' {
			return false
		}
	}
	return true
}
