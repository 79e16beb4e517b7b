package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/streams"
)

// road is the connection to NATS with its streams in place.
type road struct {
	nc      *nats.Conn
	js      jetstream.JetStream
	applied streams.Applied
}

// events gives the stream EVENTS, however long nobody leads it.
func (r *road) events(ctx context.Context) (jetstream.Stream, error) {
	for {
		stream, err := r.js.Stream(ctx, events.StreamEvents)
		if err == nil || errors.Is(err, jetstream.ErrStreamNotFound) || ctx.Err() != nil {
			return stream, err
		}
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// openRoad connects, however long NATS is away, and makes or reconciles the streams. The caller closes the connection.
func openRoad(ctx context.Context, env *environment, options ...nats.Option) (*road, error) {
	nc, err := connect(ctx, env, options...)
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("use JetStream: %w", err)
	}
	settings := env.config.Events
	applied, err := streams.Apply(ctx, js, streams.Options{
		Replicas: env.config.NATS.Replicas, Partitions: settings.Partitions,
		EventsMaxBytes: int64(settings.MaxBytes), EventsMaxAge: settings.MaxAge,
		TracesMaxBytes: int64(env.config.Traces.MaxBytes), TracesMaxAge: env.config.Traces.MaxAge,
	})
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("apply the streams: %w", err)
	}
	return &road{nc: nc, js: js, applied: applied}, nil
}

func connect(ctx context.Context, env *environment, options ...nats.Option) (*nats.Conn, error) {
	log := env.log
	options = append([]nats.Option{
		nats.Name("tributary-" + env.owner),
		nats.MaxReconnects(-1),
		nats.IgnoreAuthErrorAbort(), // a user that is being changed must not end the connection for good
		nats.ReconnectWait(100 * time.Millisecond),
		nats.ReconnectJitter(100*time.Millisecond, 100*time.Millisecond),
		nats.PingInterval(5 * time.Second),
		nats.MaxPingsOutstanding(2),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil { // nil where we closed it
				log.Warn("NATS is away", "err", err)
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) { log.Info("NATS is back", "url", nc.ConnectedUrlRedacted()) }),
	}, options...)
	if path := env.config.NATS.Credentials; path != "" {
		options = append(options, nats.UserCredentials(path))
	}
	for told := false; ; told = true {
		nc, err := nats.Connect(env.config.NATS.URL, options...)
		switch {
		case err == nil:
			return nc, nil
		case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired):
			return nil, fmt.Errorf("connect to NATS (nats.url): %w: check the user in nats.url, or nats.credentials", err)
		}
		if !told {
			log.Warn("waiting for NATS", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("connect to NATS: %w", context.Cause(ctx))
		case <-time.After(500 * time.Millisecond):
		}
	}
}
