package app

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/tributary-dev/tributary/internal/lease"
	"github.com/tributary-dev/tributary/internal/natskv"
	"github.com/tributary-dev/tributary/pkg/deadletter"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/jobs"
	"github.com/tributary-dev/tributary/pkg/trace"
)

var jobRunnerService = service{
	name:    "jobrunner",
	summary: "runs retries and asynchronous actions",
	require: []string{"nats"},
	load: func(env *environment) error {
		_, rules := loadObservers(env)
		_, certificates := loadTLS(env.config)
		return errors.Join(rules, certificates)
	},
	run: runJobRunner,
}

// JobRunner is the program jobrunner.
func JobRunner(ctx context.Context, p Program) int { return jobRunnerService.main(ctx, p) }

func runJobRunner(ctx context.Context, env *environment) error {
	road, err := openRoad(ctx, env)
	if err != nil {
		return unlessEnded(ctx, err)
	}
	defer road.nc.Close()
	store := jobs.NewStore(road.js, jobs.StoreOptions{Log: env.log, Metrics: env.jobs()})
	concurrency := env.config.Jobs.Concurrency
	effects, err := newEffects(env, road, concurrency)
	if err != nil {
		return err
	}
	defer effects.end()
	traces, err := newTraces(env, road, trace.JobRunner, env.owner)
	if err != nil {
		return err
	}
	circuits, err := newCircuits(env, road)
	if err != nil {
		return err
	}
	rests, follow, err := pauses(ctx, env, road)
	if err != nil {
		return unlessEnded(ctx, err)
	}
	runner, err := jobs.NewRunner(road.js, store, effects.actions, deadletter.New(road.js), jobs.Options{
		Concurrency: concurrency, Keep: env.config.Jobs.Keep, Owner: env.owner, ShutdownTimeout: env.config.ShutdownTimeout,
		Traces: traces, Circuits: circuits, ParkMaxAge: env.config.Circuits.ParkMaxAge, Rests: rests, Resolve: effects.lookups.Resolve,
	})
	if err != nil {
		return err
	}
	sweeper := lease.New(natskv.Open(road.js, events.BucketLeases), "sweeper", lease.Options{Owner: env.owner, Log: env.log})

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return effects.keepCache(ctx, env) })
	group.Go(func() error { return follow(ctx) })
	group.Go(func() error { return circuits.Run(ctx) })
	group.Go(func() error {
		return recording(ctx, traces, func(ctx context.Context) error {
			if err := runner.Run(ctx); err != nil {
				return fmt.Errorf("run jobs: %w", err)
			}
			return nil
		})
	})
	group.Go(func() error {
		return holding(ctx, env.log, sweeper, func(ctx context.Context) error {
			return jobs.RunSweeper(ctx, store, jobs.SweepOptions{Circuits: circuits, ParkMaxAge: env.config.Circuits.ParkMaxAge, Rests: rests})
		})
	})
	env.watchNATS(ctx, group, road, "jobs run")
	return group.Wait()
}
