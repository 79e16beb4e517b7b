package app

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tributary-dev/tributary/pkg/actions/cached"
	"github.com/tributary-dev/tributary/pkg/cachekv"
	"github.com/tributary-dev/tributary/pkg/lookup"
)

// effects is what carries effects out: the actions, and the lookups that some of them need before.
type effects struct {
	actions *cached.Actions
	lookups *lookup.Lookups
	cache   *cachekv.Cache
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
		select {
		case <-ctx.Done():
		case <-time.After(cachePause):
		}
	}
	return nil
}
