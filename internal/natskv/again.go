package natskv

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
	apiPrefix = "$JS.API."

	// A leader that died does not answer, and the next one is asked only by asking again.
	tryWithin = time.Second

	firstPause = 2 * time.Millisecond
	mostPause  = 250 * time.Millisecond
)

// Codes of the server that jetstream does not name.
const (
	codeNoMessageFound           = 10037
	codeAccountResourcesExceeded = 10002
)

// verdict says what an answer, or none, means for what is tried.
type verdict int

const (
	done       verdict = iota
	again              // not done, for a reason that passes
	retryNow           // not done, and what was in the way has gone
	unanswered         // done or not
	stale              // not done: the expectation does not hold
	refused            // not done, and never will be
)

// again calls try until it is done or refused, or ctx ends, each time within tryWithin.
func (b *Bucket) again(ctx context.Context, try func(context.Context) (verdict, error)) error {
	for pause := firstPause; ; pause = min(2*pause, mostPause) {
		v, err := b.tryOnce(ctx, try)
		switch v {
		case done:
			return nil
		case refused, stale:
			return err
		case again, retryNow, unanswered:
		default:
			panic("unreachable: a verdict without a case")
		}
		if v != retryNow {
			// Many callers fail together when a leader dies; they must not come back together.
			sleep(ctx, pause/2+rand.N(pause))
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%w; last answer: %v", context.Cause(ctx), err) // not wrapped: it may be a try's own deadline
		}
	}
}

func (b *Bucket) tryOnce(ctx context.Context, try func(context.Context) (verdict, error)) (verdict, error) {
	// The connection would keep what is sent meanwhile, every copy of it, and send all of it at once when it is back.
	if !b.nc.IsConnected() && !b.nc.IsClosed() {
		return again, nats.ErrDisconnected
	}
	ctx, cancel := context.WithTimeout(ctx, tryWithin)
	defer cancel()
	return try(ctx)
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (b *Bucket) request(ctx context.Context, msg *nats.Msg) ([]byte, error) {
	answer, err := b.nc.RequestMsgWithContext(ctx, msg)
	if err != nil {
		return nil, err
	}
	return answer.Data, nil
}

// judge says what the error of one try means.
func judge(err error) verdict {
	var api *jetstream.APIError
	switch {
	case err == nil:
		return done
	case errors.As(err, &api):
		return judgeAnswer(api)
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, nats.ErrReconnectBufExceeded), errors.Is(err, nats.ErrDisconnected):
		return again
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), errors.Is(err, nats.ErrTimeout):
		return unanswered
	default:
		return refused
	}
}

func judgeAnswer(api *jetstream.APIError) verdict {
	switch api.ErrorCode {
	case jetstream.JSErrCodeStreamWrongLastSequence:
		return stale
	case jetstream.JSErrCodeStreamWrongLastSequenceConstant:
		return again // another fenced write of the key is on its way through the replicas: not stale yet
	case codeAccountResourcesExceeded:
		return again
	}
	const tooMany, internal, unavailable = 429, 500, 503 // full, without a leader, starting, offline
	switch api.Code {
	case tooMany, internal, unavailable:
		return again
	default:
		return refused
	}
}
