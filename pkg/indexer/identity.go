package indexer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/pkg/events"
)

// The consumer that all indexers share says how far EVENTS is indexed: in one index. Which one that is lies in the
// consumer's metadata. For another one, a folder that was emptied or a new Elasticsearch, everything begins again:
// what an index has already it takes for what it has.

// IndexKey is where the consumer's metadata says which index it is for.
const IndexKey = "tributary.index"

const (
	identityEvery  = 15 * time.Second // an index may be another one without a break in what it answers
	displacedPause = 5 * time.Second
)

// errDisplaced says that an indexer with another index has taken the events over. Who started last has them: two that
// took them from each other for ever would fill neither.
var errDisplaced = errors.New("another indexer has the events, for another index")

// own sees to it that the consumer is that of this index, and gives which one that is, empty where the options name none, and
// the months that it has.
func (x *Indexer) own(ctx context.Context) (identity string, parts map[string]string, err error) {
	if x.options.Identity == nil {
		return "", nil, nil
	}
	if identity, err = x.options.Identity(ctx); err != nil {
		return "", nil, fmt.Errorf("ask the index which one it is: %w", err)
	}
	parts, unknown := x.parts(ctx)
	consumer, err := x.js.Consumer(ctx, events.StreamEvents, ConsumerName)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return identity, parts, nil
	}
	if err != nil {
		return "", nil, fmt.Errorf("look at consumer %s of %s: %w", ConsumerName, events.StreamEvents, err)
	}
	metadata := consumer.CachedInfo().Config.Metadata
	if unknown != nil { // the credentials do not allow it, say
		x.log.Warn("a month that is removed from the index would not be noticed for now", "err", unknown)
		parts = parseParts(metadata[PartsKey])
	}
	log := x.log.With("index", identity, "before", metadata[IndexKey], "indexed", consumer.CachedInfo().AckFloor.Stream)
	switch before := metadata[IndexKey]; {
	case before == identity:
		again, err := x.lacks(ctx, log, parseParts(metadata[PartsKey]), parts)
		if err != nil || !again {
			return identity, parts, err
		}
	case x.identity != "" && before != x.identity:
		return "", nil, fmt.Errorf("%w: %s, and this one's is %s", errDisplaced, before, identity)
	default:
		log.Warn("the index is another one than before, and is filled from the beginning of EVENTS")
	}
	if err := x.js.DeleteConsumer(ctx, events.StreamEvents, ConsumerName); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return "", nil, fmt.Errorf("start over: %w", err)
	}
	x.metrics.restarts.Inc()
	return identity, parts, nil
}

// lacks tells whether months were removed that EVENTS can fill again.
func (x *Indexer) lacks(ctx context.Context, log *slog.Logger, before, now map[string]string) (bool, error) {
	gone := x.removed(before, now)
	refillable, err := x.refillable(ctx, gone)
	switch {
	case err != nil || len(gone) == 0:
		return false, err
	case len(refillable) == 0:
		log.Warn("months of the index were removed, and EVENTS has nothing of them any more", "months", gone)
		return false, nil
	default:
		log.Warn("months of the index were removed, and are filled from the beginning of EVENTS", "months", gone)
		return true, nil
	}
}

// errAnother ends pulls for an index that is not there any more.
var errAnother = errors.New("the index is another one than before")

// errRemoved ends pulls for an index that lacks some of what it had.
var errRemoved = errors.New("months of the index were removed")

// same errs where the index has become another one, or lacks a month. It asks now and then; an index that does not answer is the
// same.
func (x *Indexer) same(ctx context.Context) error {
	if x.options.Identity == nil || time.Since(x.asked) < x.options.identityEvery {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	x.asked = time.Now()
	identity, err := x.options.Identity(ctx)
	if err != nil {
		return nil
	}
	if identity != x.identity {
		return errAnother
	}
	parts, err := x.parts(ctx)
	switch {
	case err != nil || maps.Equal(parts, x.months):
		return nil
	case len(x.removed(x.months, parts)) > 0:
		return errRemoved
	}
	if err := x.note(ctx, parts); err != nil {
		x.log.Warn("that the index has other months is not noted; it will be", "err", err)
	}
	return nil
}
