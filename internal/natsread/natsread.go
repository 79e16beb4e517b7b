// Package natsread reads ranges of a stream for those who look on: forwards or backwards, filtered by the server.
//
// It promises that each message that was there when reading began, matches, and is not removed meanwhile comes once, in
// order. It leaves no consumer behind. It changes nothing, and settles nothing: a service that works on a stream has a
// durable consumer of its own.
package natsread

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Query says which messages are read. What is zero does not limit.
type Query struct {
	Stream      string
	Subjects    []string  // filters; none of them may overlap with another
	From, To    uint64    // the first and the last sequence
	Since       time.Time // when the first one was stored
	HeadersOnly bool      // without bodies; Nats-Msg-Size has their size then
}

// ErrStop is what a callback gives to end the reading without an error.
var ErrStop = errors.New("enough was read")

const (
	batchSize  = 256
	batchWait  = 5 * time.Second
	idleRemove = 30 * time.Second // a consumer that could not be deleted goes by itself
)

// Forward calls do with each message, oldest first. It ends with do's first error, with jetstream.ErrStreamNotFound
// where there is no stream, and when all that was there at the beginning has been read.
func Forward(ctx context.Context, js jetstream.JetStream, q Query, do func(*jetstream.RawStreamMsg) error) error {
	err := forward(ctx, js, q, do)
	if err != nil && !errors.Is(err, ErrStop) {
		return fmt.Errorf("read %s: %w", q.Stream, err)
	}
	return nil
}

func forward(ctx context.Context, js jetstream.JetStream, q Query, do func(*jetstream.RawStreamMsg) error) error {
	consumer, err := js.CreateConsumer(ctx, q.Stream, q.config())
	if err != nil {
		return err
	}
	info := consumer.CachedInfo()
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = js.DeleteConsumer(ctx, q.Stream, info.Name) // one that stays goes by itself
	}()
	for left := info.NumPending; left > 0; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		got, rest, err := q.fetch(ctx, consumer, int(min(left, batchSize)), do)
		if err != nil {
			return err
		}
		if got == 0 {
			return nil // what was left was removed, or is behind To
		}
		left = rest
	}
	return nil
}

// fetch reads up to n messages, and tells how many it has read, and how many are left. Nothing of it goes on when it returns.
func (q Query) fetch(ctx context.Context, consumer jetstream.Consumer, n int, do func(*jetstream.RawStreamMsg) error) (got int, left uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, batchWait)
	batch, err := consumer.Fetch(n, jetstream.FetchContext(ctx))
	if err != nil {
		cancel()
		return 0, 0, err
	}
	defer func() {
		cancel()
		for range batch.Messages() {
			continue // until the client's goroutine has ended, too
		}
	}()
	for msg := range batch.Messages() {
		metadata, err := msg.Metadata()
		if err != nil {
			return got, 0, err
		}
		if q.To > 0 && metadata.Sequence.Stream > q.To {
			return 0, 0, nil
		}
		got++
		left = metadata.NumPending
		if err := do(&jetstream.RawStreamMsg{
			Subject: msg.Subject(), Sequence: metadata.Sequence.Stream, Header: msg.Headers(), Data: msg.Data(), Time: metadata.Timestamp,
		}); err != nil {
			return got, left, err
		}
	}
	return got, left, batch.Error()
}

func (q Query) config() jetstream.ConsumerConfig {
	config := jetstream.ConsumerConfig{
		Description: "somebody looks on", AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true, Replicas: 1,
		InactiveThreshold: idleRemove, FilterSubjects: q.Subjects, HeadersOnly: q.HeadersOnly,
	}
	switch {
	case q.From > 0:
		config.DeliverPolicy, config.OptStartSeq = jetstream.DeliverByStartSequencePolicy, q.From
	case !q.Since.IsZero():
		config.DeliverPolicy, config.OptStartTime = jetstream.DeliverByStartTimePolicy, &q.Since
	}
	return config
}

// Windows of sequences that Backward reads at a time: small where matches are dense, wide where they are sparse.
const (
	firstWindow  = 256
	leastWindow  = 64
	widestWindow = 1 << 20
	fewMatches   = 64
	manyMatches  = 512
)

// Backward is Forward, newest first.
func Backward(ctx context.Context, js jetstream.JetStream, q Query, do func(*jetstream.RawStreamMsg) error) error {
	stream, err := js.Stream(ctx, q.Stream)
	if err != nil {
		return fmt.Errorf("read %s: %w", q.Stream, err)
	}
	state := stream.CachedInfo().State
	lowest, high := max(state.FirstSeq, q.From, 1), state.LastSeq
	if q.To > 0 {
		high = min(high, q.To)
	}
	for window := uint64(firstWindow); high >= lowest; {
		low := lowest
		if high-lowest >= window {
			low = high - window + 1
		}
		var found []*jetstream.RawStreamMsg
		part := q
		part.From, part.To, part.Since = low, high, time.Time{}
		if err := Forward(ctx, js, part, func(msg *jetstream.RawStreamMsg) error {
			found = append(found, msg)
			return nil
		}); err != nil {
			return err
		}
		for _, msg := range slices.Backward(found) {
			if msg.Time.Before(q.Since) {
				return nil
			}
			if err := do(msg); errors.Is(err, ErrStop) {
				return nil
			} else if err != nil {
				return fmt.Errorf("read %s: %w", q.Stream, err)
			}
		}
		switch {
		case len(found) < fewMatches:
			window = min(window*4, widestWindow)
		case len(found) > manyMatches:
			window = max(window/4, leastWindow)
		}
		high = low - 1
	}
	return nil
}
