package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/alecthomas/kong"
	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/internal/ask"
	"github.com/tributary-dev/tributary/internal/config"
	"github.com/tributary-dev/tributary/internal/natskv"
	"github.com/tributary-dev/tributary/internal/natstest"
	"github.com/tributary-dev/tributary/internal/pgtest"
	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/deadletter"
	"github.com/tributary-dev/tributary/pkg/dedupkv"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/ingest"
	"github.com/tributary-dev/tributary/pkg/jobs"
	"github.com/tributary-dev/tributary/pkg/observers"
	"github.com/tributary-dev/tributary/pkg/retry"
	"github.com/tributary-dev/tributary/pkg/trace"
	"github.com/tributary-dev/tributary/pkg/worker"
	"github.com/tributary-dev/tributary/streams"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) { pgtest.Main(m) }

const rules = `
observers:
  - name: orders
    match: {source: shop, entity: public.orders}
    retry: {max_attempts: 2, initial: 10ms, max: 10ms, jitter: 0}
    actions:
      - {name: tell, type: webhook, url: "https://carrier.example/${after.id}", headers: {Authorization: env:CARRIER_TOKEN}, secret: env:CARRIER_SECRET, body: '{"order": after.id}'}
  - name: shipped
    match: {entity: public.orders, ops: [update]}
    when: changed("status") && after.status == "shipped"
    actions: [{name: note, type: log, message: "order ${after.id} was shipped"}]
  - name: big
    when: after.total > 100
    actions: [{name: note, type: log, message: big}]
  - name: carts
    match: {source: web}
    actions: [{name: note, type: log, message: a cart}]
`

// world is a deployment of one process: a NATS server, and what is started.
type world struct {
	t      *testing.T
	server *natstest.Server
	js     jetstream.JetStream
	config config.Config
	sink   *sink
	commit uint64
}

// newWorld makes the streams and the observers. Nothing runs yet.
func newWorld(t *testing.T) *world {
	t.Helper()
	server := natstest.Start(t)
	w := &world{t: t, server: server, js: server.JetStream(t), sink: new(sink)}
	if _, err := streams.Apply(t.Context(), w.js, streams.Options{Partitions: 4}); err != nil {
		t.Fatal(err)
	}
	w.config.NATS.URL, w.config.NATS.Replicas = server.URL(), 1
	w.config.Observers = filepath.Join(t.TempDir(), "observers.yaml")
	if err := os.WriteFile(w.config.Observers, []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	return w
}

// insert stores an insert of an order, and update an update with its old row.
func (w *world) insert(id int) string { return w.store(events.OpInsert, id, "", "new") }
func (w *world) update(id int, from, to string) string {
	return w.store(events.OpUpdate, id, from, to)
}

func (w *world) store(op events.Op, id int, from, to string) string {
	w.t.Helper()
	w.commit += 0x100
	key := events.AppendEntityKey(nil, "public", "orders", fmt.Append(nil, id))
	image := func(status string) []byte { return fmt.Appendf(nil, `{"id":%d,"status":%q}`, id, status) }
	change := events.Change{
		ID: events.AppendChangeID(nil, "shop", 1, events.LSN(w.commit), 7, 1), Source: "shop", Op: op, Schema: "public", Table: "orders",
		Time: time.Now(), PartitionKey: key, Sequence: events.Sequence{Commit: w.commit, Index: 1}, Key: fmt.Appendf(nil, `{"id":%d}`, id),
		After: image(to), InTransaction: true, XID: 7, Commit: events.LSN(w.commit), Last: true,
	}
	if op == events.OpUpdate {
		change.Before, change.Changed = image(from), []string{"status"}
	}
	address := events.Address{Partition: events.Partition(key, 4), Source: "shop", Schema: "public", Table: "orders", Op: op}
	w.publish(address.Subject(), events.AppendChange(nil, &change))
	return string(change.ID)
}

func (w *world) publish(subject string, data []byte) {
	w.t.Helper()
	if _, err := w.js.Publish(w.t.Context(), subject, data); err != nil {
		w.t.Fatal(err)
	}
}

// lead makes as if an ingest read shop.
func (w *world) lead(leader string) {
	w.t.Helper()
	position, err := json.Marshal(ingest.Position{V: 1, Epoch: 3, Incarnation: 1, Slot: "tributary_shop", Phase: ingest.PhaseStreaming, EndLSN: 1, Leader: leader})
	if err != nil {
		w.t.Fatal(err)
	}
	w.publish(events.PositionSubject("shop"), position)
	lease := fmt.Appendf(nil, `{"owner":%q,"nonce":"1","since":"2026-01-02T03:04:05Z"}`, leader)
	if _, err := natskv.Open(w.js, events.BucketLeases).Put(w.t.Context(), "ingest.shop", lease, time.Hour); err != nil {
		w.t.Fatal(err)
	}
}

// stands answers as the leader of source shop does that stands so.
func (w *world) stands(s ingest.Standing) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- ask.ServeStanding(ctx, w.js.Conn(), "shop", func() ingest.Standing { return s }) }()
	w.t.Cleanup(func() {
		cancel()
		<-ended
	})
	eventually(w.t, "the leader answers", func() bool {
		_, err := ask.Standing(w.t.Context(), w.js.Conn(), "shop")
		return err == nil
	})
}

