package conformance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tributary-dev/tributary/internal/eventstest"
	"github.com/tributary-dev/tributary/internal/natstest"
	"github.com/tributary-dev/tributary/internal/pgtest"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/ingest"
	"github.com/tributary-dev/tributary/pkg/pgcdc"
	"github.com/tributary-dev/tributary/streams"
)

// cut is a source whose session ends after its first batch with events went on: at once, so that it may be stored, on its way
// or lost, or after it was stored. It also ends when there is nothing to read.
type cut struct {
	ingest.Source
	stored bool
	whole  bool // not after events, but at the end of the snapshot
}

var errCut = errors.New("cut")

func (c cut) Run(ctx context.Context, state ingest.State, feed *ingest.Feed) error {
	between := ingest.NewFeed(1) // one batch at a time
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ended := make(chan error, 1)
	go func() { ended <- c.Source.Run(ctx, state, between) }()
	err := c.pass(ctx, between, feed, state.Position.Phase == ingest.PhaseStreaming)
	cancel(err)
	if own := <-ended; errors.Is(own, ingest.ErrRefused) {
		return own
	}
	return err
}

func (c cut) pass(ctx context.Context, from, to *ingest.Feed, streaming bool) error {
	for {
		batches, err := from.Take(ctx)
		if err != nil {
			return err
		}
		for _, b := range batches {
			moved := to.Batch()
			moved.Items, moved.Buf = append(moved.Items, b.Items...), append(moved.Buf, b.Buf...)
			begin := 0
			some := streaming && len(b.Buf) == 0
			for i := range moved.Items { // they point into the memory of the batch that they came in
				end := begin + len(moved.Items[i].Data)
				moved.Items[i].Data = moved.Buf[begin:end:end]
				begin, some = end, some || c.due(moved.Items[i].Mark)
			}
			if err := to.Put(ctx, moved); err != nil {
				return err
			}
			from.Stored(b)
			if !some {
				continue
			}
			if c.stored {
				if err := to.Sync(ctx); err != nil {
					return err
				}
			}
			return errCut
		}
	}
}

// due tells whether the session ends after an item, which is an event where it is no mark.
func (c cut) due(mark *ingest.Position) bool {
	if c.whole {
		return mark != nil && mark.Phase == ingest.PhaseStreaming && len(mark.Cursor) == 0 // no row of the snapshot is left
	}
	return mark == nil
}

// once is a lease for one session.
type once struct{ over context.CancelFunc }

func (o once) Hold(ctx context.Context, work func(context.Context) error) error {
	defer o.over()
	return work(ctx)
}

// TestEveryKillPointOfATransaction cuts the reading of one large transaction, among small ones, between each two of its batches,
// and goes on by a new leader each time, through the fence, on a real stream.
func TestEveryKillPointOfATransaction(t *testing.T) {
	const rows = 9000
	server := natstest.Start(t)
	js := server.JetStream(t)
	if _, err := streams.Apply(t.Context(), js, streams.Options{EventsMaxBytes: -1}); err != nil {
		t.Fatal(err)
	}
	url := pgtest.Database(t)
	exec := pgtest.Exec(t, url)
	exec(`CREATE TABLE t (id int PRIMARY KEY, note text); ALTER TABLE t REPLICA IDENTITY FULL; INSERT INTO t VALUES (0)`)
	session := func(n int, c cut) {
		t.Helper()
		c.Source = newSource(t, url)
		lead(t, server, n, c)
	}
	session(0, cut{stored: true, whole: true}) // the snapshot: what is left of it would come among the changes
	exec(`INSERT INTO t VALUES (-1)`)
	exec(fmt.Sprintf(`INSERT INTO t SELECT i, repeat('x', 100) FROM generate_series(1, %d) i`, rows))
	exec(`UPDATE t SET note = 'y' WHERE id <= 10`)
	all := 1 + 1 + rows + 12
	sessions := 0
	for held := 1; held < all; held = countEvents(t, js) {
		sessions++
		if sessions > 100 {
			t.Fatalf("no end: EVENTS holds %d of %d", held, all)
		}
		session(sessions, cut{stored: sessions%2 == 0})
	}
	if sessions < 8 {
		t.Errorf("%d sessions: the transaction was cut too seldom", sessions)
	}
	verifyTransactions(t, js, all)
}

