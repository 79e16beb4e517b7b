package streams

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/pkg/events"
)

type applier struct {
	js      jetstream.JetStream
	options Options
	log     *slog.Logger
	waiting bool // said so
}

const (
	tryWithin = 5 * time.Second // making a replicated stream takes a while
	pause     = 100 * time.Millisecond

	// A cluster that is starting has no room at first, one that is full never has; and the server that is to hold a stream
	// may fail at making its files, whereupon the next try may go to another one.
	roomWithin = 15 * time.Second
)

// Codes of the server that jetstream does not name.
const (
	codeNoPeers             = 10005
	codeInsufficient        = 10023
	codeMemoryExceeded      = 10028
	codeStorageExceeded     = 10047
	codeAccountExceeded     = 10002
	codeMaxStreamBytes      = 10122
	codeStreamCreate        = 10049
	codeReplicasUnsupported = 10074
	codeStreamOffline       = 10118
)

// errAgain is for what another service did between two looks of ours.
var errAgain = errors.New("the stream was changed meanwhile")

func (a *applier) awaitServer(ctx context.Context) error {
	err := a.again(ctx, func(ctx context.Context) error {
		if !a.js.Conn().IsConnected() {
			if a.js.Conn().IsClosed() {
				return nats.ErrConnectionClosed
			}
			return nats.ErrDisconnected
		}
		_, err := a.js.AccountInfo(ctx)
		return err
	})
	if err != nil {
		return err
	}
	return CheckVersion(a.js.Conn().ConnectedServerVersion())
}

// one makes or changes one stream.
func (a *applier) one(ctx context.Context, want settings) error {
	return a.again(ctx, func(ctx context.Context) error {
		stream, err := a.js.Stream(ctx, want.name())
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			return a.create(ctx, want)
		}
		if err != nil {
			return err
		}
		return a.reconcile(ctx, stream.CachedInfo(), want)
	})
}

func (a *applier) create(ctx context.Context, want settings) error {
	config, err := want.config()
	if err != nil {
		return err
	}
	_, err = a.js.CreateStream(ctx, config)
	if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		return errAgain
	}
	if err != nil {
		return explain(err, want)
	}
	a.log.Info("stream made", "stream", want.name())
	return nil
}

func (a *applier) reconcile(ctx context.Context, info *jetstream.StreamInfo, want settings) error {
	has, err := settingsOf(info.Config)
	if err != nil {
		return err
	}
	differences := diff(has, want)
	if len(differences) == 0 {
		return nil
	}
	texts := make([]string, len(differences))
	for i, d := range differences {
		if why := d.fixed(); why != "" {
			return fmt.Errorf("%s, which NATS can't change in place: %s; back the stream up if it matters, remove it with "+
				"`nats stream rm %s` and start again", d, why, want.name())
		}
		if d.setting == "metadata "+partitionsKey && info.State.LastSeq > 0 {
			return fmt.Errorf("its metadata lacks %s, and it has had messages: say how many partitions these were written with by "+
				"`nats stream edit %s --metadata %s:N`", partitionsKey, want.name(), partitionsKey)
		}
		texts[i] = d.String()
	}
	config, err := overlay(has, want).config()
	if err != nil {
		return err
	}
	if _, err := a.js.UpdateStream(ctx, config); err != nil {
		return fmt.Errorf("change settings (%s): %w", strings.Join(texts, ", "), explain(err, want))
	}
	a.log.Info("stream changed", "stream", want.name(), "settings", texts)
	return nil
}

// explain names the key of the configuration that an answer of the server is about.
func explain(err error, want settings) error {
	var api *jetstream.APIError
	if !errors.As(err, &api) {
		return err
	}
	switch api.ErrorCode {
	case codeStorageExceeded, codeMemoryExceeded, codeInsufficient, codeNoPeers, codeAccountExceeded, codeMaxStreamBytes:
		if want.name() == events.StreamEvents {
			return fmt.Errorf("NATS has no room for max_bytes %s with num_replicas %s: lower events.max_bytes, or give JetStream more "+
				"storage or servers: %w", want["max_bytes"], want["num_replicas"], err)
		}
		return fmt.Errorf("NATS has no room for max_bytes %s on %s storage with num_replicas %s: give JetStream more of it, or more servers, "+
			"or lower nats.replicas: %w", want["max_bytes"], want["storage"], want["num_replicas"], err)
	case codeReplicasUnsupported:
		return fmt.Errorf("nats.replicas is %s, which needs a cluster: %w", want["num_replicas"], err)
	default:
		return err
	}
}

// again calls try until it says no passing error, or ctx ends.
func (a *applier) again(ctx context.Context, try func(context.Context) error) error {
	begun := time.Now()
	for {
		within, cancel := context.WithTimeout(ctx, tryWithin)
		err := try(within)
		cancel()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%w; last: %w", context.Cause(ctx), err)
		}
		if !passes(err, time.Since(begun)) {
			return err
		}
		if !a.waiting && !errors.Is(err, errAgain) {
			a.waiting = true
			a.log.Warn("waiting for JetStream", "error", err)
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// passes tells whether an error of NATS mends itself; waited is how long it has been waited for already.
func passes(err error, waited time.Duration) bool {
	var api *jetstream.APIError
	switch {
	case errors.Is(err, errAgain), errors.Is(err, nats.ErrNoResponders), errors.Is(err, nats.ErrDisconnected),
		errors.Is(err, nats.ErrTimeout), errors.Is(err, nats.ErrReconnectBufExceeded), errors.Is(err, context.DeadlineExceeded):
		return true
	case errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return false
	case errors.As(err, &api):
		switch api.ErrorCode {
		case codeNoPeers, codeInsufficient, codeStreamCreate:
			return waited < roomWithin
		case codeStreamOffline:
			return true
		}
		const unavailable = 503 // no leader yet, or starting
		return api.Code == unavailable
	default:
		return false
	}
}