// sink is the webhook and the log of a world.
type sink struct {
	mu     sync.Mutex
	broken bool
	calls  map[string]int // by effect key, those that succeeded
	failed map[string]int
}

func (s *sink) Do(_ context.Context, effect actions.Effect, request actions.Request) (actions.Outcome, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls == nil {
		s.calls, s.failed = map[string]int{}, map[string]int{}
	}
	if s.broken && request.Type == "webhook" {
		s.failed[effect.Key]++
		return actions.Outcome{Status: 503}, errors.New("POST https://carrier.example: 503 Service Unavailable")
	}
	s.calls[effect.Key]++
	return actions.Outcome{Status: 200}, nil
}

func (s *sink) fail(broken bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = broken
}

func (s *sink) done(key string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[key]
}

// work runs a worker and a runner until the test ends.
func (w *world) work() {
	w.t.Helper()
	set, err := observers.Load(w.config.Observers)
	if err != nil {
		w.t.Fatal(err)
	}
	js := w.server.JetStream(w.t)
	dedup, err := dedupkv.New(natskv.Open(js, events.BucketDedup), dedupkv.Options{})
	if err != nil {
		w.t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	store := jobs.NewStore(js, jobs.StoreOptions{Log: log})
	registry := actions.Registry{"webhook": w.sink, "log": w.sink}
	recorder := func(kind trace.Kind, by string) *trace.Recorder {
		r, err := trace.New(js, trace.Options{Kind: kind, By: by})
		if err != nil {
			w.t.Fatal(err)
		}
		return r
	}
	working, retrying := recorder(trace.Worker, "worker-a"), recorder(trace.JobRunner, "jobrunner-a")
	one, err := worker.New(js, worker.Parts{
		Rules: worker.Fixed(set), Dedup: dedup, Jobs: store, DeadLetters: deadletter.New(js), Actions: registry, Traces: working,
	}, worker.Options{ID: "worker-a", Partitions: 4, Log: log})
	if err != nil {
		w.t.Fatal(err)
	}
	runner, err := jobs.NewRunner(js, store, registry, deadletter.New(js), jobs.Options{Owner: "jobrunner-a", Traces: retrying})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	var running sync.WaitGroup
	for _, r := range []*trace.Recorder{working, retrying} {
		running.Go(func() { r.Run(ctx) })
	}
	for _, run := range []func(context.Context) error{one.Run, runner.Run} {
		running.Go(func() {
			if err := run(ctx); err != nil {
				w.t.Error(err)
			}
		})
	}
	w.t.Cleanup(func() {
		cancel()
		running.Wait()
	})
}

// later enqueues a job that is due in hours.
func (w *world) later(id string) string {
	w.t.Helper()
	key := events.EffectKey(id, "orders", "tell")
	err := jobs.NewStore(w.js, jobs.StoreOptions{}).Enqueue(w.t.Context(), jobs.New{
		Effect:  actions.Effect{Key: key, EventID: id, Observer: "orders", Action: "tell"},
		Request: actions.Request{Type: "webhook", Method: "POST", URL: "https://carrier.example/9", Timeout: time.Second, Body: []byte(`{"order":9}`)},
		Policy:  retry.Default(), NotBefore: time.Now().Add(5 * time.Hour), Generation: "0123456789abcdef",
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return key
}

// later90 is how much later than now commands run: what a test stored has an age that does not change while it runs.
const later90 = 90*time.Minute + 30*time.Second

// run runs a command line, and gives what it printed.
func (w *world) run(args ...string) (string, error) {
	w.t.Helper()
	return run(w.t, w.config, nil, args...)
}

func run(t *testing.T, c config.Config, stdin io.Reader, args ...string) (string, error) {
	t.Helper()
	return runWith(t, &Invocation{Config: c, Stdin: stdin}, args...)
}

// runWith runs a command with what in holds beside what each has.
func runWith(t *testing.T, in *Invocation, args ...string) (string, error) {
	t.Helper()
	var line struct {
		Globals
		Commands
	}
	var out bytes.Buffer
	parser, err := kong.New(&line, kong.Name("tributary"), kong.Writers(&out, &out), kong.Exit(func(int) {}))
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := parser.Parse(args)
	if err != nil {
		return out.String(), &config.UsageError{Message: err.Error()}
	}
	in.Ctx, in.Options, in.Version, in.Stdout = t.Context(), line.Globals, "v1.2.3", &out
	in.Now = func() time.Time { return time.Now().Add(later90) }
	err = parsed.Run(in, parser)
	return out.String(), err
}

// must is run for what is to succeed.
func (w *world) must(args ...string) string {
	w.t.Helper()
	out, err := w.run(args...)
	if err != nil {
		w.t.Fatalf("tributary %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// eventually waits for a fact that nothing announces.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for !is() {
		select {
		case <-look.C:
		case <-deadline:
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

var (
	stamps = regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ`)
	fines  = regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d\d\dZ`)
	lasted = regexp.MustCompile(`(attempt \d), \d+(\.\d+)?(ms|µs|s)`)
	took   = regexp.MustCompile(` +\d+(\.\d+)?(ms|µs|s)  `)
	sizes  = regexp.MustCompile(`\d+\.\d KiB|\d+ B\b`)
	later  = regexp.MustCompile(`\d+(ms|s) later`)
	iso    = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`)
	lags   = regexp.MustCompile(`(streaming +\S+ +)\d+(ms|s)\n`)
	marks  = regexp.MustCompile(`(KV_dedup +)[1-9] +\S+ +K?i?B`) // of partitions, which come when the first ones are saved
	worked = regexp.MustCompile(`(?m)^  (\w+): done$`)           // after a mark was saved a claim forgets who had it
	short1 = regexp.MustCompile(`\b[0-9a-f]{16}\b`)
)

// golden compares what was printed with a file, but for times, sizes and addresses; every line has to fit a terminal.
func (w *world) golden(name, got string) {
	w.t.Helper()
	got = strings.ReplaceAll(got, w.server.URL(), "nats://127.0.0.1:4222")
	if w.config.Observers != "" {
		got = strings.ReplaceAll(got, w.config.Observers, "observers.yaml")
	}
	got = stamps.ReplaceAllString(got, "2026-01-02 03:04:05Z")
	got = fines.ReplaceAllString(got, "2026-01-02 03:04:05.000Z")
	got = lasted.ReplaceAllString(got, "$1, 1ms")
	got = iso.ReplaceAllString(got, "2026-01-02T03:04:05.000000Z")
	got = later.ReplaceAllString(got, "3ms later")
	got = sizes.ReplaceAllStringFunc(got, func(size string) string {
		return regexp.MustCompile(`\d`).ReplaceAllString(size, "#")
	})
	got = took.ReplaceAllStringFunc(got, func(text string) string { return fmt.Sprintf("%*s", len(text), "1ms  ") })
	got = lags.ReplaceAllString(got, "${1}1s\n")
	got = marks.ReplaceAllString(got, "${1}7  #.# KiB")
	got = worked.ReplaceAllString(got, "  $1: done by worker-a")
	got = short1.ReplaceAllString(got, "0123456789abcdef")
	for line := range strings.SplitSeq(got, "\n") {
		if n := utf8.RuneCountInString(line); n > width && !strings.HasPrefix(line, "  ") {
			w.t.Errorf("%s: a line has %d characters: %s", name, n, line)
		}
	}
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			w.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		w.t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		w.t.Errorf("%s (-want +got; -update writes it anew):\n%s", name, diff)
	}
}

// settledWorld is one in which three effects were done and one has died.
func settledWorld(t *testing.T) (w *world, ids []string) {
	t.Helper()
	w = newWorld(t)
	w.lead("ingest-a")
	w.work()
	letters := func(n int) func() bool {
		return func() bool {
			letters, err := deadletter.List(t.Context(), w.js, 0, 10)
			return err == nil && len(letters) == n
		}
	}
	ids = append(ids, w.insert(1))
	eventually(t, "the condition of big fails once", letters(1))
	ids = append(ids, w.update(1, "new", "shipped"))
	eventually(t, "the condition of big fails twice", letters(2))
	eventually(t, "the first effects are done", func() bool {
		return w.sink.done(ids[0]+"~orders~tell") == 1 && w.sink.done(ids[1]+"~orders~tell") == 1 && w.sink.done(ids[1]+"~shipped~note") == 1
	})
	w.sink.fail(true)
	ids = append(ids, w.insert(2))
	eventually(t, "the third event is a dead letter, too", letters(4))
	eventually(t, "its job is dead", func() bool {
		record, err := jobs.NewStore(w.js, jobs.StoreOptions{}).Get(t.Context(), ids[2]+"~orders~tell")
		return err == nil && record.State == jobs.Dead
	})
	eventually(t, "all is on record", func() bool {
		first, last := w.must("events", "explain", ids[1]), w.must("events", "explain", ids[2])
		return strings.Count(first, "Z worker-a\n") >= 3 && strings.Contains(last, "attempt 2, ")
	})
	eventually(t, "all is acknowledged", func() bool {
		status := w.must("status")
		return strings.Contains(status, "0 events pending, 0 in flight") && strings.Contains(status, "0-3")
	})
	return w, ids
}
