package worker_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/tributary-dev/tributary/internal/natskv"
	"github.com/tributary-dev/tributary/internal/natstest"
	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/deadletter"
	"github.com/tributary-dev/tributary/pkg/dedupkv"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/jobs"
	"github.com/tributary-dev/tributary/pkg/observers"
	"github.com/tributary-dev/tributary/pkg/worker"
	"github.com/tributary-dev/tributary/streams"
)

func TestMain(m *testing.M) {
	if os.Getenv(childURL) != "" {
		if err := runChild(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m, natstest.Leaks()...)
}

// rig is a NATS server with Tributary's streams, a source that publishes rows, and workers whose actions end in a sink.
type rig struct {
	t          testing.TB
	server     *natstest.Server // nil for a cluster
	connect    func() *nats.Conn
	js         jetstream.JetStream
	partitions int
	rules      *observers.Set
	sink       *sink
	commit     uint64 // of the last event
	published  int
	keys       []string // of all events, in order
}

func newRig(t testing.TB, partitions int, rules string) *rig {
	t.Helper()
	server := natstest.Start(t)
	r := &rig{t: t, server: server, connect: func() *nats.Conn { return server.Conn(t) }}
	r.setUp(partitions, 1, rules)
	return r
}

func newClusterRig(t testing.TB, partitions int, rules string) *rig {
	t.Helper()
	const replicas = 3
	servers := natstest.Cluster(t, replicas)
	r := &rig{t: t, connect: func() *nats.Conn { return servers.Conn(t) }}
	r.setUp(partitions, replicas, rules)
	return r
}

func (r *rig) setUp(partitions, replicas int, rules string) {
	r.t.Helper()
	r.partitions, r.sink, r.rules = partitions, &sink{}, parse(r.t, rules)
	var err error
	if r.js, err = jetstream.New(r.connect()); err != nil {
		r.t.Fatal(err)
	}
	if _, err := streams.Apply(r.t.Context(), r.js, streams.Options{Partitions: partitions, Replicas: replicas}); err != nil {
		r.t.Fatal(err)
	}
}

func parse(t testing.TB, rules string) *observers.Set {
	t.Helper()
	set, err := observers.Parse("observers.yaml", []byte(rules))
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// hook is one observer with one webhook.
const hook = `
observers:
  - name: o
    actions:
      - {name: a, type: webhook, url: "http://a.example/"}
`

// insert publishes an insert of the row with each key.
func (r *rig) insert(keys ...string) {
	r.t.Helper()
	r.stream()
	stored := make([]jetstream.PubAckFuture, len(keys))
	for i, key := range keys {
		r.commit++
		subject, data := row(r.commit, key, r.partitions)
		var err error
		if stored[i], err = r.js.PublishAsync(subject, data); err != nil {
			r.t.Fatal(err)
		}
		r.published++
		r.keys = append(r.keys, key)
	}
	tooLong := time.After(patience)
	for _, one := range stored {
		select {
		case <-one.Ok():
		case err := <-one.Err():
			r.t.Fatal(err)
		case <-tooLong:
			r.t.Fatal("events are not stored")
		}
	}
}

// stream waits for EVENTS, which is not there for a moment after its server has begun.
func (r *rig) stream() (stream jetstream.Stream) {
	r.t.Helper()
	eventually(r.t, "EVENTS is there", func() bool {
		ctx, cancel := context.WithTimeout(r.t.Context(), time.Second)
		defer cancel()
		var err error
		stream, err = r.js.Stream(ctx, events.StreamEvents)
		return err == nil
	})
	return stream
}

func row(commit uint64, key string, partitions int) (subject string, data []byte) {
	entity := events.AppendEntityKey(nil, "public", "orders", []byte(key))
	at := events.Sequence{Commit: commit, Index: 1}
	image := fmt.Appendf(nil, `{"id":%q,"n":%d}`, key, commit)
	data = events.AppendChange(nil, &events.Change{
		ID: events.AppendChangeID(nil, "shop", 1, events.LSN(commit), 7, 1), Source: "shop", Op: events.OpInsert,
		Schema: "public", Table: "orders", Time: time.Unix(1700000000, 0), PartitionKey: entity, Sequence: at,
		Key: fmt.Appendf(nil, `{"id":%q}`, key), After: image, InTransaction: true, XID: 7, Commit: events.LSN(commit), Last: true,
	})
	address := events.Address{
		Partition: events.Partition(entity, partitions), Source: "shop", Schema: "public", Table: "orders", Op: events.OpInsert,
	}
	return address.Subject(), data
}

// keys gives n keys, each of k in turn.
func keys(n, k int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = strconv.Itoa(i % k)
	}
	return list
}

// running is a worker under way.
type running struct {
	*worker.Worker
	t      testing.TB
	conn   *nats.Conn
	gather prometheus.Gatherer
	cancel context.CancelFunc
	ended  chan struct{}
	err    error // after ended
}

func (r *rig) start(id string, change ...func(*worker.Parts, *worker.Options)) *running {
	r.t.Helper()
	w := &running{t: r.t, conn: r.connect(), ended: make(chan struct{})}
	js, err := jetstream.New(w.conn)
	if err != nil {
		r.t.Fatal(err)
	}
	dedup, err := dedupkv.New(natskv.Open(js, events.BucketDedup), dedupkv.Options{})
	if err != nil {
		r.t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	parts := worker.Parts{
		Rules: worker.Fixed(r.rules), Dedup: dedup, Jobs: jobs.NewStore(js, jobs.StoreOptions{Log: log}),
		DeadLetters: deadletter.New(js), Actions: actions.Registry{"webhook": r.sink.of(w)},
	}
	registry := prometheus.NewRegistry()
	w.gather = registry
	options := worker.Options{ID: id, Partitions: r.partitions, Log: log, Metrics: worker.NewMetrics(registry)}
	if testing.Verbose() {
		options.Log = slog.New(slog.NewTextHandler(r.t.Output(), nil))
	}
	for _, f := range change {
		f(&parts, &options)
	}
	if w.Worker, err = worker.New(js, parts, options); err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.t.Context()))
	w.cancel = cancel
	go func() {
		defer close(w.ended)
		w.err = w.Run(ctx)
	}()
	r.t.Cleanup(func() {
		cancel()
		<-w.ended
	})
	return w
}

