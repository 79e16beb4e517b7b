package publish_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/tributary-dev/tributary/internal/natstest"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/publish"
	"github.com/tributary-dev/tributary/streams"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func placed() publish.Message {
	return publish.Message{
		Source: "web_shop", Entity: "order", Type: "placed", Key: "42", ID: "1", Data: []byte(`{"total":19.90}`),
	}
}

// What is published is read as ingest reads it.
func TestMessagesBecomeEvents(t *testing.T) {
	const data = `{"total":19.90}`
	cases := map[string]struct {
		change func(m *publish.Message)
		want   events.Event
	}{
		"plain data gets an envelope of ours": {
			change: func(*publish.Message) {},
			want: events.Event{
				ID: "web_shop/1", Source: "/tributary/web_shop", Type: "order.placed", Subject: "order/42", PartitionKey: "order/42",
			},
		},
		"without a key the entity is the key": {
			change: func(m *publish.Message) { m.Key = "" },
			want: events.Event{
				ID: "web_shop/1", Source: "/tributary/web_shop", Type: "order.placed", Subject: "order", PartitionKey: "order",
			},
		},
		"names of any text are escaped": {
			change: func(m *publish.Message) { m.Entity, m.Type, m.Key = "a.b", "re placed", "a/b" },
			want: events.Event{
				ID: "web_shop/1", Source: "/tributary/web_shop", Type: "a.b.re placed",
				Subject: "a%2Eb/a%2Fb", PartitionKey: "a%2Eb/a%2Fb",
			},
		},
		"a CloudEvent keeps its attributes": {
			change: func(m *publish.Message) {
				m.Envelope = &publish.Envelope{
					Source: "https://shop.example/orders", Type: "example.order.v2", Subject: "a<b", DataSchema: "urn:schema",
					Time: time.Date(2026, 11, 23, 8, 45, 53, 0, time.UTC), Extensions: map[string]string{"tenant": "7"},
				}
			},
			want: events.Event{
				ID: "1", Source: "https://shop.example/orders", Type: "example.order.v2", Subject: "a<b", PartitionKey: "order/42",
				Time: time.Date(2026, 11, 23, 8, 45, 53, 0, time.UTC),
			},
		},
		"a CloudEvent may leave its type to the message": {
			change: func(m *publish.Message) { m.Envelope = &publish.Envelope{Source: "urn:shop"} },
			want:   events.Event{ID: "1", Source: "urn:shop", Type: "order.placed", PartitionKey: "order/42"},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			js := inbox(t, natstest.Start(t))
			message := placed()
			c.change(&message)
			receipt, err := publish.New(js).Publish(t.Context(), message)
			if err != nil {
				t.Fatal(err)
			}
			if want := (publish.Receipt{ID: "1", Sequence: 1}); receipt != want {
				t.Errorf("got receipt %+v, want %+v", receipt, want)
			}
			c.want.DataContentType, c.want.Data = "application/json", []byte(data)
			ignore := cmpopts.IgnoreFields(events.Event{}, "Sequence", "TraceParent")
			got := read(t, js, 1)
			if c.want.Time.IsZero() {
				c.want.Time = got.Time // when it was stored
			}
			if d := cmp.Diff(c.want, *got, ignore); d != "" {
				t.Errorf("event (-want +got):\n%s", d)
			}
		})
	}
}

func TestMessagesThatBreakTheRulesAreRefused(t *testing.T) {
	js := inbox(t, natstest.Start(t))
	cases := map[string]struct {
		change func(m *publish.Message)
		want   error
	}{
		"a source outside of its alphabet":    {func(m *publish.Message) { m.Source = "Web Shop" }, publish.ErrInvalid},
		"no source":                           {func(m *publish.Message) { m.Source = "" }, publish.ErrInvalid},
		"no entity":                           {func(m *publish.Message) { m.Entity = "" }, publish.ErrInvalid},
		"no type":                             {func(m *publish.Message) { m.Type = "" }, publish.ErrInvalid},
		"data that is no JSON":                {func(m *publish.Message) { m.Data = []byte("{") }, publish.ErrInvalid},
		"no data":                             {func(m *publish.Message) { m.Data = nil }, publish.ErrInvalid},
		"an envelope without a source":        {func(m *publish.Message) { m.Envelope = &publish.Envelope{} }, publish.ErrInvalid},
		"an envelope that claims our sources": {func(m *publish.Message) { m.Envelope = &publish.Envelope{Source: "/tributary/shop"} }, publish.ErrInvalid},
		"an envelope around what is no JSON": {func(m *publish.Message) {
			m.Envelope, m.Data = &publish.Envelope{Source: "urn:shop"}, []byte("{")
		}, publish.ErrInvalid},
		"an extension outside of its alphabet": {func(m *publish.Message) {
			m.Envelope = &publish.Envelope{Source: "urn:shop", Extensions: map[string]string{"Ten-ant": "7"}}
		}, publish.ErrInvalid},
		"more than INBOX takes":          {func(m *publish.Message) { m.Data = text(600 << 10) }, publish.ErrTooLarge},
		"more than the connection takes": {func(m *publish.Message) { m.Data = text(2 << 20) }, publish.ErrTooLarge},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			message := placed()
			c.change(&message)
			if _, err := publish.New(js).Publish(t.Context(), message); !errors.Is(err, c.want) {
				t.Errorf("got error %v, want %v", err, c.want)
			}
		})
	}
	if n := count(t, js); n != 0 {
		t.Errorf("INBOX has %d messages, want none", n)
	}
}

