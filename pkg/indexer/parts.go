package indexer

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/pkg/events"
)

// An index is made of months, which people can remove without the index becoming another one. So the consumer's metadata also
// says which months there were, each with an id that no other in its place has. Where one has gone that indexer.retention has
// not removed, and whose events EVENTS may still have, all begins again, as for another index.

// PartsKey is where the consumer's metadata says which months the index had: 2026.10=<id> 2026.11=<id>.
const PartsKey = "tributary.months"

// late is how much later than its own time a row may have come to EVENTS: while its database could not be read, say.
const late = 7 * 24 * time.Hour

func formatParts(parts map[string]string) string {
	var text []string
	for _, month := range slices.Sorted(maps.Keys(parts)) {
		text = append(text, month+"="+parts[month])
	}
	return strings.Join(text, " ")
}

func parseParts(text string) map[string]string {
	parts := map[string]string{}
	for field := range strings.FieldsSeq(text) {
		if month, id, ok := strings.Cut(field, "="); ok {
			parts[month] = id
		}
	}
	return parts
}

// removed gives the months that have gone although nobody should have removed them.
func (x *Indexer) removed(before, now map[string]string) []string {
	var gone []string
	for month, id := range before {
		if now[month] != id && !(x.options.Keep > 0 && past(month, x.options.Keep, time.Now())) {
			gone = append(gone, month)
		}
	}
	slices.Sort(gone)
	return gone
}

// refillable gives those months of which EVENTS may still have events.
func (x *Indexer) refillable(ctx context.Context, months []string) ([]string, error) {
	if len(months) == 0 {
		return nil, nil
	}
	stream, err := x.js.Stream(ctx, events.StreamEvents)
	if err != nil {
		return nil, fmt.Errorf("look at %s: %w", events.StreamEvents, err)
	}
	state := stream.CachedInfo().State
	if state.Msgs == 0 {
		return nil, nil
	}
	return slices.DeleteFunc(slices.Clone(months), func(month string) bool { return past(month, late, state.FirstTime) }), nil
}

// parts asks the index for its months; nil where it does not tell.
func (x *Indexer) parts(ctx context.Context) (map[string]string, error) {
	if x.options.Parts == nil {
		return nil, nil
	}
	parts, err := x.options.Parts(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask the index for its months: %w", err)
	}
	return parts, nil
}

// note writes down that there are other months than before.
func (x *Indexer) note(ctx context.Context, parts map[string]string) error {
	config := x.consumerConfig(x.identity, parts)
	if _, err := x.js.UpdateConsumer(ctx, events.StreamEvents, config); err != nil {
		return fmt.Errorf("note the months of the index in consumer %s of %s: %w", ConsumerName, events.StreamEvents, err)
	}
	x.months = parts
	return nil
}

// consumerConfig is the consumer's for an index.
func (x *Indexer) consumerConfig(identity string, parts map[string]string) jetstream.ConsumerConfig {
	config := jetstream.ConsumerConfig{
		Durable: ConsumerName, Description: "indexers take the events here",
		FilterSubject: "events.>", DeliverPolicy: jetstream.DeliverAllPolicy, AckPolicy: jetstream.AckExplicitPolicy,
		AckWait: x.options.AckWait, MaxDeliver: -1, MaxAckPending: x.options.MaxAckPending,
	}
	if identity != "" {
		config.Metadata = map[string]string{IndexKey: identity}
	}
	if len(parts) > 0 && identity != "" {
		config.Metadata[PartsKey] = formatParts(parts)
	}
	return config
}
