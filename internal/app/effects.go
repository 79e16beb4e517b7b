package app

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tributary-dev/tributary/pkg/actions/cached"
	"github.com/tributary-dev/tributary/pkg/cachekv"
	"github.com/tributary-dev/tributary/pkg/lookup"
	"github.com/tributary-dev/tributary/streams"
)

// effects is what carries effects out: the actions, and the lookups that some of them need before.
type effects struct {
	actions *cached.Actions
	lookups *lookup.Lookups
	cache   *cachekv.Cache
	js      jetstream.JetStream
	end     func() // when nothing runs any more
}

// effectMetrics are what all effects of a process share.
type effectMetrics struct {
	cache  *cachekv.Metrics
	lookup *lookup.Metrics
	cached *cached.Metrics
}

func newEffectMetrics(reg prometheus.Registerer) *effectMetrics {
	return &effectMetrics{cache: cachekv.NewMetrics(reg), lookup: lookup.NewMetrics(reg), cached: cached.NewMetrics(reg)}
}

const cachePause = time.Second

// keepCache keeps the near cache coherent until ctx ends. While it is not, each look asks NATS.
func (e *effects) keepCache(ctx context.Context, env *environment) error {
	for ctx.Err() == nil {
		err := e.cache.Run(ctx)
		if ctx.Err() != nil {
			return nil
		}
		env.log.Warn("the cache asks NATS for each value", "error", err)
		if errors.Is(err, jetstream.ErrBucketNotFound) { // the one server that had it in memory was started again
			if err := streams.ApplyVolatile(ctx, e.js, streams.Options{Replicas: env.config.NATS.Replicas, Log: env.log}); err != nil && ctx.Err() == nil {
				env.log.Warn("the bucket of the cache can't be made", "error", err)
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(cachePause):
		}
	}
	return nil
}
