package app

import (
	"context"
	"fmt"

	"github.com/tributary-dev/tributary/pkg/observers"
)

// pauses tells jobrunners whose jobs wait because their observer is paused, and gives what keeps that up to date. They need
// the observers for nothing else.
func pauses(ctx context.Context, env *environment, road *road) (rests func(observer string) bool, follow func(context.Context) error, err error) {
	configured, err := env.awaitObservers(ctx)
	if err != nil {
		return nil, nil, err
	}
	rules, follow, err := rulesInForce(ctx, env, road, configured)
	if err != nil {
		return nil, nil, err
	}
	return func(observer string) bool { return rules.Current().Paused(observer) }, follow, nil
}

// awaitObservers reads the configured observers, again and again until they can be read: a jobrunner that does not know who is
// paused would do what somebody has stopped. It gives nil where the configuration names none.
func (env *environment) awaitObservers(ctx context.Context) (set *observers.Set, err error) {
	path := env.config.Observers
	if path == "" {
		return nil, nil
	}
	reading, stop := context.WithCancel(ctx)
	defer stop()
	told := false
	err = every(reading, lookEvery, func() {
		found, err := observers.Load(path)
		if err == nil {
			set = found
			env.ready.Set("observers", true, fmt.Sprintf("it is known which of the %d observers are paused", len(found.Observers())))
			stop()
			return
		}
		env.ready.Set("observers", false, fmt.Sprintf("no job runs until it can be read which observers are paused: %v", err))
		if !told {
			env.log.Error("observers are not read: no job runs, since those of paused observers must not; it is tried again", "err", err)
			told = true
		}
	})
	if set == nil && err == nil {
		err = context.Cause(ctx)
	}
	return set, err
}
