package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"github.com/nats-io/nuid"
	"golang.org/x/sync/errgroup"

	"github.com/tributary-dev/tributary/internal/generations"
	"github.com/tributary-dev/tributary/internal/natskv"
	"github.com/tributary-dev/tributary/pkg/deadletter"
	"github.com/tributary-dev/tributary/pkg/dedupkv"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/jobs"
	"github.com/tributary-dev/tributary/pkg/observers"
	"github.com/tributary-dev/tributary/pkg/trace"
	"github.com/tributary-dev/tributary/pkg/worker"
)

var workerService = service{
	name:    "worker",
	summary: "matches events to observers and carries out their actions",
	require: []string{"nats"},
	load: func(env *environment) error {
		_, rules := loadObservers(env)
		_, certificates := loadTLS(env.config)
		return errors.Join(rules, certificates)
	},
	run: runWorker,
}

// Worker is the program worker.
func Worker(ctx context.Context, p Program) int {
	// What it holds is a few MB of events for each partition: collecting when that is there four times over takes a sixth off
	// a busy worker's CPU.
	const gcPercent = 300
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	return workerService.main(ctx, p)
}

func runWorker(ctx context.Context, env *environment) error {
	configured, err := loadObservers(env)
	if err != nil {
		return err
	}
	road, err := openRoad(ctx, env)
	if err != nil {
		return unlessEnded(ctx, err)
	}
	defer road.nc.Close()
	stream, err := road.events(ctx)
	if err != nil {
		return unlessEnded(ctx, fmt.Errorf("open EVENTS: %w", err))
	}
	dedup, err := dedupkv.New(natskv.Open(road.js, events.BucketDedup), dedupkv.Options{
		Window: env.config.Dedup.Window, Hold: max(holdRecords(stream), env.config.Dedup.Window),
	})
	if err != nil {
		return err
	}
	rules, follow, err := rulesInForce(ctx, env, road, configured)
	if err != nil {
		return unlessEnded(ctx, err)
	}
	concurrency := env.config.Worker.Concurrency
	effects, err := newEffects(env, road, concurrency)
	if err != nil {
		return err
	}
	defer effects.end()
	id := workerID()
	traces, err := newTraces(env, road, trace.Worker, id)
	if err != nil {
		return err
	}
	circuits, err := newCircuits(env, road)
	if err != nil {
		return err
	}
	w, err := worker.New(road.js, worker.Parts{
		Rules: rules, Dedup: dedup, Jobs: jobs.NewStore(road.js, jobs.StoreOptions{Log: env.log, Metrics: env.jobs()}),
		DeadLetters: deadletter.New(road.js), Actions: effects.actions, Traces: traces, Circuits: circuits, Lookups: effects.lookups,
	}, worker.Options{
		ID: id, Partitions: road.applied.Partitions, Concurrency: concurrency,
		OnError: worker.OnError(env.config.Dedup.OnError), ShutdownTimeout: env.config.ShutdownTimeout,
		ParkMaxAge: env.config.Circuits.ParkMaxAge, Log: env.log, Metrics: worker.NewMetrics(env.metrics),
		Ledgers: dedupkv.NewMetrics(env.metrics),
	})
	if err != nil {
		return err
	}

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return follow(ctx) })
	group.Go(func() error { return circuits.Run(ctx) })
	group.Go(func() error { return effects.keepCache(ctx, env) })
	group.Go(func() error {
		return recording(ctx, traces, func(ctx context.Context) error {
			if err := w.Run(ctx); err != nil {
				return fmt.Errorf("work: %w", err)
			}
			return nil
		})
	})
	group.Go(func() error { return env.watchPartitions(ctx, w) })
	env.watchNATS(ctx, group, road, "events are worked on")
	return group.Wait()
}

// loadObservers reads the rules before anything is connected to: what is wrong in them is told at once. It gives nil where the
// configuration names none.
func loadObservers(env *environment) (*observers.Set, error) {
	if env.config.Observers == "" {
		return nil, nil
	}
	set, err := observers.Load(env.config.Observers)
	if err != nil {
		return nil, fmt.Errorf("observers: %w", err)
	}
	env.log.Info("observers are loaded", "observers", len(set.Observers()), "generation", set.Generation())
	return set, nil
}

// rules are the observers in force.
type rules interface {
	Current() *observers.Set
	At(generation string) (*observers.Set, bool)
}

// rulesInForce gives the configured rules, or those that were applied, and what keeps these up to date.
func rulesInForce(ctx context.Context, env *environment, road *road, configured *observers.Set) (rules, func(context.Context) error, error) {
	if configured != nil {
		return worker.Fixed(configured), func(context.Context) error { return nil }, nil
	}
	applied, err := generations.Open(road.js).Follow(ctx, env.log)
	if err != nil {
		return nil, nil, fmt.Errorf("observers: %w", err)
	}
	return applied, applied.Run, nil
}

// workerID is new at each start: what an earlier process of this host has claimed is another's.
func workerID() string {
	return "worker-" + strings.ToLower(nuid.Next())
}
