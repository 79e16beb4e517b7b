package pgcdc

import (
	"errors"
	"strconv"
	"syscall"
	"testing"

	"github.com/tributary-dev/tributary/internal/pgtest"
	"github.com/tributary-dev/tributary/pkg/ingest"
)

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
	pid, err := strconv.Atoi(db.value(walSender))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) }) // so that the server can end
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
