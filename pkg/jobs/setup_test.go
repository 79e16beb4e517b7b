package jobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/tributary-dev/tributary/internal/natskv"
	"github.com/tributary-dev/tributary/internal/natstest"
	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/deadletter"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/retry"
	"github.com/tributary-dev/tributary/streams"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a server with the streams and one store.
type world struct {
	server  *natstest.Server
	js      jetstream.JetStream
	store   *Store
	metrics *Metrics
}

func newWorld(t testing.TB) *world {
	t.Helper()
	server := natstest.Start(t)
	js := server.JetStream(t)
	if _, err := streams.Apply(context.Background(), js, streams.Options{}); err != nil {
		t.Fatal(err)
	}
	w := &world{server: server, js: js}
	w.store, w.metrics = w.newStore(js)
	return w
}

func (w *world) newStore(js jetstream.JetStream) (*Store, *Metrics) {
	metrics := NewMetrics(prometheus.NewRegistry())
	return NewStore(js, StoreOptions{Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Metrics: metrics}), metrics
}

// runner is one that runs until it is stopped.
type runner struct {
	*Runner
	store   *Store
	metrics *Metrics
	cancel  context.CancelFunc
	ended   chan error
	js      jetstream.JetStream
}

// testAckWait is long enough that no heartbeat is missed on a busy machine.
const testAckWait = 1500 * time.Millisecond

// start starts a runner on a connection of its own.
func (w *world) start(t testing.TB, do performer, change ...func(*Options)) *runner {
	t.Helper()
	js := w.server.JetStream(t)
	store, metrics := w.newStore(js)
	options := Options{Concurrency: 16, AckWait: testAckWait, ShutdownTimeout: 5 * time.Second}
	for _, c := range change {
		c(&options)
	}
	inner, err := NewRunner(js, store, do, deadletter.New(js), options)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &runner{Runner: inner, store: store, metrics: metrics, cancel: cancel, ended: make(chan error, 1), js: js}
	go func() { r.ended <- inner.Run(ctx) }()
	t.Cleanup(func() { r.stop(t) })
	return r
}

func (r *runner) stop(t testing.TB) {
	t.Helper()
	r.cancel()
	if err, ok := <-r.ended; ok {
		close(r.ended)
		if err != nil && r.js.Conn().IsConnected() {
			t.Error(err)
		}
	}
}

// action is an action of tests: what it does, and what it was asked to do.
type action struct {
	do func(ctx context.Context, nth int) error

	mu    sync.Mutex
	times map[string][]time.Time // guarded by mu
}

func newAction(do func(ctx context.Context, nth int) error) *action {
	return &action{do: do, times: make(map[string][]time.Time)}
}

func (a *action) Do(ctx context.Context, effect actions.Effect, _ actions.Request) (actions.Outcome, error) {
	a.mu.Lock()
	a.times[effect.Key] = append(a.times[effect.Key], time.Now())
	nth := len(a.times[effect.Key])
	a.mu.Unlock()
	if err := a.do(ctx, nth); err != nil {
		return actions.Outcome{Status: 500}, err
	}
	return actions.Outcome{Status: 200}, nil
}

func (a *action) begun(key string) []time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.times[key]
}

// registry holds a as the action type of every job of tests.
func (a *action) registry() actions.Registry { return actions.Registry{"test": a} }

var errRefused = errors.New("refused")

func succeed(context.Context, int) error { return nil }
func fail(context.Context, int) error    { return errRefused }

// hang ends when its context does.
func hang(ctx context.Context, _ int) error {
	<-ctx.Done()
	return ctx.Err()
}

func job(n int, change ...func(*New)) New {
	id := "shop-1-" + strconv.Itoa(n)
	key := events.EffectKey(id, "order-shipped", "tell-carrier")
	request := New{
		Effect:  actions.Effect{Key: key, EventID: id, Observer: "order-shipped", Action: "tell-carrier"},
		Request: actions.Request{Type: "test", Timeout: 10 * time.Second, Body: []byte(`{"id":1}`)},
		Policy:  retry.Policy{MaxAttempts: 3, Strategy: retry.Fixed, Initial: 10 * time.Millisecond, Max: time.Second},
		Event:   []byte(fmt.Sprintf(`{"id":%q}`, id)),
	}
	for _, c := range change {
		c(&request)
	}
	return request
}

func (w *world) enqueue(t testing.TB, jobs ...New) {
	t.Helper()
	for _, j := range jobs {
		if err := w.store.Enqueue(context.Background(), j); err != nil {
			t.Fatal(err)
		}
	}
}

// await waits until the record of the job is as wanted, and gives it.
func (w *world) await(t testing.TB, j New, wanted func(*Record) bool) *Record {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	watcher, err := w.watch(ctx, j.Effect.Key)
	if err != nil {
		t.Fatal(err)
	}
	defer watcher.Stop()
	var last *Record
	for {
		select {
		case entry := <-watcher.Updates():
			if entry == nil {
				continue
			}
			if last, err = decodeRecord(entry.Value()); err != nil {
				t.Fatal(err)
			}
			if wanted(last) {
				return last
			}
		case <-ctx.Done():
			t.Fatalf("job %s is not as wanted: %+v", j.Effect.Key, last)
		}
	}
}

func (w *world) watch(ctx context.Context, id string) (jetstream.KeyWatcher, error) {
	bucket, err := w.js.KeyValue(ctx, events.BucketJobs)
	if err != nil {
		return nil, err
	}
	return bucket.Watch(ctx, events.KVKey(id))
}

func in(state State) func(*Record) bool { return func(r *Record) bool { return r.State == state } }

// messages counts what JOBS holds; tickets that were acknowledged go a moment later.
func (w *world) messages(t testing.TB) uint64 {
	t.Helper()
	stream, err := w.js.Stream(context.Background(), events.StreamJobs)
	if err != nil {
		t.Fatal(err)
	}
	return stream.CachedInfo().State.Msgs
}

// awaitEmpty waits until JOBS holds nothing.
func (w *world) awaitEmpty(t testing.TB) {
	t.Helper()
	await(t, "JOBS to be empty", func() bool { return w.messages(t) == 0 })
}

// await asks for a fact that nothing announces.
func await(t testing.TB, what string, is func() bool) {
	t.Helper()
	deadline := time.NewTimer(30 * time.Second)
	defer deadline.Stop()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for !is() {
		select {
		case <-ticker.C:
		case <-deadline.C:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// letters lists the dead letters.
func (w *world) letters(t testing.TB) []deadletter.Entry {
	t.Helper()
	entries, err := deadletter.List(context.Background(), w.js, 0, 10_000)
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

// purgeTickets takes every ticket and schedule away.
func (w *world) purgeTickets(t testing.TB) {
	t.Helper()
	stream, err := w.js.Stream(context.Background(), events.StreamJobs)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// write changes a record behind everybody's back, as somebody who died then would leave it.
func (w *world) write(t testing.TB, j New, change func(*Record)) {
	t.Helper()
	for {
		record, revision, err := w.store.load(context.Background(), j.Effect.Key)
		if err != nil {
			t.Fatal(err)
		}
		change(record)
		_, err = w.store.update(context.Background(), record, revision, 0)
		if err == nil {
			return
		}
		if !errors.Is(err, natskv.ErrConflict) {
			t.Fatal(err)
		}
	}
}
