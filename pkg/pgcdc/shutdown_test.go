package pgcdc

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/internal/pgtest"
	"github.com/tributary-dev/tributary/internal/stall"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/ingest"
)

// soon is how long a fast shutdown of a server may take; one that waits for its reader takes wal_sender_timeout or for ever.
const soon = 8 * time.Second

func TestServerShutsDownWhileConfirmationsLag(t *testing.T) {
	server := pgtest.Server(t, nil)
	db := newDatabase(t, server.URL("postgres"))
	db.exec(`CREATE TABLE orders (id int PRIMARY KEY)`)
	s := newStore(t)
	var early events.LSN // what may be confirmed: the first event, and no more
	r := s.startConfirming(db.source(), 0, func(state ingest.State) events.LSN {
		if early == 0 && state.Last.Index > 0 {
			early = state.Through
		}
		return early
	})
	r.streaming()
	db.exec(`INSERT INTO orders VALUES (1)`)
	r.until("an event", func(s *store) bool { return s.count() == 1 })
	db.exec(`INSERT INTO orders SELECT generate_series(2, 100)`)
	r.until("all events", func(s *store) bool { return s.count() == 100 })
	waitFor(t, "the confirmation of the first event", func() bool {
		return db.lsn(`SELECT confirmed_flush_lsn FROM pg_replication_slots`) == r.feed.Confirmable()
	})
	if flush := db.value(`SELECT flush_lsn FROM pg_stat_replication WHERE application_name = 'tributary/shop'`); flush != "" {
		t.Errorf("the server holds %s for our flushed position", flush)
	}
	stopSoon(t, server.Stop)
	if err := r.wait(); err == nil || errors.Is(err, ingest.ErrRefused) {
		t.Errorf("Run ended with %v, want an error that is tried again", err)
	}
	if err := server.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	db = newDatabase(t, server.URL("postgres"))
	if confirmed := db.lsn(`SELECT confirmed_flush_lsn FROM pg_replication_slots`); confirmed > early {
		t.Errorf("%s is confirmed, and only %s is confirmable", confirmed, early)
	}
	r = s.start(db.source(), 0)
	db.exec(`INSERT INTO orders VALUES (101)`)
	r.events(101)
}

func TestServerShutsDownWhilePublishingWaits(t *testing.T) {
	server := pgtest.Server(t, nil)
	db := newDatabase(t, server.URL("postgres"))
	db.exec(`CREATE TABLE orders (id int PRIMARY KEY, note text)`)
	s := newStore(t)
	r := s.start(db.source(), 0)
	r.streaming()
	s.mu.Lock() // nothing is stored from here on
	db.exec(`INSERT INTO orders SELECT n, repeat('x', 1000) FROM generate_series(1, 20000) n`)
	waitFor(t, "a full feed", func() bool { bytes, _ := r.feed.Waiting(); return bytes > 700<<10 })
	stopSoon(t, server.Stop)
	s.mu.Unlock()
	if err := r.wait(); err == nil || errors.Is(err, ingest.ErrRefused) {
		t.Errorf("Run ended with %v, want an error that is tried again", err)
	}
	if err := server.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.start(newDatabase(t, server.URL("postgres")).source(), 0).events(20000)
}

func stopSoon(t *testing.T, stop func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	began := stall.Begin(t)
	if err := stop(ctx); err != nil {
		t.Fatal(err)
	}
	began.Within(soon, "the shutdown")
}

// waitFor waits for a fact that nothing announces.
func waitFor(t testing.TB, what string, fact func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !fact() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waiting for %s", what)
		}
	}
}
