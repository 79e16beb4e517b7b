package publish

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	tryWithin  = time.Second // a leader that died does not answer: ask the next one
	firstPause = 10 * time.Millisecond
	mostPause  = time.Second
)

// store asks until the message is acknowledged. Its id makes sure that a copy whose answer was lost is the only one.
func (p *Publisher) store(ctx context.Context, msg *nats.Msg) (*jetstream.PubAck, error) {
	for pause := firstPause; ; pause = min(2*pause, mostPause) {
		ack, err := p.try(ctx, msg)
		if err == nil {
			return ack, nil
		}
		if errors.Is(err, jetstream.ErrStreamMessageExceedsMaximum) || errors.Is(err, nats.ErrMaxPayload) {
			return nil, fmt.Errorf("%w: %w", ErrTooLarge, err)
		}
		if !passes(err) {
			return nil, err
		}
		timer := time.NewTimer(pause/2 + rand.N(pause))
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%w; last answer: %v", context.Cause(ctx), err) // not wrapped: it may be a try's own deadline
		}
	}
}

func (p *Publisher) try(ctx context.Context, msg *nats.Msg) (*jetstream.PubAck, error) {
	// The connection would keep every copy, and send all of them when it is back.
	if conn := p.js.Conn(); !conn.IsConnected() && !conn.IsClosed() {
		return nil, nats.ErrDisconnected
	}
	ctx, cancel := context.WithTimeout(ctx, tryWithin)
	defer cancel()
	return p.js.PublishMsg(ctx, msg)
}

// passes tells whether an error mends itself.
func passes(err error) bool {
	var api *jetstream.APIError
	if errors.As(err, &api) {
		const tooMany, internal = 429, 500 // and above: full, starting, without a leader
		return api.Code == tooMany || api.Code >= internal
	}
	for _, passing := range []error{
		nats.ErrDisconnected, nats.ErrNoResponders, nats.ErrTimeout, nats.ErrReconnectBufExceeded,
		jetstream.ErrNoStreamResponse, context.DeadlineExceeded, context.Canceled,
	} {
		if errors.Is(err, passing) {
			return true
		}
	}
	return false
}
