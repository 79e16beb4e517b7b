package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tributary-dev/tributary/internal/config"
	"github.com/tributary-dev/tributary/internal/lease"
	"github.com/tributary-dev/tributary/internal/natskv"
	"github.com/tributary-dev/tributary/pkg/deadletter"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/indexer"
	"github.com/tributary-dev/tributary/pkg/indexer/elastic"
	"github.com/tributary-dev/tributary/pkg/indexer/embedded"
	"github.com/tributary-dev/tributary/pkg/retry"
)

var indexerService = service{
	name:    "indexer",
	summary: "makes every event searchable, in Elasticsearch or in an index of its own, and answers searches",
	require: []string{"nats"},
	load:    func(env *environment) error { _, err := newElastic(env); return err },
	run:     runIndexer,
}

// Indexer is the program indexer.
func Indexer(ctx context.Context, p Program) int { return indexerService.main(ctx, p) }

func runIndexer(ctx context.Context, env *environment) error {
	remote, err := newElastic(env)
	if err != nil {
		return err
	}
	road, err := openRoad(ctx, env)
	if err != nil {
		return unlessEnded(ctx, err)
	}
	defer road.nc.Close()
	metrics := indexer.NewMetrics(env.metrics)

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if remote != nil {
			defer remote.Close()
			return unlessEnded(ctx, indexRemotely(ctx, env, road, metrics, remote))
		}
		return indexHere(ctx, env, road, metrics)
	})
	env.watchNATS(ctx, group, road, "events are read")
	return group.Wait()
}

// newElastic gives the client of the Elasticsearch that is configured; nil where none is.
func newElastic(env *environment) (*elastic.Index, error) {
	cfg := env.config.Indexer
	if cfg.Elasticsearch == "" {
		return nil, nil
	}
	options := elastic.Options{
		URL: cfg.Elasticsearch, Username: cfg.Username, Prefix: cfg.Index, AllowUnknown: cfg.AllowUnknown,
		UserAgent: "tributary/" + Version, Log: env.log,
	}
	var err error
	if options.Password, err = optional("indexer.password", cfg.Password); err != nil {
		return nil, err
	}
	if options.APIKey, err = optional("indexer.api_key", cfg.APIKey); err != nil {
		return nil, err
	}
	if cfg.CAFile != "" {
		if options.CACert, err = os.ReadFile(cfg.CAFile); err != nil {
			return nil, fmt.Errorf("indexer.ca_file: %w", err)
		}
	}
	remote, err := elastic.New(options)
	switch {
	case errors.Is(err, elastic.ErrNoCertificate):
		return nil, fmt.Errorf("indexer.ca_file %s: %w", cfg.CAFile, err)
	case err != nil:
		return nil, fmt.Errorf("indexer.elasticsearch: %w", err)
	}
	return remote, nil
}

// indexRemotely shares the events with every other indexer, as soon as Elasticsearch is there.
func indexRemotely(ctx context.Context, env *environment, road *road, metrics *indexer.Metrics, index *elastic.Index) error {
	env.ready.Set("index", false, "Elasticsearch has not answered yet")
	if err := prepare(ctx, env, index); err != nil {
		return err
	}
	retention := lease.New(natskv.Open(road.js, events.BucketLeases), "retention", lease.Options{Owner: env.owner, Log: env.log})
	return indexInto(ctx, env, road, metrics, index, func(ctx context.Context) error {
		return holding(ctx, env.log, retention, func(ctx context.Context) error {
			return keepMonths(env, metrics).Run(ctx, index)
		})
	})
}

