package ingest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/internal/natstest"
	"github.com/tributary-dev/tributary/pkg/deadletter"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/ingest"
	"github.com/tributary-dev/tributary/streams"
)

const partitions = 16

func TestInboxBecomesEventsOnceAndInOrder(t *testing.T) {
	server := natstest.Start(t)
	w := newInboxWorld(t, server)
	const n = 3000
	for i := range n {
		w.publish(t, fmt.Sprintf("publish.web.order.placed.%d", i%7), fmt.Sprintf(`{"n": %d}`, i), nil)
	}
	for range 3 { // all at once, without a lease: they depose each other
		w.lead(t, w.inbox())
	}
	eventually(t, "all are stored", func() bool { return len(w.events(t)) >= n })
	stored := w.events(t)
	if len(stored) != n {
		t.Fatalf("EVENTS holds %d, want %d", len(stored), n)
	}
	for i, e := range stored {
		var body struct{ N int }
		if err := json.Unmarshal(e.Data, &body); err != nil || body.N != i {
			t.Fatalf("event %d holds %s (%v)", i, e.Data, err)
		}
		if e.Sequence.Commit != uint64(i+1) || e.PartitionKey != fmt.Sprintf("order/%d", i%7) {
			t.Fatalf("event %d is %s of %s", i, e.Sequence, e.PartitionKey)
		}
	}
}

func TestInboxQuarantinesWhatCannotBeAnEvent(t *testing.T) {
	cases := map[string]struct {
		subject, body string
		header        nats.Header
	}{
		"not JSON":               {"publish.web.order.placed", "nonsense", nil},
		"a source with capitals": {"publish.Web.order.placed", "{}", nil},
		"too few tokens":         {"publish.web.order", "{}", nil},
		"too many tokens":        {"publish.web.order.placed.1.2", "{}", nil},
		"a CloudEvent that claims a row's source": {"publish.web.order.placed", `{"specversion":"1.0","id":"1","source":"/tributary/shop","type":"t"}`, nil},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			server := natstest.Start(t)
			w := newInboxWorld(t, server)
			w.publish(t, c.subject, c.body, c.header)
			w.publish(t, "publish.web.order.placed.good", `{"n": 1}`, nil)
			w.lead(t, w.inbox())
			eventually(t, "the good one behind it is stored", func() bool { return len(w.events(t)) == 1 })
			dead, err := deadletter.List(t.Context(), w.js, 0, 10)
			if err != nil || len(dead) != 1 {
				t.Fatalf("%d dead letters (%v), want 1", len(dead), err)
			}
			r := dead[0].Record
			if r.Reason != deadletter.Undecodable || string(r.Raw) != c.body || r.Subject != c.subject || r.Error == "" {
				t.Errorf("got %+v", r)
			}
		})
	}
}

func TestInboxIsPurgedBehindWhatIsStored(t *testing.T) {
	server := natstest.Start(t)
	w := newInboxWorld(t, server)
	w.lead(t, w.inbox())
	for i := range 100 {
		w.publish(t, "publish.web.order.placed", fmt.Sprint(i), nil)
	}
	eventually(t, "INBOX is empty", func() bool {
		stream, err := w.js.Stream(t.Context(), events.StreamInbox)
		return err == nil && stream.CachedInfo().State.Msgs == 0 && len(w.events(t)) == 100
	})
}

func TestInboxMadeAnewIsReadFromItsBeginning(t *testing.T) {
	server := natstest.Start(t)
	w := newInboxWorld(t, server)
	stop := w.start(t, w.inbox())
	w.publish(t, "publish.web.order.placed", `1`, nil)
	eventually(t, "it is stored", func() bool { return len(w.events(t)) == 1 })
	stop()
	if err := w.js.DeleteStream(t.Context(), events.StreamInbox); err != nil {
		t.Fatal(err)
	}
	if _, err := streams.Apply(t.Context(), w.js, streams.Options{EventsMaxBytes: -1}); err != nil {
		t.Fatal(err)
	}
	w.publish(t, "publish.web.order.placed", `2`, nil)
	w.lead(t, w.inbox())
	eventually(t, "the second is stored", func() bool { return len(w.events(t)) == 2 })
	stored := w.events(t)
	if stored[0].ID == stored[1].ID {
		t.Errorf("both have the id %s", stored[0].ID)
	}
	if stored[1].Sequence.Compare(stored[0].Sequence) <= 0 {
		t.Errorf("%s lies behind %s: whoever has settled that far would skip it", stored[1].Sequence, stored[0].Sequence)
	}
}

type inboxWorld struct{ *world }

func newInboxWorld(t *testing.T, server *natstest.Server) *inboxWorld {
	return &inboxWorld{newWorld(t, server)}
}

func (w *inboxWorld) inbox() *ingest.Inbox {
	return ingest.NewInbox(w.js, ingest.InboxOptions{
		Partitions: partitions, MaxEvent: 512 << 10, Quarantine: deadletter.New(w.js).Write,
		Log: slog.New(slog.DiscardHandler), Metrics: w.metrics,
	})
}

func (w *inboxWorld) publish(t *testing.T, subject, body string, header nats.Header) {
	t.Helper()
	if _, err := w.js.PublishMsg(t.Context(), &nats.Msg{Subject: subject, Data: []byte(body), Header: header}); err != nil {
		t.Fatal(err)
	}
}

// untilAnswered waits for a server that was started again: what is published on the old connection, whose end nobody has
// noticed yet, gets no answer.
func (w *inboxWorld) untilAnswered(t *testing.T) {
	t.Helper()
	eventually(t, "the server answers", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := w.js.Stream(ctx, events.StreamInbox)
		return err == nil
	})
}

func (w *inboxWorld) events(t *testing.T) []*events.Event {
	t.Helper()
	stream, err := w.js.Stream(t.Context(), events.StreamEvents)
	if err != nil {
		t.Fatal(err)
	}
	consumer, err := stream.CreateConsumer(t.Context(), jetstream.ConsumerConfig{FilterSubject: "events.>", AckPolicy: jetstream.AckNonePolicy})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stream.DeleteConsumer(context.WithoutCancel(t.Context()), consumer.CachedInfo().Name) }()
	batch, err := consumer.FetchNoWait(10_000)
	if err != nil {
		t.Fatal(err)
	}
	var all []*events.Event
	for msg := range batch.Messages() {
		e, err := events.Parse(msg.Data())
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}
