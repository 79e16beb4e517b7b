package cachekv

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/internal/natskv"
)

// Run keeps the near cache coherent, and so lets it be used, until ctx ends or the watch breaks; then the near cache is
// empty, and Run may be called again. While NATS is away the near cache answers still, within the TTLs of what it has.
func (c *Cache) Run(ctx context.Context) error {
	kv, err := c.js.KeyValue(ctx, strings.TrimPrefix(streamName, "KV_"))
	if err != nil {
		return fmt.Errorf("open the bucket cache: %w", err)
	}
	watcher, err := kv.Watch(ctx, jetstream.AllKeys, jetstream.UpdatesOnly())
	if err != nil {
		return fmt.Errorf("watch the bucket cache: %w", err)
	}
	defer func() {
		c.use(false)
		_ = watcher.Stop()            // errs where the connection is closed: it is stopped then
		for range watcher.Updates() { // the watcher may be blocked on handing over what nobody wants now
		}
	}()
	c.use(true)
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case entry, ok := <-watcher.Updates():
			if !ok {
				return errors.Join(errors.New("the watch of the bucket cache broke"), context.Cause(ctx))
			}
			if entry != nil {
				c.told(entry)
			}
		}
	}
}

// use lets the near cache be used, or empties it.
func (c *Cache) use(watched bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watched = watched
	c.near.clear()
}

// told takes in what the watch says of a key.
func (c *Cache) told(entry jetstream.KeyValueEntry) {
	r, ok := decode(natskv.Entry{Value: entry.Value(), Revision: entry.Revision()})
	if !ok || entry.Operation() != jetstream.KeyValuePut {
		r = record{kind: kindGone, revision: entry.Revision()}
	}
	if entry.Key() == prefixKey {
		if r.kind == kindPrefix {
			c.heardPrefix(string(r.value))
		}
		return
	}
	if key, ok := keyOf(entry.Key()); ok {
		c.heard(key, r)
	}
}

// heard takes in a change of a key: a value that is kept here is replaced, and one that is on its way is not kept.
func (c *Cache) heard(key string, r record) {
	now := c.o.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, what := range []string{"get ", "load "} {
		if f, ok := c.flights[what+key]; ok {
			f.changed = max(f.changed, r.revision)
		}
	}
	if !c.near.drop(key, r.revision) {
		return
	}
	c.stale.Add(1)
	if c.watched && r.alive(now) {
		c.near.put(key, r)
	}
}

func (c *Cache) heardPrefix(prefix string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, f := range c.flights {
		if _, key, _ := strings.Cut(name, " "); strings.HasPrefix(key, prefix) {
			f.dropped = true
		}
	}
	c.stale.Add(c.near.dropPrefix(prefix))
}
