// Package metrics drives every service through good and bad times, and holds docs/metrics.md against what they tell of it.
package metrics

import (
	"flag"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/test/harness"
)

var update = flag.Bool("update", false, "write docs/metrics.md")

const document = "../../docs/metrics.md"

// unmoved are the metrics that this scenario can't move, and the package whose tests do.
var unmoved = map[string]string{
	"tributary_ingest_mirror_failures_total": "pkg/ingest",  // PostgreSQL away takes the reading away as well
	"tributary_ingest_snapshot_left_seconds": "pkg/pgcdc",   // the rows are few
	"tributary_worker_parked_lost_total":     "pkg/worker",  // EVENTS loses nothing here
	"tributary_indexer_retried_total":        "pkg/indexer", // the embedded index is never too busy
	"tributary_indexer_dropped_months_total": "pkg/indexer", // a month takes a month
	"tributary_cache_evicted_total":          "pkg/cachekv", // 32 MiB are enough for all that is looked up here
}

func TestMain(m *testing.M) {
	code := m.Run()
	harness.Cleanup()
	os.Exit(code)
}

const observers = `
observers:
  - name: orders
    match: {source: shop, entity: public.orders}
    retry: {max_attempts: 20, strategy: fixed, initial: 300ms, max: 1s}
    actions: [{name: tell, type: webhook, url: "${receiver}/orders", timeout: 5s}]
  - name: asking
    match: {source: shop, entity: public.orders, ops: [insert]}
    when: lookup.order != 0 && (after.id < 900 || lookup.gone == null)
    lookup:
      - {name: order, type: http, url: "${receiver}/asked", on_error: ignore, ttl: 1s, key: "order"}
      - {name: gone, type: http, url: "${receiver}/gone"}
    actions:
      - {name: forget, type: cache, key: order}
      - {name: once, type: nats, subject: once, body: '"always the same"', cache: {ttl: 1s}}
  - name: gone
    match: {source: shop, entity: public.orders, ops: [insert]}
    when: after.id == 1000
    actions: [{name: tell, type: webhook, url: "${receiver}/gone"}]
  - name: dead
    match: {source: shop, entity: public.orders, ops: [insert]}
    when: after.id == 1000
    retry: {max_attempts: 2, strategy: fixed, initial: 10ms, max: 1s}
    on_failure: alert
    actions:
      - {name: tell, type: webhook, url: "${receiver}/dead"}
      - {name: miss, type: webhook, url: "${receiver}/gone"}
  - name: strict
    match: {source: shop, entity: public.orders}
    when: after.id == 1000
    order: strict
    retry: {max_attempts: 2, strategy: fixed, initial: 10ms, max: 1s}
    actions: [{name: tell, type: webhook, url: "${receiver}/dead"}]
  - name: later
    match: {source: shop, entity: public.orders, ops: [insert]}
    when: after.id == 1001
    retry: {max_attempts: 5, strategy: fixed, initial: 5s, max: 10s}
    actions: [{name: tell, type: webhook, url: "${receiver}/later"}]
`

// schema has a type whose JSON only PostgreSQL knows.
const schema = harness.OrdersTable + `;
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE FUNCTION mood_json(mood) RETURNS json LANGUAGE sql IMMUTABLE AS $$ SELECT json_build_object('mood', $1::text) $$;
CREATE CAST (mood AS json) WITH FUNCTION mood_json(mood);
ALTER TABLE orders ADD mood mood;
CREATE TABLE sessions (id int PRIMARY KEY);
CREATE TABLE odd (id int PRIMARY KEY);
INSERT INTO orders (id, status) SELECT i, 'old' FROM generate_series(1, 50) i`

