package ingest_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"github.com/tributary-dev/tributary/internal/natstest"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/ingest"
)

// A logical message outside of a transaction has its end as its place, and the next commit may begin right there.
func TestReadingGoesOnAtTheEndOfTheLastMessageOfNoTransaction(t *testing.T) {
	const end = events.LSN(0x500)
	server := natstest.Start(t)
	w := newWorld(t, server)
	stop := w.start(t, &scripted{script: func(ctx context.Context, state ingest.State, feed *ingest.Feed) error {
		first := feed.Batch()
		first.Items = append(first.Items, begin(state))
		if err := errors.Join(feed.Put(ctx, first), feed.Sync(ctx)); err != nil {
			return err
		}
		batch := feed.Batch()
		batch.Items = append(batch.Items, message(batch, end))
		return feed.Put(ctx, batch)
	}})
	w.waitFor(t, 1)
	stop()
	seen := &observer{state: make(chan ingest.State, 1)}
	w.lead(t, seen)
	state := <-seen.state
	if at := (events.Sequence{Commit: uint64(end)}); state.Last != at {
		t.Errorf("the last event is %s, want %s", state.Last, at)
	}
	if state.Through != end {
		t.Errorf("reading goes on at %s: a transaction whose commit begins at %s, right behind the message, would be lost", state.Through, end)
	}
}

// A mark that comes before events in one step is stored behind them, and says less than they do.
func TestReadingGoesOnBehindTheLastTransactionAlsoWhereAPositionLiesBehindIt(t *testing.T) {
	server := natstest.Start(t)
	w := newWorld(t, server)
	g := &generator{transactions: 1, perTransaction: 2, perBatch: 10}
	stop := w.start(t, &scripted{script: func(ctx context.Context, state ingest.State, feed *ingest.Feed) error {
		batch := feed.Batch()
		batch.Items = append(batch.Items, begin(state), g.event(batch, 1, 1), g.event(batch, 1, 2))
		return feed.Put(ctx, batch)
	}})
	w.waitFor(t, 2)
	stop()
	seen := &observer{state: make(chan ingest.State, 1)}
	w.lead(t, seen)
	if state := <-seen.state; state.Through != 101 {
		t.Errorf("reading goes on at %s, and the slot may have been told %s", state.Through, events.LSN(101))
	}
}

// put puts the transactions that are not stored, and the mark of a first start.
func (g *generator) put(ctx context.Context, state ingest.State, feed *ingest.Feed) error {
	if state.Position.Phase == "" && state.Last.IsZero() {
		first := feed.Batch()
		first.Items = append(first.Items, begin(state))
		if err := errors.Join(feed.Put(ctx, first), feed.Sync(ctx)); err != nil {
			return err
		}
	}
	batch := feed.Batch()
	for tx := 1; tx <= g.transactions; tx++ {
		for index := 1; index <= g.perTransaction; index++ {
			if item := g.event(batch, tx, index); !state.Stored(item.At) {
				batch.Items = append(batch.Items, item)
			}
		}
	}
	if err := feed.Put(ctx, batch); err != nil {
		return err
	}
	return feed.Sync(ctx)
}

// scripted is a source that does what a script says, and then waits.
type scripted struct {
	script func(ctx context.Context, state ingest.State, feed *ingest.Feed) error
}

func (*scripted) Name() string { return "shop" }

func (s *scripted) Run(ctx context.Context, state ingest.State, feed *ingest.Feed) error {
	if err := s.script(ctx, state, feed); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// begin is the mark of a first start.
func begin(state ingest.State) ingest.Item {
	position := state.Position
	position.Phase, position.Incarnation = ingest.PhaseStreaming, 1
	return ingest.Item{Mark: &position}
}

// message is a logical message of no transaction that ends at end.
func message(batch *ingest.Batch, end events.LSN) ingest.Item {
	c := events.Change{
		ID: events.AppendChangeID(nil, "shop", 1, end, 0, 0), Source: "shop", Op: events.OpMessage, Prefix: "note", Content: []byte(`1`),
		PartitionKey: []byte("note"), Sequence: events.Sequence{Commit: uint64(end)},
	}
	start := len(batch.Buf)
	batch.Buf = events.AppendChange(batch.Buf, &c)
	return ingest.Item{
		Subject: events.Address{Partition: 1, Source: "shop", Table: "note", Op: events.OpMessage}.Subject(),
		Data:    batch.Buf[start:len(batch.Buf):len(batch.Buf)], At: c.Sequence, Through: end,
	}
}

// A server that comes back with less than it had acknowledged need not be the one that ingest is connected to.
func TestLossOfTheTailIsSeenOnAnUnbrokenConnection(t *testing.T) {
	server := natstest.Start(t)
	w := newWorld(t, server)
	more := make(chan struct{})
	w.lead(t, &scripted{script: func(ctx context.Context, state ingest.State, feed *ingest.Feed) error {
		g := &generator{transactions: 2, perTransaction: 3}
		if err := g.put(ctx, state, feed); err != nil {
			return err
		}
		select {
		case <-more:
		case <-ctx.Done():
			return ctx.Err()
		}
		g.transactions = 3
		return g.put(ctx, ingest.State{Position: state.Position, Last: events.Sequence{Commit: 200, Index: 3}}, feed)
	}})
	w.waitFor(t, 6)
	stream, err := w.js.Stream(t.Context(), events.StreamEvents)
	if err != nil {
		t.Fatal(err)
	}
	for sequence := range uint64(2) {
		if err := stream.DeleteMsg(t.Context(), stream.CachedInfo().State.LastSeq-sequence); err != nil {
			t.Fatal(err)
		}
	}
	w.waitFor(t, 6) // again, from the session that follows
	close(more)
	w.waitFor(t, 9)
	w.verify(t, 9)
}

// A position of INBOX is all that says which of its messages are stored.
func TestMarkStaysWithALargeEvent(t *testing.T) {
	server := natstest.Start(t, func(o *natsserver.Options) { o.MaxPayload = 16 << 20 })
	w := newWorld(t, server)
	w.lead(t, &scripted{script: func(ctx context.Context, state ingest.State, feed *ingest.Feed) error {
		batch := feed.Batch()
		item := message(batch, 0x500)
		item.Data = append(item.Data, strings.Repeat(" ", ingest.MaxBatchBytes)...)
		batch.Items = append(batch.Items, item, begin(state))
		return feed.Put(ctx, batch)
	}})
	w.waitFor(t, 1)
	stream, err := w.js.Stream(t.Context(), events.StreamEvents)
	if err != nil {
		t.Fatal(err)
	}
	event, err := stream.GetLastMsgForSubject(t.Context(), events.EventsOfSource("shop"))
	if err != nil {
		t.Fatal(err)
	}
	position, err := stream.GetMsg(t.Context(), event.Sequence+1)
	if err != nil {
		t.Fatal(err)
	}
	if batch := event.Header.Get("Nats-Batch-Id"); batch == "" || position.Header.Get("Nats-Batch-Id") != batch {
		t.Errorf("the event came in batch %q, and the position behind it in %q", batch, position.Header.Get("Nats-Batch-Id"))
	}
}
