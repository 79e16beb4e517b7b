package app

import (
	"context"

	"github.com/tributary-dev/tributary/pkg/observers"
)

// pauses tells jobrunners whose jobs wait because their observer is paused, and gives what keeps that up to date. They need
// the observers for nothing else: where the configured file is not there, no observer is taken to be paused.
func pauses(ctx context.Context, env *environment, road *road) (rests func(observer string) bool, follow func(context.Context) error, err error) {
	var configured *observers.Set
	if path := env.config.Observers; path != "" {
		if configured, err = observers.Load(path); err != nil {
			env.log.Warn("observers are not read, so jobs of paused ones go on", "err", err)
			return func(string) bool { return false }, func(context.Context) error { return nil }, nil
		}
	}
	rules, follow, err := rulesInForce(ctx, env, road, configured)
	if err != nil {
		return nil, nil, err
	}
	return func(observer string) bool { return rules.Current().Paused(observer) }, follow, nil
}