func TestEveryMetricIsDocumentedAndMoves(t *testing.T) {
	s := harness.New(t, harness.Options{Schema: schema, Observers: observers, Config: "ingest: {rewind: 1s}\ncircuits: {window: 1s, open_for: 500ms}\n",
		Source: `filter: 'table != "sessions" && (table != "odd" || after.missing == 1)', ops: [insert, update, delete, snapshot, message]`})
	all := []string{"ingest-1", "ingest-2", "worker-1", "jobrunner-1", "jobrunner-2", "indexer-1"}
	s.Receiver.Fail(0.2)
	s.Receiver.Answer(func(r *http.Request) int {
		switch r.URL.Path {
		case "/gone":
			return http.StatusGone
		case "/dead", "/later":
			return http.StatusServiceUnavailable
		default:
			return http.StatusOK
		}
	})
	s.Start(all...)
	seen := sample(t, s, all)
	s.WaitForLeader()

	goodTimes(s)
	badInput(t, s)
	downEndpoint(t, s)
	lostServers(t, s)
	fullStream(t, s)
	seen.stop()

	got := seen.families()
	for _, name := range slices.Sorted(maps.Keys(got)) {
		family := got[name]
		proof, elsewhere := unmoved[name]
		switch {
		case family.moved && elsewhere:
			t.Errorf("%s moves here: it is no exception any more", name)
		case !family.moved && !elsewhere:
			t.Errorf("%s never moves", name)
		case elsewhere:
			checkProof(t, name, proof)
		}
		if family.series > 60 {
			t.Errorf("%s has %d series in one process: its labels are not bounded", name, family.series)
		}
	}
	for service, missing := range seen.late() {
		t.Errorf("%s does not tell from the start of: %s", service, missing)
	}
	compare(t, render(got))
}

func goodTimes(s *harness.System) {
	s.WaitForEvents(50, time.Minute)
	changes := 50 + s.Write(2000, 4, 200, 1).Wait()
	s.Receiver.WaitFor(changes, time.Minute)
}