func TestIDsAreOfTheirSource(t *testing.T) {
	js := inbox(t, natstest.Start(t))
	p := publish.New(js)
	other := placed()
	other.Source = "billing"
	random := placed()
	random.ID = ""
	for i, c := range []struct {
		message   publish.Message
		duplicate bool
	}{{placed(), false}, {placed(), true}, {other, false}, {random, false}, {random, false}} {
		receipt, err := p.Publish(t.Context(), c.message)
		if err != nil {
			t.Fatal(err)
		}
		if receipt.Duplicate != c.duplicate {
			t.Errorf("message %d: duplicate is %t, want %t", i, receipt.Duplicate, c.duplicate)
		}
	}
	if n := count(t, js); n != 4 {
		t.Errorf("INBOX has %d messages, want 4", n)
	}
}

// A stream without acks stores what comes and answers nothing, as if the answer were lost on its way.
func TestLostAnswerStoresNoSecondMessage(t *testing.T) {
	js := inbox(t, natstest.Start(t))
	setNoAck(t, js, true)
	done := make(chan error, 1)
	go func() {
		_, err := publish.New(js).Publish(t.Context(), placed())
		done <- err
	}()
	for count(t, js) == 0 {
		time.Sleep(5 * time.Millisecond)
	}
	setNoAck(t, js, false)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := count(t, js); n != 1 {
		t.Errorf("INBOX has %d messages, want 1", n)
	}
}

func TestPublishWaitsForTheServer(t *testing.T) {
	server := natstest.Start(t)
	p := publish.New(inbox(t, server))
	server.Stop()
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := p.Publish(short, placed()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without a server: got error %v, want DeadlineExceeded", err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := p.Publish(t.Context(), placed())
		done <- err
	}()
	server.Restart(t)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func inbox(t *testing.T, server *natstest.Server) jetstream.JetStream {
	t.Helper()
	js := server.JetStream(t)
	if _, err := streams.Apply(t.Context(), js, streams.Options{}); err != nil {
		t.Fatal(err)
	}
	return js
}

// read gives the event that ingest makes of a message.
func read(t *testing.T, js jetstream.JetStream, sequence uint64) *events.Event {
	t.Helper()
	stream, err := js.Stream(t.Context(), events.StreamInbox)
	if err != nil {
		t.Fatal(err)
	}
	msg, err := stream.GetMsg(t.Context(), sequence)
	if err != nil {
		t.Fatal(err)
	}
	publication, err := events.ParsePublication(msg.Subject)
	if err != nil {
		t.Fatal(err)
	}
	data, err := events.AppendPublished(nil, events.Published{
		Publication: publication, Header: msg.Header, Body: msg.Data,
		ID: msg.Header.Get(jetstream.MsgIDHeader), Sequence: sequence, Time: msg.Time,
	})
	if err != nil {
		t.Fatal(err)
	}
	event, err := events.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return event
}

func count(t *testing.T, js jetstream.JetStream) uint64 {
	t.Helper()
	stream, err := js.Stream(t.Context(), events.StreamInbox)
	if err != nil {
		t.Fatal(err)
	}
	return stream.CachedInfo().State.Msgs
}

func setNoAck(t *testing.T, js jetstream.JetStream, noAck bool) {
	t.Helper()
	stream, err := js.Stream(t.Context(), events.StreamInbox)
	if err != nil {
		t.Fatal(err)
	}
	config := stream.CachedInfo().Config
	config.NoAck = noAck
	if _, err := js.UpdateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
}

func text(size int) []byte {
	data := make([]byte, size)
	for i := range data {
		data[i] = 'x'
	}
	data[0], data[size-1] = '"', '"'
	return data
}
