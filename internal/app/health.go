package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/worker"
)

const (
	lookEvery    = time.Second
	answerWithin = 2 * time.Second
)

// watchNATS keeps the service's readiness: it does its job only while NATS is there, and its streams have a leader.
func (env *environment) watchNATS(ctx context.Context, group *errgroup.Group, road *road, doing string) {
	group.Go(func() error {
		return every(ctx, lookEvery, func() {
			switch err := road.answers(ctx); {
			case ctx.Err() != nil:
			case err != nil:
				env.ready.Set("nats", false, err.Error())
			default:
				env.ready.Set("nats", true, doing)
			}
		})
	})
}

var errNATSAway = errors.New("NATS is away")

// answers asks the leader of EVENTS for a sign of life. A connection alone says little: its server may be cut off from the
// others of its cluster.
func (r *road) answers(ctx context.Context) error {
	if !r.nc.IsConnected() {
		return errNATSAway
	}
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	stream, err := r.js.Stream(ctx, events.StreamEvents)
	if err != nil {
		return fmt.Errorf("the stream EVENTS does not answer: %w", err)
	}
	if heard, all := replicas(stream.CachedInfo().Cluster); 2*heard <= all {
		return fmt.Errorf("the stream EVENTS does not answer: its leader hears %d of %d replicas", heard, all)
	}
	return nil
}

// replicas counts those that the leader has lately heard of, itself among them: one that is cut off from the others goes on
// to tell of itself as the leader, and can store nothing.
func replicas(cluster *jetstream.ClusterInfo) (heard, all int) {
	const silence = 5 * time.Second // they exchange heartbeats each second
	heard, all = 1, 1
	if cluster == nil {
		return heard, all
	}
	for _, replica := range cluster.Replicas {
		all++
		if !replica.Offline && replica.Active < silence {
			heard++
		}
	}
	return heard, all
}

// watchPartitions keeps a worker's readiness: it holds its partitions, or the others hold all of them.
func (env *environment) watchPartitions(ctx context.Context, w *worker.Worker) error {
	const patience = 10 * time.Second // a partition changes hands in less
	held := time.Now()
	return every(ctx, lookEvery, func() {
		status := w.Status()
		missing, why := 0, ""
		for _, p := range status.Partitions {
			if !p.Held {
				missing++
				why = cmp.Or(why, p.Why)
			}
		}
		if missing == 0 {
			held = time.Now()
		}
		switch n := len(status.Partitions); {
		case !status.Known:
			env.ready.Set("partitions", false, "the other workers do not know of this one yet")
		case n == 0 && status.Workers == 1:
			env.ready.Set("partitions", false, "no partition is taken yet")
		case n == 0:
			env.ready.Set("partitions", true, fmt.Sprintf("stands by: %d workers share all partitions", status.Workers))
		case missing > 0 && (missing == n || time.Since(held) > patience):
			env.ready.Set("partitions", false, strings.TrimSuffix(fmt.Sprintf("waits for %d of its %d partitions: %s", missing, n, why), ": "))
		default:
			env.ready.Set("partitions", true, fmt.Sprintf("holds %d partitions", n))
		}
	})
}

// every calls look at once, and again each time that d has passed, until ctx ends.
func every(ctx context.Context, d time.Duration, look func()) error {
	ticker := time.NewTicker(d)
	defer ticker.Stop()
	for {
		look()
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}
