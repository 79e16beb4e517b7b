package ingest_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/tributary-dev/tributary/internal/eventstest"
	"github.com/tributary-dev/tributary/internal/natstest"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/ingest"
	"github.com/tributary-dev/tributary/streams"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStreamHoldsEachEventOnceInOrder(t *testing.T) {
	cases := map[string]struct{ transactions, perTransaction, perBatch int }{
		"one by one":                     {200, 1, 1},
		"a few at a time":                {100, 3, 9},
		"atomic batches":                 {100, 50, 400},
		"transactions over many batches": {3, 2500, 999},
		"batches larger than one step":   {4, 1500, 1500},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			server := natstest.Start(t)
			w := newWorld(t, server)
			source := &generator{transactions: c.transactions, perTransaction: c.perTransaction, perBatch: c.perBatch}
			w.lead(t, source)
			w.waitFor(t, source.total())
			w.verify(t, source.total())
		})
	}
}

func TestTakeoverEndsTheEarlierLeader(t *testing.T) {
	server := natstest.Start(t)
	w := newWorld(t, server)
	source := func() *generator {
		return &generator{transactions: 400, perTransaction: 5, perBatch: 7, pause: time.Millisecond}
	}
	// Nobody holds a lease here: all of them write at the same time, and depose each other over and over.
	for range 4 {
		w.lead(t, source())
	}
	w.waitFor(t, 2000)
	w.verify(t, 2000)
}

func TestServerRestartsLoseAndRepeatNothing(t *testing.T) {
	server := natstest.Start(t)
	w := newWorld(t, server)
	source := &generator{transactions: 600, perTransaction: 7, perBatch: 20, pause: time.Millisecond}
	w.lead(t, source)
	for i := range 5 {
		w.waitFor(t, 500*(i+1))
		server.Restart(t)
	}
	w.waitFor(t, source.total())
	w.verify(t, source.total())
}

func TestFullStreamWaitsUntilThereIsRoom(t *testing.T) {
	server := natstest.Start(t)
	w := newWorld(t, server)
	w.config.MaxBytes = 100_000
	if _, err := w.js.UpdateStream(t.Context(), w.config); err != nil {
		t.Fatal(err)
	}
	source := &generator{transactions: 400, perTransaction: 5, perBatch: 50}
	w.lead(t, source)
	refused := func() bool { return w.metric(t, "tributary_ingest_full_total") > 0 }
	eventually(t, "EVENTS refuses for lack of room", refused)
	w.config.MaxBytes = 100_000_000
	if _, err := w.js.UpdateStream(t.Context(), w.config); err != nil {
		t.Fatal(err)
	}
	w.waitFor(t, source.total())
	w.verify(t, source.total())
}

func TestRefusalEndsThePipeline(t *testing.T) {
	server := natstest.Start(t)
	w := newWorld(t, server)
	pipeline := w.pipeline()
	err := pipeline.Run(t.Context(), refuser{}, noLease{})
	if !errors.Is(err, ingest.ErrRefused) {
		t.Fatalf("got %v, want a refusal", err)
	}
}

type refuser struct{}

func (refuser) Name() string { return "shop" }
func (refuser) Run(context.Context, ingest.State, *ingest.Feed) error {
	return fmt.Errorf("slot gone: %w", ingest.ErrRefused)
}

// world is a server with an EVENTS stream, and leaders that write to it.
type world struct {
	server   *natstest.Server
	js       jetstream.JetStream
	config   jetstream.StreamConfig
	registry *prometheus.Registry
	metrics  *ingest.Metrics
	leaders  atomic.Int64
	health   func(source string, ok bool, why string)
	pipeline func() *ingest.Pipeline
}

func newWorld(t *testing.T, server *natstest.Server) *world {
	w := &world{server: server, js: server.JetStream(t), registry: prometheus.NewRegistry()}
	w.metrics = ingest.NewMetrics(w.registry)
	if _, err := streams.Apply(t.Context(), w.js, streams.Options{EventsMaxBytes: -1}); err != nil {
		t.Fatal(err)
	}
	stream, err := w.js.Stream(t.Context(), events.StreamEvents)
	if err != nil {
		t.Fatal(err)
	}
	w.config = stream.CachedInfo().Config
	w.pipeline = func() *ingest.Pipeline {
		nc := server.Conn(t, nats.ReconnectBufSize(-1), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		stream, err := js.Stream(t.Context(), events.StreamEvents)
		if err != nil {
			t.Fatal(err)
		}
		return ingest.NewPipeline(nc, stream, ingest.Options{
			Leader: fmt.Sprintf("leader-%d", w.leaders.Add(1)), Log: slog.New(slog.DiscardHandler), Metrics: w.metrics,
			Health: w.health,
		})
	}
	return w
}

// lead runs source until the test ends.
func (w *world) lead(t *testing.T, source ingest.Source) { t.Cleanup(w.start(t, source)) }

// start runs source until stop is called.
func (w *world) start(t *testing.T, source ingest.Source) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	pipeline := w.pipeline()
	go func() { ended <- pipeline.Run(ctx, source, noLease{}) }()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("pipeline ended with %v", err)
		}
	}
}

func (w *world) count(t *testing.T) int {
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	stream, err := w.js.Stream(ctx, events.StreamEvents)
	if err != nil {
		return 0 // restarting
	}
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(events.EventsOfSource("shop")))
	if err != nil {
		return 0
	}
	n := 0
	for _, messages := range info.State.Subjects {
		n += int(messages)
	}
	return n
}

