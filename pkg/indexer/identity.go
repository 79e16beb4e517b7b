package indexer

import (
	"context"
	"errors"
	"fmt"
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

// own sees to it that the consumer is that of this index, and gives which one that is; empty where the options name none.
func (x *Indexer) own(ctx context.Context) (identity string, err error) {
	if x.options.Identity == nil {
		return "", nil
	}
	if identity, err = x.options.Identity(ctx); err != nil {
		return "", fmt.Errorf("ask the index which one it is: %w", err)
	}
	consumer, err := x.js.Consumer(ctx, events.StreamEvents, ConsumerName)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return identity, nil
	}
	if err != nil {
		return "", fmt.Errorf("look at consumer %s of %s: %w", ConsumerName, events.StreamEvents, err)
	}
	before := consumer.CachedInfo().Config.Metadata[IndexKey]
	switch {
	case before == identity:
		return identity, nil
	case x.identity != "" && before != x.identity:
		return "", fmt.Errorf("%w: %s, and this one's is %s", errDisplaced, before, identity)
	}
	if err := x.js.DeleteConsumer(ctx, events.StreamEvents, ConsumerName); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return "", fmt.Errorf("start over: %w", err)
	}
	x.metrics.restarts.Inc()
	x.log.Warn("the index is another one than before, and is filled from the beginning of EVENTS", "index", identity, "before", before,
		"indexed", consumer.CachedInfo().AckFloor.Stream)
	return identity, nil
}

// errAnother ends pulls for an index that is not there any more.
var errAnother = errors.New("the index is another one than before")

// same errs where the index has become another one. It asks now and then; an index that does not answer is the same.
func (x *Indexer) same(ctx context.Context) error {
	if x.options.Identity == nil || time.Since(x.asked) < x.options.identityEvery {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	x.asked = time.Now()
	if identity, err := x.options.Identity(ctx); err == nil && identity != x.identity {
		return errAnother
	}
	return nil
}
