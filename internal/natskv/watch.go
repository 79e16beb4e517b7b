package natskv

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// Change is what a watch saw: a key's value, or that it was removed by a marker. Keys that Delete removed or that
// expired are not seen: nothing is stored for these.
type Change struct {
	Key     string
	Entry   Entry
	Removed bool
}

// errStop ends a watch without being an error.
var errStop = errors.New("stop")

// Each calls do with every key that is there, in the order of their writes, and ends with do's first error. What is
// written meanwhile may be missed. It errs with jetstream.ErrBucketNotFound where the bucket does not exist, and where NATS
// is away: it may be called again.
func (b *Bucket) Each(ctx context.Context, do func(key string, entry Entry) error) error {
	return b.EachOf(ctx, jetstream.AllKeys, do)
}

// EachOf is Each for the keys of a pattern.
func (b *Bucket) EachOf(ctx context.Context, pattern string, do func(key string, entry Entry) error) error {
	err := b.watch(ctx, pattern, func(c *Change) error {
		switch {
		case c == nil:
			return errStop
		case c.Removed:
			return nil
		default:
			return do(c.Key, c.Entry)
		}
	})
	if err != nil {
		return fmt.Errorf("read keys of bucket %s: %w", b.name, err)
	}
	return nil
}

// Watch calls do with what the keys of a pattern hold now, once with nil when that was all, and from then on with what
// changes. It goes on until do errs, the watch breaks, or ctx ends, and gives that error; after a break it may be called
// again, and begins anew.
func (b *Bucket) Watch(ctx context.Context, pattern string, do func(*Change) error) error {
	if err := b.watch(ctx, pattern, do); err != nil {
		return fmt.Errorf("watch keys %s of bucket %s: %w", pattern, b.name, err)
	}
	return nil
}

func (b *Bucket) watch(ctx context.Context, pattern string, do func(*Change) error) error {
	kv, err := b.js.KeyValue(ctx, b.name)
	if err != nil {
		return err
	}
	watcher, err := kv.Watch(ctx, pattern)
	if err != nil {
		return err
	}
	defer func() {
		_ = watcher.Stop()            // errs where the connection is closed: it is stopped then
		for range watcher.Updates() { // the watcher may be blocked on handing over what nobody wants now
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case entry, ok := <-watcher.Updates():
			if !ok {
				return errors.Join(errors.New("the watch broke"), context.Cause(ctx))
			}
			if err := do(change(entry)); errors.Is(err, errStop) {
				return nil
			} else if err != nil {
				return err
			}
		}
	}
}

func change(entry jetstream.KeyValueEntry) *Change {
	if entry == nil {
		return nil
	}
	return &Change{
		Key:     entry.Key(),
		Entry:   Entry{Value: entry.Value(), Revision: entry.Revision(), Written: entry.Created()},
		Removed: entry.Operation() != jetstream.KeyValuePut,
	}
}
