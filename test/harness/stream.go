package harness

import (
	"context"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/pkg/events"
)

// Stored is one event as it lies in EVENTS.
type Stored struct {
	Address events.Address
	Event   *events.Event
	Row     *events.Row
}

// Events reads all events of a source, in the order of the stream.
func (s *System) Events(source string) []Stored {
	s.t.Helper()
	js := s.JetStream()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	want := s.countEvents(ctx, js, source)
	consumer, err := js.OrderedConsumer(ctx, events.StreamEvents, jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{events.EventsOfSource(source)},
	})
	if err != nil {
		s.t.Fatalf("read EVENTS: %v", err)
	}
	messages, err := consumer.Messages()
	if err != nil {
		s.t.Fatalf("read EVENTS: %v", err)
	}
	defer messages.Stop()
	stored := make([]Stored, 0, want)
	for range want {
		msg, err := messages.Next(jetstream.NextMaxWait(10 * time.Second))
		if err != nil {
			s.t.Fatalf("read EVENTS: %v", err)
		}
		stored = append(stored, s.decode(msg))
	}
	return stored
}

func (s *System) decode(msg jetstream.Msg) Stored {
	s.t.Helper()
	address, err := events.ParseAddress(msg.Subject())
	if err != nil {
		s.t.Fatal(err)
	}
	event, err := events.Parse(msg.Data())
	if err != nil {
		s.t.Fatalf("%s: %v", msg.Subject(), err)
	}
	stored := Stored{Address: address, Event: event}
	if !address.FromApplication() {
		if stored.Row, err = event.Row(); err != nil {
			s.t.Fatal(err)
		}
	}
	return stored
}

// CountEvents is how many events of a source EVENTS holds; 0 while NATS is away.
func (s *System) CountEvents(source string) int {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return s.countEvents(ctx, s.shared(), source)
}

// shared is one connection for all the counting.
func (s *System) shared() jetstream.JetStream {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.js == nil {
		s.js = s.JetStream()
	}
	return s.js
}

func (s *System) countEvents(ctx context.Context, js jetstream.JetStream, source string) int {
	stream, err := js.Stream(ctx, events.StreamEvents)
	if err != nil {
		return 0
	}
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(events.EventsOfSource(source)))
	if err != nil {
		return 0
	}
	n := 0
	for _, messages := range info.State.Subjects {
		n += int(messages)
	}
	return n
}

// WaitForEvents waits until EVENTS holds n events of the source shop.
func (s *System) WaitForEvents(n int, most time.Duration) {
	s.t.Helper()
	Eventually(s.t, most, "EVENTS holds the changes", func() bool { return s.CountEvents("shop") >= n })
}

// CheckStream fails the test unless EVENTS holds exactly n changes of shop, each once, in commit order, each transaction
// whole and without a gap. It gives them.
func (s *System) CheckStream(n int) []Stored {
	s.t.Helper()
	stored := s.Events("shop")
	if len(stored) != n {
		s.t.Errorf("EVENTS holds %d events, want %d", len(stored), n)
	}
	seen := map[string]bool{}
	var last *Stored
	for i := range stored {
		e := &stored[i]
		if seen[e.Event.ID] {
			s.t.Errorf("EVENTS holds %s twice", e.Event.ID)
		}
		seen[e.Event.ID] = true
		if last != nil && e.Event.Sequence.Compare(last.Event.Sequence) <= 0 {
			s.t.Errorf("EVENTS holds %s behind %s", e.Event.Sequence, last.Event.Sequence)
		}
		s.checkTransaction(last, e)
		last = e
	}
	if last != nil && last.Row.Tx != nil && !last.Row.Tx.Last {
		s.t.Errorf("EVENTS ends inside the transaction of %s", last.Event.ID)
	}
	return stored
}

func (s *System) checkTransaction(last, e *Stored) {
	s.t.Helper()
	if e.Row.Tx == nil {
		return
	}
	continues := last != nil && last.Row.Tx != nil && last.Row.Tx.CommitLSN == e.Row.Tx.CommitLSN
	switch {
	case continues && last.Row.Tx.Last:
		s.t.Errorf("%s follows the last event of its transaction", e.Event.ID)
	case continues && e.Row.Tx.Index != last.Row.Tx.Index+1:
		s.t.Errorf("%s follows index %d", e.Event.ID, last.Row.Tx.Index)
	case !continues && e.Row.Tx.Index != 1:
		s.t.Errorf("%s begins a transaction", e.Event.ID)
	case !continues && last != nil && last.Row.Tx != nil && !last.Row.Tx.Last:
		s.t.Errorf("%s follows a transaction that has no end", e.Event.ID)
	}
}