func badInput(t *testing.T, s *harness.System) {
	t.Helper()
	s.Exec(`INSERT INTO orders (id, mood) VALUES (1000, 'good')`)
	s.Exec(`INSERT INTO sessions VALUES (1)`)
	s.Exec(`INSERT INTO odd VALUES (1)`)
	s.Exec(`INSERT INTO orders (id, note) VALUES (1002, repeat('x', 700000))`)
	js := s.JetStream()
	for subject, body := range map[string]string{
		"publish.web.order.placed": `{}`,
		"publish.WEB.order.placed": `{}`,
		"jobs.ready.default":       fmt.Sprintf(`{"v":1,"id":"unknown","key":%q,"attempt":1}`, events.KVKey("unknown")),
		// What no ingest has written: it is quarantined by whoever reads it.
		events.Address{Source: "web", Schema: "order", Table: "placed", Op: events.OpMessage}.Subject(): `no event`,
	} {
		if _, err := js.Publish(t.Context(), subject, []byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	moves(t, s, "worker-1", "tributary_worker_alerts_total", "jobrunner-1 jobrunner-2", "tributary_jobs_alerts_total", "indexer-1", "tributary_indexer_dead_total")
	search := exec.Command(harness.Binary(t, "tributary"), "--config", s.Config(), "search", "old")
	search.Env = append(os.Environ(), "SHOP_URL="+s.Postgres.URL("postgres"))
	if out, err := search.CombinedOutput(); err != nil {
		t.Errorf("search: %v\n%s", err, out)
	}
}

// downEndpoint lets the receiver fail for long enough to open its circuit, and sees what waits come to its end.
func downEndpoint(t *testing.T, s *harness.System) {
	t.Helper()
	s.Receiver.Fail(1)
	s.Exec(`UPDATE orders SET status = 'down' WHERE id <= 50`)
	moves(t, s, "worker-1", "tributary_circuits_opened_total", "worker-1", "tributary_circuits_open", "worker-1", "tributary_circuit_state")
	s.Exec(`UPDATE orders SET status = 'still down' WHERE id <= 50`)
	moves(t, s, "worker-1", "tributary_worker_parked_total", "worker-1", "tributary_worker_parked", "worker-1", "tributary_worker_parked_ranges",
		"worker-1", "tributary_worker_parked_oldest_seconds",
		"jobrunner-1 jobrunner-2", "tributary_jobs_deferred_total", "jobrunner-1 jobrunner-2", "tributary_jobs_deferred")
	s.Receiver.Fail(0.2)
	harness.Eventually(t, time.Minute, "nothing is parked any more", func() bool { return s.Metric("worker-1", "tributary_worker_parked_ranges") == 0 })
}

// lostServers kills a jobrunner at work, loses a ticket, and kills NATS under load.
func lostServers(t *testing.T, s *harness.System) {
	t.Helper()
	s.Exec(`INSERT INTO orders (id) VALUES (1001)`)
	harness.Eventually(t, time.Minute, "a job waits", func() bool { return s.Metric("worker-1", "tributary_jobs_enqueued_total") > 0 })
	stream, err := s.JetStream().Stream(t.Context(), events.StreamJobs)
	if err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, time.Minute, "the job's second attempt has a ticket, which is lost", func() bool {
		info, err := stream.Info(t.Context())
		return err == nil && info.State.Msgs > 0 && stream.Purge(t.Context()) == nil
	})
	s.Receiver.Fail(1)
	s.Receiver.Delay(2 * time.Second)
	s.Exec(`UPDATE orders SET status = 'slow' WHERE id = 1000`)
	moves(t, s, "jobrunner-1 jobrunner-2", "tributary_jobs_running")
	s.Kill("jobrunner-1", "jobrunner-2", "indexer-1")
	// The index is another one then, and all of EVENTS is read again.
	if err := os.Remove(filepath.Join(s.Dir, "state", "indexer-1", "index", "v1", "id")); err != nil {
		t.Fatal(err)
	}
	s.Receiver.Delay(0)
	s.Receiver.Fail(0.2)
	s.Start("jobrunner-1", "jobrunner-2", "indexer-1")
	moves(t, s, "jobrunner-1 jobrunner-2", "tributary_jobs_interrupted_total", "jobrunner-1 jobrunner-2", "tributary_jobs_swept_total", "indexer-1", "tributary_indexer_duplicates_total",
		"indexer-1", "tributary_indexer_restarts_total")

	load := s.Write(3000, 4, 200, 2)
	s.WaitForEvents(4500, time.Minute)
	s.Kill("nats")
	s.Start("nats")
	load.Wait()
	moves(t, s, "ingest-1 ingest-2", "tributary_ingest_doubts_total", "worker-1", "tributary_worker_repins_total")
}

func fullStream(t *testing.T, s *harness.System) {
	t.Helper()
	s.Settle()
	js := s.JetStream()
	stream, err := js.Stream(t.Context(), events.StreamEvents)
	if err != nil {
		t.Fatal(err)
	}
	config := stream.CachedInfo().Config
	before := config.MaxBytes
	harness.Eventually(t, 90*time.Second, "EVENTS refuses what is published", func() bool {
		info, err := stream.Info(t.Context()) // again, since the janitor may make room meanwhile
		if err != nil {
			t.Fatal(err)
		}
		config.MaxBytes = int64(info.State.Bytes) + 1
		if _, err := js.UpdateStream(t.Context(), config); err != nil {
			t.Fatal(err)
		}
		s.Exec(`UPDATE orders SET note = repeat('y', 100000) WHERE id <= 20`)
		return s.Metric("ingest-1", "tributary_ingest_full_total")+s.Metric("ingest-2", "tributary_ingest_full_total") > 0
	})
	moves(t, s, "ingest-1 ingest-2", "tributary_ingest_waiting_bytes")
	config.MaxBytes = before
	if _, err := js.UpdateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	moves(t, s, "ingest-1 ingest-2", "tributary_ingest_heartbeat_seconds")
	moves(t, s, "jobrunner-1 jobrunner-2", "tributary_jobs_lanes_held", "jobrunner-1 jobrunner-2", "tributary_jobs_parked")
}

// moves waits until metrics are above zero: pairs of services, of which one has to tell so, and a metric.
func moves(t *testing.T, s *harness.System, pairs ...string) {
	t.Helper()
	for pair := range slices.Chunk(pairs, 2) {
		harness.Eventually(t, 90*time.Second, pair[1]+" moves", func() bool {
			return slices.ContainsFunc(strings.Fields(pair[0]), func(name string) bool { return s.Metric(name, pair[1]) > 0 })
		})
	}
}

// checkProof fails the test unless a test of the package, or of one in it, speaks of the metric.
func checkProof(t *testing.T, name, folder string) {
	t.Helper()
	proven := false
	err := filepath.WalkDir(filepath.Join("../..", folder), func(path string, _ os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		proven = proven || strings.Contains(string(text), `"`+name+`"`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if !proven {
		t.Errorf("%s is moved neither here nor in the tests of %s", name, folder)
	}
}

func compare(t *testing.T, want string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(document, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(got), want); diff != "" {
		t.Errorf("docs/metrics.md is not what the services tell (go test ./test/metrics -update writes it):\n%s", diff)
	}
}