// prepare waits until Elasticsearch is ready for us.
func prepare(ctx context.Context, env *environment, index *elastic.Index) error {
	waits := retry.Policy{Strategy: retry.Exponential, Initial: 200 * time.Millisecond, Max: 5 * time.Second}
	for failed := 1; ; failed++ {
		err := index.Prepare(ctx)
		switch {
		case err == nil:
			env.ready.Set("index", true, "documents are taken")
			return nil
		case ctx.Err() != nil:
			return err
		case errors.Is(err, elastic.ErrDenied):
			return fmt.Errorf("%w: check indexer.username and indexer.password, or indexer.api_key", err)
		case retry.IsPermanent(err):
			return fmt.Errorf("indexer.elasticsearch: %w; set indexer.allow_unknown where it is one all the same", err)
		}
		env.ready.Set("index", false, err.Error())
		select {
		case <-ctx.Done():
		case <-time.After(waits.Delay(failed, retry.DelayOf(err), nil)):
		}
	}
}

const waitsForTurn = "waits until no other indexer has the embedded index"

// indexHere holds the embedded index. One process at a time does, wherever its folder is: with two of them, each would
// have a part of the events.
func indexHere(ctx context.Context, env *environment, road *road, metrics *indexer.Metrics) error {
	dir := env.config.Indexer.Dir
	if dir == "" {
		dir = filepath.Join(env.config.StateDir, "index")
	}
	env.ready.Set("index", false, waitsForTurn)
	service := ctx
	keeper := lease.New(natskv.Open(road.js, events.BucketLeases), "embedded-index", lease.Options{Owner: env.owner, Log: env.log})
	return holding(ctx, env.log, keeper, func(ctx context.Context) (err error) {
		index, err := embedded.Open(dir)
		if err != nil {
			env.ready.Set("index", false, err.Error())
			return err
		}
		env.log.Info("the embedded index is open", "dir", dir)
		env.ready.Set("index", true, "documents are taken")
		defer func() {
			if service.Err() == nil {
				env.ready.Set("index", false, waitsForTurn)
			}
			err = errors.Join(err, index.Close())
		}()
		return indexInto(ctx, env, road, metrics, index, func(ctx context.Context) error {
			return unlessEnded(ctx, keepMonths(env, metrics).Run(ctx, index))
		})
	})
}

// anyIndex is either of the two.
type anyIndex interface {
	Write(ctx context.Context, documents []indexer.Document) ([]indexer.Outcome, error)
	Search(ctx context.Context, r indexer.Request) (indexer.Found, error)
	Describe(ctx context.Context) (indexer.Info, error)
	Identity(ctx context.Context) (string, error)
	Parts(ctx context.Context) (map[string]string, error)
}

// indexInto runs all that there is to do for an index.
func indexInto(ctx context.Context, env *environment, road *road, metrics *indexer.Metrics, index anyIndex, upkeep func(context.Context) error) error {
	cfg := env.config.Indexer
	loop, err := indexer.New(road.js, index, deadletter.New(road.js), indexer.Options{
		BulkCount: cfg.BulkCount, BulkBytes: int(cfg.BulkBytes), BulkAge: cfg.BulkAge, Concurrency: cfg.Concurrency,
		QueueBytes: int(cfg.QueueBytes), ShutdownTimeout: env.config.ShutdownTimeout,
		Identity: index.Identity, Parts: index.Parts, Keep: cfg.Retention,
		Ready: func(ok bool, why string) { env.ready.Set("index", ok, why) }, Log: env.log, Metrics: metrics,
	})
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		loop.Run(ctx)
		return nil
	})
	group.Go(func() error {
		return indexer.Server{Index: index, Writer: index, Lag: loop.Lag, Log: env.log, Metrics: metrics}.Run(ctx, road.nc)
	})
	group.Go(func() error { return upkeep(ctx) })
	return group.Wait()
}

// optional gives the value of a secret that may be left out.
func optional(key string, secret config.Secret) (string, error) {
	if secret.Empty() {
		return "", nil
	}
	value, err := secret.Resolve()
	if err != nil {
		return "", fmt.Errorf("%s %w", key, err)
	}
	return value, nil
}

func keepMonths(env *environment, metrics *indexer.Metrics) indexer.Retention {
	return indexer.Retention{Keep: env.config.Indexer.Retention, Log: env.log, Metrics: metrics}
}
