package app

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"

	"github.com/tributary-dev/tributary/internal/ask"
	"github.com/tributary-dev/tributary/internal/config"
	"github.com/tributary-dev/tributary/internal/lease"
	"github.com/tributary-dev/tributary/internal/natskv"
	"github.com/tributary-dev/tributary/pkg/deadletter"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/ingest"
	"github.com/tributary-dev/tributary/pkg/pgcdc"
	"github.com/tributary-dev/tributary/pkg/worker"
	"github.com/tributary-dev/tributary/streams"
)

var ingestService = service{
	name:    "ingest",
	summary: "reads committed changes from PostgreSQL, and what applications publish, into EVENTS",
	require: []string{"nats", "sources"},
	load:    loadSources,
	run:     runIngest,
}

// Ingest is the program ingest.
func Ingest(ctx context.Context, p Program) int {
	// What waits to be stored is most of what it holds, and lives for milliseconds: collecting twice as often halves what is
	// resident, for little CPU.
	const gcPercent = 50
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	return ingestService.main(ctx, p)
}

func runIngest(ctx context.Context, env *environment) error {
	// Nothing may be sent blindly after a reconnect, so nothing waits in the connection for one.
	road, err := openRoad(ctx, env, nats.ReconnectBufSize(-1))
	if err != nil {
		return unlessEnded(ctx, err)
	}
	defer road.nc.Close()
	stream, err := road.events(ctx)
	if err != nil {
		return unlessEnded(ctx, fmt.Errorf("open EVENTS: %w", err))
	}
	mirrors, closeMirrors, err := mirrors(env)
	if err != nil {
		return err
	}
	defer closeMirrors()
	metrics := ingest.NewMetrics(env.metrics)
	leases := natskv.Open(road.js, events.BucketLeases)
	pipeline := ingest.NewPipeline(road.nc, stream, ingest.Options{
		Leader: env.owner, Rewind: env.config.Ingest.Rewind, RewindBytes: uint64(env.config.Ingest.RewindBytes),
		QueueBytes: int(env.config.Ingest.QueueBytes), Renew: renewEvery(stream), Log: env.log, Metrics: metrics,
		Mirrors: mirrors, Incarnations: incarnations{leases},
		Serve: func(ctx context.Context, source string, stand func() ingest.Standing) error {
			return ask.ServeStanding(ctx, road.nc, source, stand)
		},
		Health: func(source string, ok bool, why string) { env.ready.Set("source "+source, ok, why) },
	})
	held := func(key string) *lease.Keeper {
		return lease.New(leases, key, lease.Options{Owner: env.owner, Log: env.log})
	}

	sources, err := pgSources(env, road)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, source := range sources {
		read := func() error { return pipeline.Run(ctx, source, held("ingest."+source.Name())) }
		if len(sources) > 1 {
			group.Go(func() error { return besideOthers(ctx, env, source.Name(), read) })
		} else {
			group.Go(read)
		}
	}
	if env.config.Ingest.Inbox {
		inbox := ingest.NewInbox(road.js, ingest.InboxOptions{
			Partitions: road.applied.Partitions, MaxEvent: maxEvent(road), Reserved: sourceNames(env.config.Sources),
			Quarantine: deadletter.New(road.js).Write,
			Log:        env.log, Metrics: metrics,
		})
		group.Go(func() error { return pipeline.Run(ctx, inbox, held("ingest."+inbox.Name())) })
	}
	group.Go(func() error {
		return holding(ctx, env.log, held("janitor"), func(ctx context.Context) error {
			return streams.RunJanitor(ctx, road.js, streams.JanitorOptions{
				Log:    env.log,
				Needed: func(ctx context.Context) (uint64, string, error) { return worker.NeededByRanges(ctx, road.js) },
			})
		})
	})
	inStreams := newStreamMetrics(env.metrics)
	group.Go(func() error { return inStreams.observe(ctx, road.js) })
	env.watchNATS(ctx, group, road, "events are stored")
	return group.Wait()
}

// besideOthers reads a source that must not end the others when it can't go on: it is tried again now and then, for whoever
// does what it asks for.
func besideOthers(ctx context.Context, env *environment, source string, read func() error) error {
	const pause = 30 * time.Second
	said := ""
	for {
		err := read()
		if err == nil || ctx.Err() != nil {
			return nil
		}
		env.ready.Set("source "+source, false, err.Error())
		if text := err.Error(); text != said {
			said = text
			env.log.Error("the source can't be read; the others are", "source", source, "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

func pgSources(env *environment, road *road) ([]*pgcdc.Source, error) {
	metrics := pgcdc.NewMetrics(env.metrics)
	dead := deadletter.New(road.js)
	var sources []*pgcdc.Source
	all, err := sourceOptions(env)
	if err != nil {
		return nil, err
	}
	for _, o := range all {
		o.Partitions, o.MaxEvent, o.Oversize, o.Metrics = road.applied.Partitions, maxEvent(road), keepOversize(dead, o.Name), metrics
		o.Serve = serveAsks(env, road.nc, o.Name)
		o.Memory = masked{natskv.Open(road.js, events.BucketLeases), o.Name}
		source, err := pgcdc.New(o)
		if err != nil {
			return nil, err
		}
		sources = append(sources, source)
	}
	return sources, nil
}

// keepOversize keeps the images of an event that is too large for EVENTS.
func keepOversize(dead *deadletter.Writer, source string) func(ctx context.Context, id string, envelope []byte) error {
	return func(ctx context.Context, id string, envelope []byte) error {
		return dead.Write(ctx, deadletter.Record{
			ID: id, Reason: deadletter.Oversize, EventID: id, Source: source, Event: envelope,
			Error: fmt.Sprintf("the event has %d bytes, more than half of NATS's max_payload", len(envelope)),
		})
	}
}

func sourceNames(sources []config.Source) []string {
	var names []string
	for _, s := range sources {
		names = append(names, s.Name)
	}
	return names
}

// maxEvent is half of what NATS takes as one message: room for headers, and for a job record around it.
func maxEvent(road *road) int { return int(road.nc.MaxPayload() / 2) }
