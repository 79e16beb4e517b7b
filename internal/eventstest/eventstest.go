// Package eventstest reads what a source has published, for tests.
package eventstest

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/pkg/events"
)

// Stored is one event of EVENTS, and the row that it is about.
type Stored struct {
	*events.Event
	Row *events.Row
}

const storedWithin = 30 * time.Second

// Read waits for n events of a source, in the order of EVENTS. A message that is no event of a row ends the test.
func Read(t testing.TB, js jetstream.JetStream, source string, n int) []Stored {
	t.Helper()
	consumer, err := js.OrderedConsumer(t.Context(), events.StreamEvents, jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{events.EventsOfSource(source)},
	})
	if err != nil {
		t.Fatal(err)
	}
	messages, err := consumer.Messages()
	if err != nil {
		t.Fatal(err)
	}
	defer messages.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), storedWithin)
	defer cancel()
	all := make([]Stored, n)
	for i := range all {
		msg, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			t.Fatalf("read event %d of %d: %v", i, n, err)
		}
		event, err := events.Parse(msg.Data())
		if err != nil {
			t.Fatal(err)
		}
		row, err := event.Row()
		if err != nil {
			t.Fatal(err)
		}
		all[i] = Stored{Event: event, Row: row}
	}
	return all
}
