package app

import (
	"context"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/internal/lease"
)

// holding runs work whenever the lease allows, until ctx ends; what goes wrong is logged, and work begins anew.
func holding(ctx context.Context, log *slog.Logger, keeper *lease.Keeper, work func(context.Context) error) error {
	for ctx.Err() == nil {
		if err := keeper.Hold(ctx, work); err != nil && ctx.Err() == nil {
			log.Warn("upkeep stopped; it will go on", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	return nil
}

// unlessEnded drops an error that is only the end of ctx: a service that was told to stop while it waited ends in order.
func unlessEnded(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// renewEvery is how often a position is written again: no message surely outlives the stream's max_age over a restart.
func renewEvery(stream jetstream.Stream) time.Duration {
	renew := time.Hour
	if age := stream.CachedInfo().Config.MaxAge; age > 0 {
		renew = min(renew, age/4)
	}
	return renew
}

// holdRecords is how long what is known of an effect stays where no watermark has passed its event: for as long as the
// event can come again, whatever is down meanwhile.
func holdRecords(stream jetstream.Stream) time.Duration {
	const day, forEver = 24 * time.Hour, 10 * 365 * 24 * time.Hour
	if age := stream.CachedInfo().Config.MaxAge; age > 0 {
		return age + day
	}
	return forEver
}
