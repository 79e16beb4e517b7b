package indexer_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/tributary-dev/tributary/internal/natstest"
	"github.com/tributary-dev/tributary/pkg/deadletter"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/indexer"
	"github.com/tributary-dev/tributary/pkg/indexer/indextest"
	"github.com/tributary-dev/tributary/pkg/retry"
	"github.com/tributary-dev/tributary/streams"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memory is an index in memory, of which each Write can be made to fail.
type memory struct {
	mu        sync.Mutex
	documents map[string]indexer.Document
	bulks     [][]string // ids, as they came

	// before decides about a bulk; where it gives nothing, the bulk is written.
	before func(ctx context.Context, bulk int, ids []string) ([]indexer.Outcome, error)
}

func newMemory() *memory { return &memory{documents: map[string]indexer.Document{}} }

func (m *memory) Write(ctx context.Context, documents []indexer.Document) ([]indexer.Outcome, error) {
	var ids []string
	for _, d := range documents {
		ids = append(ids, d.ID)
	}
	m.mu.Lock()
	number := len(m.bulks)
	m.bulks = append(m.bulks, ids)
	before := m.before
	m.mu.Unlock()
	var outcomes []indexer.Outcome
	if before != nil {
		var err error
		if outcomes, err = before(ctx, number, ids); err != nil {
			return nil, err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if outcomes == nil {
		outcomes = make([]indexer.Outcome, len(documents))
	}
	for i, d := range documents {
		if i >= len(outcomes) || outcomes[i].State != indexer.Created {
			continue
		}
		if _, there := m.documents[d.ID]; there {
			outcomes[i].State = indexer.Existed
		}
		m.documents[d.ID] = d
	}
	return outcomes, nil
}

func (m *memory) set(before func(context.Context, int, []string) ([]indexer.Outcome, error)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.before = before
}

func (m *memory) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.documents)
}

func (m *memory) written() [][]string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([][]string(nil), m.bulks...)
}

// rig is a NATS server with its streams, an index, and indexers on both.
type rig struct {
	t        *testing.T
	server   *natstest.Server
	js       jetstream.JetStream
	index    *memory
	registry *prometheus.Registry
	metrics  *indexer.Metrics // of all indexers together
	next     int
}

func newRig(t *testing.T) *rig {
	t.Helper()
	server := natstest.Start(t)
	js := server.JetStream(t)
	if _, err := streams.Apply(t.Context(), js, streams.Options{}); err != nil {
		t.Fatal(err)
	}
	return &rig{t: t, server: server, js: js, index: newMemory(), registry: prometheus.NewRegistry()}
}

// running is an indexer that runs.
type running struct {
	stop  func() // and wait until it has ended
	ready *readiness
}

type readiness struct {
	mu  sync.Mutex
	ok  bool
	why string
}

func (r *readiness) set(ok bool, why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ok, r.why = ok, why
}

func (r *readiness) is() (bool, string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ok, r.why
}

// start runs an indexer with short delays until the test ends.
func (r *rig) start(options indexer.Options) *running {
	r.t.Helper()
	state := &readiness{}
	options.Ready = state.set
	if options.BulkAge == 0 {
		options.BulkAge = 10 * time.Millisecond
	}
	if options.Retry == (retry.Policy{}) {
		options.Retry = retry.Policy{MaxAttempts: 1, Strategy: retry.Fixed, Initial: 10 * time.Millisecond, Max: 10 * time.Millisecond}
	}
	if options.Metrics == nil {
		if r.metrics == nil {
			r.metrics = indexer.NewMetrics(r.registry)
		}
		options.Metrics = r.metrics
	}
	js := r.server.JetStream(r.t)
	x, err := indexer.New(js, r.index, deadletter.New(js), options)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		x.Run(ctx)
	}()
	var once sync.Once
	stop := func() {
		once.Do(func() {
			cancel()
			<-ended
		})
	}
	r.t.Cleanup(stop)
	return &running{stop: stop, ready: state}
}

// publish stores the next n rows.
func (r *rig) publish(n int) {
	r.t.Helper()
	for range n {
		r.next++
		m := indextest.Row(r.next, events.OpInsert, "", fmt.Sprintf(`{"id":%d,"status":"packed"}`, r.next))
		r.store(m.Subject, m.Data)
	}
}

func (r *rig) store(subject string, data []byte) {
	r.t.Helper()
	if _, err := r.js.Publish(r.t.Context(), subject, data); err != nil {
		r.t.Fatal(err)
	}
}

// id is that of the row with a number.
func id(n int) string { return fmt.Sprintf("shop-1-0000000016B37488-771-%d", n) }

func (r *rig) consumer() *jetstream.ConsumerInfo {
	r.t.Helper()
	consumer, err := r.js.Consumer(r.t.Context(), events.StreamEvents, indexer.ConsumerName)
	if err != nil {
		return &jetstream.ConsumerInfo{NumPending: 1}
	}
	return consumer.CachedInfo()
}

// eventually waits for a fact.
func (r *rig) eventually(what string, is func() bool) {
	r.t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(time.Minute)
	for !is() {
		select {
		case <-ticker.C:
		case <-deadline:
			r.t.Fatalf("waited in vain: %s", what)
		}
	}
}

// settled waits until the index has n documents and every event is acknowledged.
func (r *rig) settled(n int) {
	r.t.Helper()
	r.eventually(fmt.Sprintf("%d documents are indexed", n), func() bool { return r.index.count() >= n })
	r.eventually("every event is acknowledged", func() bool {
		info := r.consumer()
		return info.NumPending == 0 && info.NumAckPending == 0
	})
	if got := r.index.count(); got != n {
		r.t.Errorf("the index has %d documents, want %d", got, n)
	}
}

// metric sums a metric over its labels.
func (r *rig) metric(name string) float64 {
	r.t.Helper()
	families, err := r.registry.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == "tributary_indexer_"+name {
			sum := 0.0
			for _, m := range family.GetMetric() {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
			return sum
		}
	}
	r.t.Fatalf("there is no metric %s", name)
	return 0
}

func (r *rig) deadLetters() []deadletter.Entry {
	r.t.Helper()
	entries, err := deadletter.List(r.t.Context(), r.js, 0, 100)
	if err != nil {
		r.t.Fatal(err)
	}
	return entries
}