func newSource(t *testing.T, url string) *pgcdc.Source {
	t.Helper()
	source, err := pgcdc.New(pgcdc.Options{Name: "shop", ConnString: url, Tables: []string{"public.*"}, Snapshot: true, Partitions: 16, Heartbeat: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	return source
}

// lead runs a source for one session.
func lead(t *testing.T, server *natstest.Server, n int, source ingest.Source) {
	t.Helper()
	nc := server.Conn(t, nats.ReconnectBufSize(-1))
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), events.StreamEvents)
	if err != nil {
		t.Fatal(err)
	}
	pipeline := ingest.NewPipeline(nc, stream, ingest.Options{
		Leader: fmt.Sprintf("leader-%d", n), Log: slog.New(slog.DiscardHandler), Metrics: ingest.NewMetrics(prometheus.NewRegistry()),
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := pipeline.Run(ctx, source, once{cancel}); err != nil {
		t.Fatal(err)
	}
}

// countEvents counts the events of the source.
func countEvents(t *testing.T, js jetstream.JetStream) (n int) {
	t.Helper()
	stream, err := js.Stream(t.Context(), events.StreamEvents)
	if err != nil {
		t.Fatal(err)
	}
	info, err := stream.Info(t.Context(), jetstream.WithSubjectFilter(events.EventsOfSource("shop")))
	if err != nil {
		t.Fatal(err)
	}
	for _, messages := range info.State.Subjects {
		n += int(messages)
	}
	return n
}

// verifyTransactions reads all events: n of them, each once, those of a transaction together and counted from 1, the last one
// marked and no other.
func verifyTransactions(t *testing.T, js jetstream.JetStream, n int) {
	t.Helper()
	open, ids := events.Tx{Last: true}, map[string]bool{}
	for i, event := range eventstest.Read(t, js, "shop", n) {
		row := event.Row
		if ids[event.ID] {
			t.Fatalf("%s is there twice", event.ID)
		}
		ids[event.ID] = true
		if row.Tx == nil {
			continue
		}
		begins := open.Last && row.Tx.Index == 1
		goesOn := !open.Last && row.Tx.ID == open.ID && row.Tx.Index == open.Index+1
		if !begins && !goesOn {
			t.Fatalf("event %d is %+v, behind %+v", i, *row.Tx, open)
		}
		open = *row.Tx
	}
	if count := countEvents(t, js); count != n || !open.Last {
		t.Errorf("EVENTS holds %d events, want %d, and ends with %+v", count, n, open)
	}
}

// TestNoWindowForDuplicatesIsReliedOn has another leader read a stored transaction again from its first change, after the server
// has forgotten every message's id.
func TestNoWindowForDuplicatesIsReliedOn(t *testing.T) {
	server := natstest.Start(t)
	js := server.JetStream(t)
	if _, err := streams.Apply(t.Context(), js, streams.Options{EventsMaxBytes: -1}); err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), events.StreamEvents)
	if err != nil {
		t.Fatal(err)
	}
	if window := stream.CachedInfo().Config.Duplicates; window > 100*time.Millisecond {
		t.Errorf("EVENTS remembers ids for %v: nothing needs that, and it takes memory", window)
	}
	url := pgtest.Database(t)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	for _, sql := range []string{`CREATE TABLE t (id int PRIMARY KEY, note text)`, `INSERT INTO t VALUES (0)`} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	lead(t, server, 1, cut{Source: newSource(t, url), stored: true, whole: true})
	if _, err := conn.Exec(t.Context(), `INSERT INTO t SELECT i, repeat('x', 100) FROM generate_series(1, 3000) i`); err != nil {
		t.Fatal(err)
	}
	n := 2
	for ; countEvents(t, js) == 1; n++ { // a session may end before the transaction comes
		lead(t, server, n, cut{Source: newSource(t, url), stored: true})
	}
	if countEvents(t, js) == 3001 {
		t.Fatal("EVENTS holds all events: the transaction was not cut")
	}
	server.Restart(t)
	js = server.JetStream(t)
	for ; countEvents(t, js) < 3001; n++ {
		lead(t, server, n, cut{Source: newSource(t, url), stored: true})
	}
	verifyTransactions(t, js, 3001)
}
