package app

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tributary-dev/tributary/internal/config"
	"github.com/tributary-dev/tributary/internal/natstest"
	"github.com/tributary-dev/tributary/internal/pgtest"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/ingest"
	"github.com/tributary-dev/tributary/pkg/pgcdc"
	"github.com/tributary-dev/tributary/streams"
)

// reading is an ingest of one source, with its mirror.
type reading struct {
	t      *testing.T
	owner  *pgx.Conn // of the database
	stream jetstream.Stream
	log    *lines
}

// lines is a log.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) count(words string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), words)
}

// read starts to read a database, as the role that prepare gives, or the owner.
func read(t *testing.T, schema string, prepare func(owner *pgx.Conn, address string) string) *reading {
	t.Helper()
	r := &reading{t: t, log: new(lines)}
	address := pgtest.Database(t)
	var err error
	if r.owner, err = pgx.Connect(t.Context(), address); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.owner.Close(context.Background()) })
	r.exec(schema)
	if prepare != nil {
		address = prepare(r.owner, address)
	}
	server := natstest.Start(t)
	nc := server.Conn(t, nats.ReconnectBufSize(-1))
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := streams.Apply(t.Context(), js, streams.Options{Partitions: 4}); err != nil {
		t.Fatal(err)
	}
	if r.stream, err = js.Stream(t.Context(), events.StreamEvents); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(r.log, nil))
	env := &environment{log: log, config: config.Config{
		Ingest:  config.Ingest{Checkpoints: true},
		Sources: []config.Source{{Name: "shop", Postgres: config.NewSecret(address)}},
	}}
	byName, closeAll, err := mirrors(env)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(closeAll)
	source, err := pgcdc.New(pgcdc.Options{
		Name: "shop", ConnString: address, Tables: []string{"*.*"}, Partitions: 4, Heartbeat: 100 * time.Millisecond, Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	pipeline := ingest.NewPipeline(nc, r.stream, ingest.Options{
		Leader: "test", Log: log, Metrics: ingest.NewMetrics(prometheus.NewRegistry()), Mirrors: byName,
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- pipeline.Run(ctx, source, alone{}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the pipeline ended with %v", err)
		}
	})
	return r
}

// alone is a lease that nobody else wants.
type alone struct{}

func (alone) Hold(ctx context.Context, work func(context.Context) error) error { return work(ctx) }

func (r *reading) exec(sql string) {
	r.t.Helper()
	if _, err := r.owner.Exec(r.t.Context(), sql); err != nil {
		r.t.Fatalf("%s: %v", sql, err)
	}
}

// one gives the value of a question; empty where the question fails, or has no answer.
func (r *reading) one(sql string) string {
	var answer string
	if err := r.owner.QueryRow(r.t.Context(), sql).Scan(&answer); err != nil {
		return ""
	}
	return answer
}

func (r *reading) position() (p ingest.Position) {
	r.t.Helper()
	msg, err := r.stream.GetLastMsgForSubject(r.t.Context(), events.PositionSubject("shop"))
	if err != nil {
		return p
	}
	if err := json.Unmarshal(msg.Data, &p); err != nil {
		r.t.Fatal(err)
	}
	return p
}

func (r *reading) subjects() map[string]uint64 {
	r.t.Helper()
	info, err := r.stream.Info(r.t.Context(), jetstream.WithSubjectFilter(events.EventsOfSource("shop")))
	if err != nil {
		r.t.Fatal(err)
	}
	return info.State.Subjects
}

func (r *reading) until(what string, fact func() bool) {
	r.t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !fact() {
		select {
		case <-deadline:
			r.t.Fatalf("waited in vain until %s", what)
		case <-tick.C:
		}
	}
}

const saved = `SELECT version::text || ' ' || xmin::text FROM tributary.checkpoints WHERE phase = 'streaming' AND commit_lsn > $$0/0$$`

// TestAnIdleDatabaseStaysIdle publishes all tables, our own included: a save comes back through the slot, and must not
// lead to the next. The heartbeats move the end of the log, and that is no reason to save either.
func TestAnIdleDatabaseStaysIdle(t *testing.T) {
	r := read(t, `CREATE TABLE orders (id bigint PRIMARY KEY); CREATE PUBLICATION tributary_shop FOR ALL TABLES`, nil)
	r.until("it streams", func() bool { return r.position().Phase == ingest.PhaseStreaming })
	r.exec(`INSERT INTO orders VALUES (1)`)
	r.until("the event is stored", func() bool { return len(r.subjects()) == 1 })
	r.until("the mirror has it", func() bool {
		return r.one(`SELECT phase FROM tributary.checkpoints WHERE change_index = 1 AND commit_lsn > '0/0'`) == "streaming"
	})
	before, end := r.one(saved), r.position().EndLSN
	for range 10 {
		r.until("the end moves on", func() bool { return r.position().EndLSN > end })
		end = r.position().EndLSN
	}
	if after := r.one(saved); after != before || before == "" {
		t.Errorf("the mirror's row was %q, and is %q though nothing happened", before, after)
	}
	for subject, n := range r.subjects() {
		if !strings.Contains(subject, ".orders.") {
			t.Errorf("%d events under %s", n, subject)
		}
	}
}

func TestWithoutRightsThereIsNoMirror(t *testing.T) {
	r := read(t, `CREATE TABLE orders (id bigint PRIMARY KEY)`, func(owner *pgx.Conn, address string) string {
		const role = `DROP ROLE IF EXISTS reader; CREATE ROLE reader LOGIN REPLICATION PASSWORD 'secret';
			GRANT SELECT ON orders TO reader; CREATE PUBLICATION tributary_shop FOR TABLE orders`
		if _, err := owner.Exec(t.Context(), role); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if _, err := owner.Exec(context.Background(), `DROP OWNED BY reader; DROP ROLE reader`); err != nil {
				t.Error(err)
			}
		})
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		u.User = url.UserPassword("reader", "secret")
		return u.String()
	})
	r.until("it streams", func() bool { return r.position().Phase == ingest.PhaseStreaming })
	confirmed := r.one(`SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = 'tributary_shop'`)
	r.exec(`INSERT INTO orders VALUES (1)`)
	r.until("the event is stored", func() bool { return len(r.subjects()) == 1 })
	r.until("the slot moves on", func() bool {
		return r.one(`SELECT (confirmed_flush_lsn > '`+confirmed+`')::text FROM pg_replication_slots WHERE slot_name = 'tributary_shop'`) == "true"
	})
	if n := r.log.count("positions are not mirrored"); n != 1 || r.log.count("GRANT CREATE ON DATABASE") != 1 {
		t.Errorf("it is said %d times that there is no mirror", n)
	}
	if r.one(`SELECT nspname FROM pg_namespace WHERE nspname = 'tributary'`) != "" {
		t.Error("the schema was made")
	}
}
