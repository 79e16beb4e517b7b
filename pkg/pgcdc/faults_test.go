package pgcdc

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tributary-dev/tributary/internal/pgtest"
	"github.com/tributary-dev/tributary/internal/stall"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/ingest"
)

// withSetting sets a run-time parameter of our connections.
func withSetting(name, value string) func(*Options) {
	return func(o *Options) {
		u, err := url.Parse(o.ConnString)
		if err != nil {
			panic(err)
		}
		q := u.Query()
		q.Set(name, value)
		u.RawQuery = q.Encode()
		o.ConnString = u.String()
	}
}

const walSender = `SELECT max(active_pid)::text FROM pg_replication_slots WHERE database = current_database()`

func TestALargeTransactionOutlivesTheSenderTimeout(t *testing.T) {
	const timeout, rows = 2500 * time.Millisecond, 100_000
	db := newDatabase(t, pgtest.Database(t))
	db.exec(`CREATE TABLE a (id int PRIMARY KEY, note text)`)
	s := newStore(t)
	r := s.start(db.source(withSetting("wal_sender_timeout", "2500ms")), 0)
	r.streaming()
	waitFor(t, "the stream", func() bool { return db.value(walSender) != "" })
	pid := db.value(walSender)
	s.mu.Lock() // nothing is stored for longer than the server waits for a dead reader
	held := time.Now()
	db.exec(`INSERT INTO a SELECT n, repeat('x', 200) FROM generate_series(1, 100000) n`)
	waitFor(t, "the timeout to pass twice", func() bool { return time.Since(held) > 2*timeout })
	if got := db.value(walSender); got != pid {
		t.Errorf("the server's process is %q, and was %s: the stream broke", got, pid)
	}
	s.mu.Unlock()
	got := r.events(rows)
	if first, last := got[0], got[rows-1]; first.At.Commit != last.At.Commit || last.At.Index != rows {
		t.Errorf("the last event is at %s", last.At)
	}
}

