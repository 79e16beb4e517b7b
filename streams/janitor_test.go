package streams_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/internal/natstest"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/streams"
)

const flood = 60 // events that bring EVENTS above its high water

// In each case message 1 is a position of the source shop, and the flood behind it is of shop, in partitions 0 and 1 by
// turns: messages 2 to 61, but where something comes before.
func TestJanitor(t *testing.T) {
	cases := map[string]struct {
		before []string       // subjects of messages before the flood
		after  []string       // and behind it
		acked  map[string]int // durables by their filter, and how many messages each acknowledges
		says   string         // the log, when it is done
		left   []uint64
		gone   []uint64
	}{
		"frees what every durable has acknowledged": {
			acked: map[string]int{"events.000.>": 20, "events.001.>": 25},
			says:  "EVENTS freed",
			left:  []uint64{1, 42, 43}, gone: []uint64{2, 40, 41},
		},
		"frees all that is acknowledged but a source's last event": {
			acked: map[string]int{"events.>": flood},
			says:  "EVENTS freed",
			left:  []uint64{1, 61}, gone: []uint64{2, 60},
		},
		"keeps a source's last event also before a position, which may be from a takeover and say nothing of it": {
			acked: map[string]int{"events.>": flood}, after: []string{"positions.shop"},
			says: "EVENTS freed",
			left: []uint64{1, 61, 62}, gone: []uint64{2, 60},
		},
		"lets no source that is silent hold up the others": {
			before: []string{"positions.old", "events.000.old.a.b.insert"},
			acked:  map[string]int{"events.>": flood + 1},
			says:   "EVENTS freed",
			left:   []uint64{1, 2, 3, 63}, gone: []uint64{4, 62},
		},
		"lets no durable without messages hold up the others": {
			acked: map[string]int{"events.>": 30, "events.007.>": 0},
			says:  "EVENTS freed",
			left:  []uint64{1, 32}, gone: []uint64{2, 31},
		},
		"frees nothing past a durable that has acknowledged nothing": {
			acked: map[string]int{"events.000.>": 30, "events.001.>": 0},
			says:  "has not acknowledged",
			left:  []uint64{1, 3, 4}, gone: []uint64{2},
		},
		"frees nothing without durables": {
			says: "no durable consumer",
			left: []uint64{1, 2},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			p := newPond(t)
			p.publish("positions.shop")
			p.publish(c.before...)
			p.flood()
			p.publish(c.after...)
			for filter, n := range c.acked {
				p.consume(filter, n)
			}
			logged := p.run(streams.JanitorOptions{Every: 10 * time.Millisecond})
			for !strings.Contains(<-logged, c.says) { // other lines are of no interest
			}
			for _, seq := range c.left {
				if !p.has(seq) {
					t.Errorf("message %d is gone", seq)
				}
			}
			for _, seq := range c.gone {
				if p.has(seq) {
					t.Errorf("message %d is left", seq)
				}
			}
		})
	}
}

func TestJanitorLeavesEventsAloneBelowHighWater(t *testing.T) {
	p := newPond(t)
	p.flood()
	p.consume("events.>", flood)
	looks, err := p.js.Conn().SubscribeSync("$JS.API.STREAM.INFO.EVENTS")
	if err != nil {
		t.Fatal(err)
	}
	p.run(streams.JanitorOptions{Every: 10 * time.Millisecond, HighWater: 0.99})
	for range 3 { // the third look begins after the second sweep has ended
		if _, err := looks.NextMsg(10 * time.Second); err != nil {
			t.Fatal(err)
		}
	}
	if !p.has(1) {
		t.Error("the first event is gone")
	}
}

func TestJanitorOutlivesTheServersAbsence(t *testing.T) {
	p := newPond(t)
	p.flood()
	p.consume("events.>", flood)
	p.server.Stop()
	logged := p.run(streams.JanitorOptions{Every: 10 * time.Millisecond})
	p.server.Restart(t)
	for !strings.Contains(<-logged, "EVENTS freed") { // other lines are of no interest
	}
}

// pond is an EVENTS that fills easily.
type pond struct {
	t      *testing.T
	server *natstest.Server
	js     jetstream.JetStream
}

func newPond(t *testing.T) *pond {
	t.Helper()
	server := natstest.Start(t)
	p := &pond{t: t, server: server, js: server.JetStream(t)}
	apply(t, p.js, streams.Options{EventsMaxBytes: 72 << 10})
	return p
}

func (p *pond) publish(subjects ...string) {
	p.t.Helper()
	for _, subject := range subjects {
		if _, err := p.js.Publish(p.t.Context(), subject, make([]byte, 1<<10)); err != nil {
			p.t.Fatal(err)
		}
	}
}

func (p *pond) flood() {
	p.t.Helper()
	for i := range flood {
		p.publish(events.Address{Partition: i % 2, Source: "shop", Schema: "public", Table: "orders", Op: events.OpInsert}.Subject())
	}
}

// consume makes a durable and acknowledges its first n messages.
func (p *pond) consume(filter string, n int) {
	p.t.Helper()
	consumer, err := p.js.CreateConsumer(p.t.Context(), events.StreamEvents, jetstream.ConsumerConfig{
		Durable: fmt.Sprintf("d%x", filter), FilterSubject: filter, AckPolicy: jetstream.AckExplicitPolicy,
	})
	if err != nil {
		p.t.Fatal(err)
	}
	for range n {
		msg, err := consumer.Next()
		if err != nil {
			p.t.Fatal(err)
		}
		if err := msg.DoubleAck(p.t.Context()); err != nil {
			p.t.Fatal(err)
		}
	}
}

// run runs the janitor until the test ends, and gives the lines of its log.
func (p *pond) run(options streams.JanitorOptions) <-chan string {
	lines := make(lineWriter, 100)
	options.Log = slog.New(slog.NewTextHandler(lines, nil))
	ctx, cancel := context.WithCancel(p.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- streams.RunJanitor(ctx, p.js, options) }()
	p.t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			p.t.Errorf("the janitor ended with %v, want Canceled", err)
		}
	})
	return lines
}

func (p *pond) has(sequence uint64) bool {
	p.t.Helper()
	stream, err := p.js.Stream(p.t.Context(), events.StreamEvents)
	if err != nil {
		p.t.Fatal(err)
	}
	_, err = stream.GetMsg(p.t.Context(), sequence)
	if err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) {
		p.t.Fatal(err)
	}
	return err == nil
}

// lineWriter hands on what is written, a line at a time.
type lineWriter chan string

func (w lineWriter) Write(line []byte) (int, error) {
	w <- string(line)
	return len(line), nil
}