func (w *world) waitFor(t *testing.T, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("EVENTS holds %d", n), func() bool { return w.count(t) >= n })
}

// verify reads all of EVENTS: n events, ascending without a gap.
func (w *world) verify(t *testing.T, n int) {
	t.Helper()
	var last events.Sequence
	for i, event := range eventstest.Read(t, w.js, "shop", n) {
		nextInside := event.Sequence.Commit == last.Commit && event.Sequence.Index == last.Index+1
		nextBegins := event.Sequence.Commit == last.Commit+100 && event.Sequence.Index == 1
		if !nextInside && !nextBegins {
			t.Fatalf("event %d is %s, behind %s", i, event.Sequence, last)
		}
		if tx := event.Row.Tx; tx == nil || tx.Index != event.Sequence.Index {
			t.Fatalf("event %d has tx %+v beside sequence %s", i, tx, event.Sequence)
		}
		last = event.Sequence
	}
	if count := w.count(t); count != n {
		t.Fatalf("EVENTS holds %d events, want %d", count, n)
	}
}

func (w *world) metric(t *testing.T, name string) float64 {
	families, err := w.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == name {
			return family.GetMetric()[0].GetCounter().GetValue()
		}
	}
	return 0
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

type noLease struct{}

func (noLease) Hold(ctx context.Context, work func(context.Context) error) error { return work(ctx) }

// generator is a source of transactions whose commits lie 100 apart, the same whenever it is read.
type generator struct {
	transactions, perTransaction, perBatch int
	pause                                  time.Duration // before each batch
	marked                                 bool          // each batch ends with a mark
}

func (*generator) Name() string { return "shop" }
func (g *generator) total() int { return g.transactions * g.perTransaction }

func (g *generator) Run(ctx context.Context, state ingest.State, feed *ingest.Feed) error {
	position := state.Position
	if position.Phase == "" {
		position.Phase, position.Incarnation = ingest.PhaseStreaming, 1
		batch := feed.Batch()
		batch.Items = append(batch.Items, ingest.Item{Mark: &position})
		if err := feed.Put(ctx, batch); err != nil {
			return err
		}
	}
	batch := feed.Batch()
	for tx := 1; tx <= g.transactions; tx++ {
		for index := 1; index <= g.perTransaction; index++ {
			item := g.event(batch, tx, index)
			if state.Stored(item.At) {
				continue
			}
			batch.Items = append(batch.Items, item)
			if len(batch.Items) < g.perBatch {
				continue
			}
			if g.marked {
				mark := position
				mark.EndLSN = events.LSN(item.At.Commit)
				batch.Items = append(batch.Items, ingest.Item{Mark: &mark})
			}
			if err := feed.Put(ctx, batch); err != nil {
				return err
			}
			batch = feed.Batch()
			if g.pause > 0 {
				time.Sleep(g.pause)
			}
		}
	}
	if err := feed.Put(ctx, batch); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

func (g *generator) event(batch *ingest.Batch, tx, index int) ingest.Item {
	commit := events.LSN(tx * 100)
	c := events.Change{
		ID: events.AppendChangeID(nil, "shop", 1, commit, uint32(tx), uint32(index)), Source: "shop", Op: events.OpInsert,
		Schema: "public", Table: "orders", Time: time.Unix(1700000000, 0), PartitionKey: []byte("public.orders/1"),
		Sequence: events.Sequence{Commit: uint64(commit), Index: uint32(index)}, After: []byte(`{"id":1}`),
		InTransaction: true, XID: uint32(tx), Commit: commit, Last: index == g.perTransaction,
	}
	start := len(batch.Buf)
	batch.Buf = events.AppendChange(batch.Buf, &c)
	item := ingest.Item{
		Subject: events.Address{Partition: 1, Source: "shop", Schema: "public", Table: "orders", Op: events.OpInsert}.Subject(),
		Data:    batch.Buf[start:len(batch.Buf):len(batch.Buf)], At: c.Sequence, XID: c.XID,
	}
	if c.Last {
		item.Through = commit + 1
	}
	return item
}

func TestResetDeposesTheLeaderAndCountsAnIncarnation(t *testing.T) {
	server := natstest.Start(t)
	w := newWorld(t, server)
	source := &generator{transactions: 10, perTransaction: 3, perBatch: 5}
	stop := w.start(t, source)
	w.waitFor(t, source.total())
	stop()
	nc := server.Conn(t)
	stream, err := w.js.Stream(t.Context(), events.StreamEvents)
	if err != nil {
		t.Fatal(err)
	}
	reset, err := ingest.Reset(t.Context(), nc, stream, "shop", "test", ingest.Position{})
	if err != nil || reset.Incarnation != 2 {
		t.Fatalf("got %+v (%v), want incarnation 2", reset, err)
	}
	seen := &observer{state: make(chan ingest.State, 1)}
	w.lead(t, seen)
	state := <-seen.state
	if p := state.Position; p.Phase != ingest.PhaseSetup || p.Incarnation != 2 || !state.Last.IsZero() || state.Through != 0 {
		t.Errorf("the next leader begins with %+v", state)
	}
}

// observer is a source that tells what it was started with.
type observer struct{ state chan ingest.State }

func (*observer) Name() string { return "shop" }
func (o *observer) Run(ctx context.Context, state ingest.State, _ *ingest.Feed) error {
	o.state <- state
	<-ctx.Done()
	return nil
}