// stop ends the worker in good order.
func (w *running) stop() {
	w.t.Helper()
	w.cancel()
	<-w.ended
	if w.err != nil {
		w.t.Errorf("worker ended with %v", w.err)
	}
}

// kill cuts the worker off from the server at once and for good, as kill -9 would.
func (w *running) kill() { w.conn.Close() }

// repins gives how often the worker had to hold a partition anew.
func (w *running) repins() int {
	w.t.Helper()
	families, err := w.gather.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == "tributary_worker_repins_total" {
			return int(family.GetMetric()[0].GetCounter().GetValue())
		}
	}
	w.t.Fatal("the worker does not count its repins")
	return 0
}

const patience = time.Minute

// eventually waits until the fact holds.
func eventually(t testing.TB, fact string, holds func() bool) {
	t.Helper()
	deadline := time.After(patience)
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for !holds() {
		select {
		case <-look.C:
		case <-deadline:
			t.Fatalf("never: %s", fact)
		}
	}
}

// settled waits until every event that was published is acknowledged.
func (r *rig) settled() {
	r.t.Helper()
	stream := r.stream()
	for partition := range r.partitions {
		var last *jetstream.RawStreamMsg
		eventually(r.t, "EVENTS has a leader that answers", func() bool {
			var err error
			last, err = stream.GetLastMsgForSubject(r.t.Context(), events.EventsOfPartition(partition))
			return err == nil || errors.Is(err, jetstream.ErrMsgNotFound)
		})
		if last == nil {
			continue
		}
		eventually(r.t, fmt.Sprintf("all of partition %d is acknowledged", partition), func() bool {
			consumer, err := stream.Consumer(r.t.Context(), "worker-"+events.PartitionName(partition))
			return err == nil && consumer.CachedInfo().AckFloor.Stream >= last.Sequence
		})
	}
}

func (r *rig) deadLetters() []deadletter.Record {
	r.t.Helper()
	entries, err := deadletter.List(r.t.Context(), r.js, 0, 1000)
	if err != nil {
		r.t.Fatal(err)
	}
	var records []deadletter.Record
	for _, e := range entries {
		records = append(records, e.Record)
	}
	return records
}

func (r *rig) job(effect string) *jobs.Record {
	r.t.Helper()
	record, err := jobs.NewStore(r.js, jobs.StoreOptions{}).Get(r.t.Context(), effect)
	if err != nil {
		r.t.Fatal(err)
	}
	return record
}

// effectKey is the key of an effect of the event with a commit.
func effectKey(commit uint64, observer, action string) string {
	id := events.AppendChangeID(nil, "shop", 1, events.LSN(commit), 7, 1)
	return events.EffectKey(string(id), observer, action)
}