func TestBrokenConnectionsAreMadeAgain(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	db.exec(`CREATE TABLE a (id int PRIMARY KEY); CREATE TYPE mood AS ENUM ('fine')`)
	s := newStore(t)
	source := db.source()
	r := s.start(source, 0)
	r.streaming()
	waitFor(t, "the stream", func() bool { return db.value(walSender) != "" })
	killed := db.value(`SELECT count(pg_terminate_backend(pid))::text FROM pg_stat_activity
		WHERE application_name = 'tributary/shop' AND backend_type = 'client backend' AND datname = current_database()`)
	if killed != "1" {
		t.Fatalf("%s connections beside the stream", killed)
	}
	db.exec(`ALTER TABLE a ADD m mood; INSERT INTO a VALUES (1, 'fine')`)
	r.until("an event after the loss of the other connection", func(s *store) bool { return s.count() == 1 })
	db.exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_replication WHERE application_name = 'tributary/shop'`)
	if err := r.wait(); err == nil || errors.Is(err, ingest.ErrRefused) {
		t.Errorf("Run ended with %v, want an error that is tried again", err)
	}
	db.exec(`INSERT INTO a VALUES (2, NULL)`)
	checkData(t, s.start(source, 0).events(2),
		`op "insert" schema "public" table "a" key {"id":1} after {"id":1,"m":"fine"} index 1 last`,
		`op "insert" schema "public" table "a" key {"id":2} after {"id":2,"m":null} index 1 last`)
}

func TestAnIdleDatabaseDoesNotHoldTheLogBack(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	metrics := NewMetrics(registry)
	server := pgtest.Server(t, nil)
	db, busy := newDatabase(t, server.URL("postgres")), newDatabase(t, pgtest.DatabaseOn(t, server.URL("postgres")))
	db.exec(`CREATE TABLE a (id int PRIMARY KEY)`)
	busy.exec(`CREATE TABLE b (n int)`)
	s := newStore(t)
	r := s.start(db.source(func(o *Options) { o.Heartbeat, o.Metrics = 100*time.Millisecond, metrics }), 0)
	r.streaming()
	busy.exec(`INSERT INTO b SELECT generate_series(1, 10000)`)
	written := busy.lsn(`SELECT pg_current_wal_lsn()`)
	waitFor(t, "the slot to pass what another database wrote", func() bool {
		return db.lsn(`SELECT confirmed_flush_lsn FROM pg_replication_slots`) >= written
	})
	waitFor(t, "a heartbeat to come back", func() bool {
		return gauge(t, registry, "tributary_ingest_heartbeat_seconds") > 0
	})
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if s.count() != 0 {
		t.Errorf("%d events of an idle database", s.count())
	}
	if received := gauge(t, registry, "tributary_ingest_wal_received_lsn"); received < float64(written) {
		t.Errorf("received %v of %v", received, float64(written))
	}
}

// gauge reads the one metric of a family.
func gauge(t *testing.T, registry *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name && len(f.GetMetric()) == 1 {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

func TestOnlyWhatIsConfirmableIsConfirmed(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	db.exec(`CREATE TABLE a (id int PRIMARY KEY)`)
	s := newStore(t)
	var mu sync.Mutex
	var allowed events.LSN
	r := s.startConfirming(db.source(func(o *Options) { o.Heartbeat = 50 * time.Millisecond }), 0, func(state ingest.State) events.LSN {
		mu.Lock()
		defer mu.Unlock()
		return allowed
	})
	r.streaming()
	confirmed := func() events.LSN {
		return db.lsn(`SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE database = current_database()`)
	}
	begin := confirmed()
	for n := range 20 {
		db.exec(`INSERT INTO a VALUES ($1)`, n)
		r.until("the event", func(s *store) bool { return s.count() == n+1 })
		if got := confirmed(); got != begin {
			t.Fatalf("%s is confirmed, and was %s, with nothing confirmable", got, begin)
		}
	}
	through := s.where().Through
	marks := s.marks
	mu.Lock()
	allowed = through
	mu.Unlock()
	waitFor(t, "the confirmation", func() bool { return confirmed() > begin })
	r.until("more marks", func(s *store) bool { s.mu.Lock(); defer s.mu.Unlock(); return s.marks > marks+2 })
	if got := confirmed(); got != through {
		t.Errorf("%s is confirmed, and %s is confirmable", got, through)
	}
}

func TestLargeEventsLeaveAStub(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	db.exec(`CREATE TABLE a (id text PRIMARY KEY, doc text); INSERT INTO a VALUES ('old', repeat('x', 3000))`)
	kept := map[string]string{}
	var mu sync.Mutex
	s := newStore(t)
	r := s.start(db.source(withSnapshot, func(o *Options) {
		o.MaxEvent = 2000
		o.Oversize = func(_ context.Context, id string, envelope []byte) error {
			mu.Lock()
			defer mu.Unlock()
			kept[id] = string(envelope)
			return nil
		}
	}), 0)
	r.streaming()
	db.exec(`INSERT INTO a VALUES ('small', 'x'); INSERT INTO a VALUES ('large', repeat('y', 3000))`)
	db.exec(`SELECT pg_logical_emit_message(true, 'note', repeat('z', 3000))`)
	got := r.events(4)
	checkData(t, got,
		`op "snapshot" schema "public" table "a" key {"id":"old"} oversize true`,
		`op "insert" schema "public" table "a" key {"id":"small"} after {"id":"small","doc":"x"} index 1`,
		`op "insert" schema "public" table "a" key {"id":"large"} oversize true index 2 last`,
		`op "message" prefix "note" oversize true index 1 last`)
	for _, i := range []int{0, 2, 3} {
		if !json.Valid([]byte(kept[got[i].ID])) || len(kept[got[i].ID]) < 3000 {
			t.Errorf("of %s %d bytes are kept", got[i].ID, len(kept[got[i].ID]))
		}
	}
	if len(kept) != 3 || !strings.Contains(kept[got[2].ID], `"last":true`) {
		t.Errorf("%d envelopes are kept", len(kept))
	}
}

func TestNewTablesAreReadFromTheNextHeartbeatOn(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	db.exec(`CREATE TABLE a (id int PRIMARY KEY)`)
	s := newStore(t)
	r := s.start(db.source(func(o *Options) { o.Heartbeat = 50 * time.Millisecond }), 0)
	r.streaming()
	db.exec(`CREATE TABLE b (id int PRIMARY KEY); CREATE TABLE unidentified (id int)`)
	published := `SELECT string_agg(tablename, ',' ORDER BY tablename) FROM pg_publication_tables`
	waitFor(t, "the new table's publication", func() bool { return db.value(published) == "a,b" })
	db.exec(`INSERT INTO unidentified VALUES (1); UPDATE unidentified SET id = 2`)
	db.exec(`INSERT INTO b VALUES (1)`)
	checkData(t, r.events(1), `op "insert" schema "public" table "b" key {"id":1} after {"id":1} index 1 last`)
}

func TestRunEndsAtOnceWithItsContext(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	db.exec(`CREATE TABLE a (id int PRIMARY KEY, note text); INSERT INTO a SELECT n, repeat('x', 1000) FROM generate_series(1, 20000) n`)
	blocker, err := pgx.Connect(t.Context(), db.url)
	if err != nil {
		t.Fatal(err)
	}
	defer blocker.Close(context.WithoutCancel(t.Context()))
	endsSoon := func(what string, r *session) {
		t.Helper()
		began := stall.Begin(t)
		r.cancel()
		if err := r.wait(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		began.Within(3*time.Second, what+", the end")
	}
	if _, err := blocker.Exec(t.Context(), `BEGIN; INSERT INTO a VALUES (0)`); err != nil {
		t.Fatal(err)
	}
	s := newStore(t)
	r := s.start(db.source(withSnapshot), 0)
	waitFor(t, "the slot to wait for a transaction", func() bool {
		return db.value(`SELECT count(*)::text FROM pg_stat_activity WHERE application_name = 'tributary/shop' AND wait_event_type = 'Lock'`) == "1"
	})
	endsSoon("while the slot is made", r)
	if _, err := blocker.Exec(t.Context(), `ROLLBACK`); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the slot to be free", func() bool {
		return db.value(`SELECT count(active_pid)::text FROM pg_replication_slots WHERE database = current_database()`) == "0"
	})
	r = s.start(db.source(withSnapshot), 0)
	r.until("a row", func(s *store) bool { return s.count() > 0 })
	endsSoon("during the snapshot", r)
	r = s.start(db.source(withSnapshot), 0)
	r.streaming()
	endsSoon("in the stream", r)
}
