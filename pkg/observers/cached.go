package observers

import (
	"fmt"
	"time"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/observers/expr"
)

// cachedSpec is the canonical form of the cache of an action's results.
type cachedSpec struct {
	TTL string `json:"ttl"`
	Key string `json:"key,omitempty"`
}

// cached says for how long a result of an action answers requests like it.
type cached struct {
	ttl time.Duration
	key *expr.Text // nil for the request itself
}

// cached reads the key cache of an action; nil where there is none.
func (l *loader) cached(f field, kind string) (*cached, *cachedSpec) {
	if !f.given() {
		return nil, nil
	}
	if kind == typeCache || kind == typeLog {
		l.fail(f.at, "leave it out", "an action of type %s has no result to keep", kind)
	}
	fields := l.mapping(f.value, "cache.", "cache", "ttl", "key")
	c := &cached{ttl: l.duration(fields["ttl"], defaultCacheTTL)}
	spec := &cachedSpec{TTL: c.ttl.String()}
	if key := fields["key"]; key.given() {
		text := l.text(key.name, key.value)
		var err error
		c.key, err = l.env.CompileText(text.value, expr.Subject)
		l.failAt("cache.key", text, err)
		if l.err == nil && text.value == "" {
			l.fail(text.start, "", "cache.key is empty")
		}
		spec.Key = text.value
	}
	return c, spec
}

func (c *cached) render(in *expr.Input) (*actions.Cache, error) {
	if c == nil {
		return nil, nil
	}
	rendered := &actions.Cache{TTL: c.ttl}
	if c.key != nil {
		key, err := c.key.Render(in)
		if err != nil {
			return nil, fmt.Errorf("cache.key: %w", err)
		}
		rendered.Key = key
	}
	return rendered, nil
}
