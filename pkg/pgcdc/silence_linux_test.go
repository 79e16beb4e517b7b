package pgcdc

import (
	"errors"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/internal/pgtest"
	"github.com/tributary-dev/tributary/pkg/ingest"
)

// freeze stops the backend whose process a query gives, until the test ends at the latest.
func (d *database) freeze(query string) (pid int) {
	d.t.Helper()
	pid, err := strconv.Atoi(d.value(query))
	if err != nil {
		d.t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) }) // so that the server can end
	return pid
}

// A walsender that hangs keeps its connection: no FIN tells of it, and the machine goes on to acknowledge what is sent.
func TestAServerThatFallsSilentIsGivenUp(t *testing.T) {
	server := pgtest.Server(t, nil)
	db := newDatabase(t, server.URL("postgres"))
	db.exec(`CREATE TABLE a (id int PRIMARY KEY)`)
	s := newStore(t)
	source := db.source(func(o *Options) { o.ReceiveTimeout = shortestTimeout })
	r := s.start(source, 0)
	r.streaming()
	waitFor(t, "the stream", func() bool { return db.value(walSender) != "" })
	db.exec(`INSERT INTO a VALUES (1)`)
	r.until("the first event", func(s *store) bool { return s.count() == 1 })
	pid := db.freeze(walSender)
	if err := r.wait(); !errors.Is(err, errSilent) || errors.Is(err, ingest.ErrRefused) {
		t.Fatalf("Run ended with %v, want %v, which is tried again", err, errSilent)
	}
	db.exec(`INSERT INTO a VALUES (2)`)
	if err := s.start(source, 0).wait(); err == nil || errors.Is(err, ingest.ErrRefused) {
		t.Fatalf("with the slot in the hands of a walsender that hangs: %v, want an error that is tried again", err)
	}
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the walsender to end, as it was told", func() bool { return db.value(walSender) == "" })
	checkData(t, s.start(source, 0).events(2),
		`op "insert" schema "public" table "a" key {"id":1} after {"id":1} index 1 last`,
		`op "insert" schema "public" table "a" key {"id":2} after {"id":2} index 1 last`)
}

// The backend that reads a table's rows sends no status, and is asked for none.
func TestABackendThatHangsOverASnapshotIsGivenUp(t *testing.T) {
	const reader = `SELECT max(pid)::text FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%ctid FROM ONLY%' AND pid <> pg_backend_pid()`
	server := pgtest.Server(t, nil)
	db := newDatabase(t, server.URL("postgres"))
	db.exec(lastTable + `CREATE TABLE a (id int PRIMARY KEY, text text); INSERT INTO a SELECT i, repeat('x', 8000) FROM generate_series(1, 3000) i`)
	s := newStore(t)
	source := func(rate int64) *Source {
		return db.source(func(o *Options) { o.Snapshot, o.SnapshotRate, o.snapshotSilence = true, rate, time.Second })
	}
	const slow = 4 << 20 // a second: more is on its way than a connection holds
	r := s.start(source(slow), 0)
	waitFor(t, "the reader of rows", func() bool { return db.value(reader) != "" })
	db.freeze(reader)
	if err := r.wait(); !errors.Is(err, errSilent) || errors.Is(err, ingest.ErrRefused) {
		t.Fatalf("Run ended with %v, want %v, which is tried again", err, errSilent)
	}
	all := end(t, db, s.startConfirming(source(0), 0, nothing)) // though it still hangs
	if rows := rowsOf(t, all, "a"); len(rows) != 3000 {
		t.Errorf("%d rows came, want 3000", len(rows))
	}
}
