// Package cache is the action that changes the cache which all services share: it gives a key a value, or drops the values of
// a key or of all keys that begin with a prefix.
//
// Each of these gives the same when it is done again, so no effect key is handed on.
package cache

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/retry"
)

// Type is the type of requests that this package does.
const Type = "cache"

// What a request's method asks for.
const (
	Set              = "SET"
	Invalidate       = "INVALIDATE"
	InvalidatePrefix = "INVALIDATE-PREFIX"
)

// headerTTL is the header of a SET that says for how long, as Go writes a duration.
const headerTTL = "TTL"

// store is the cache. All of it may be done again.
type store interface {
	Set(ctx context.Context, key string, value []byte, ttl time.Duration) error
	Invalidate(ctx context.Context, key string) error
	InvalidatePrefix(ctx context.Context, prefix string) error
}

// Cache is the action. It is safe for concurrent use.
type Cache struct{ store store }

// New makes the action on a *cachekv.Cache.
func New(store store) *Cache { return &Cache{store} }

// Do does what request.Method asks for with the key or prefix in request.URL. A request that can't be done is permanent, and so is a
// value that is larger than NATS takes; everything else may be tried again.
func (c *Cache) Do(ctx context.Context, _ actions.Effect, request actions.Request) (actions.Outcome, error) {
	if ctx.Err() != nil {
		return actions.Outcome{}, fmt.Errorf("change the cache: %w", context.Cause(ctx))
	}
	if request.URL == "" {
		return actions.Outcome{}, retry.Permanent(errors.New("the key is empty"))
	}
	var err error
	switch request.Method {
	case Set:
		var ttl time.Duration
		if ttl, err = ttlOf(request.Header); err != nil {
			return actions.Outcome{}, retry.Permanent(err)
		}
		err = c.store.Set(ctx, request.URL, request.Body, ttl)
	case Invalidate:
		err = c.store.Invalidate(ctx, request.URL)
	case InvalidatePrefix:
		err = c.store.InvalidatePrefix(ctx, request.URL)
	default:
		return actions.Outcome{}, retry.Permanent(fmt.Errorf("the cache knows no %q", request.Method))
	}
	return actions.Outcome{}, judge(err)
}

// ttlOf reads for how long a value is kept; 0, for the cache's own default, where it is not said.
func ttlOf(header []actions.Header) (time.Duration, error) {
	for _, h := range header {
		if h.Name == headerTTL {
			ttl, err := time.ParseDuration(h.Value)
			if err != nil || ttl <= 0 {
				return 0, fmt.Errorf("the TTL %q is no duration above 0", h.Value)
			}
			return ttl, nil
		}
	}
	return 0, nil
}

// errTooLarge is the server's code of a message over the max_msg_size of its stream.
const errTooLarge jetstream.ErrorCode = 10054

// judge leaves the key out of an error, since it may hold a value of a row.
func judge(err error) error {
	api, answered := errors.AsType[*jetstream.APIError](err)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, nats.ErrMaxPayload), answered && api.ErrorCode == errTooLarge:
		return retry.Permanent(errors.New("change the cache: the value is larger than NATS takes"))
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("change the cache: no answer in time: %w", context.DeadlineExceeded)
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("change the cache: interrupted: %w", context.Canceled)
	case answered:
		return fmt.Errorf("change the cache: %w", api)
	default:
		return errors.New("change the cache: NATS did not take the change")
	}
}
