package pgcdc

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/tributary-dev/tributary/internal/pgtest"
	"github.com/tributary-dev/tributary/internal/postgres"
	"github.com/tributary-dev/tributary/pkg/ingest"
)

// pair is a primary and its standby, which has the slot of source shop.
type pair struct {
	t                *testing.T
	primary, standby *postgres.Server
	db               *database // on the primary
	store            *store
	source           *Source // reads whichever of them takes writes
}

// newPair needs failover slots: PGBIN=fetch:17.5.0 runs what calls it.
func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{t: t, primary: pgtest.Server(t, nil), store: newStore(t)}
	db := newDatabase(t, p.primary.URL("postgres"))
	if version := db.value(`SELECT current_setting('server_version_num')`); version < "170000" {
		t.Skipf("version %s has no failover slots", version)
	}
	p.standby = pgtest.Standby(t, p.primary, nil)
	p.db = newDatabase(t, p.primary.URL("postgres"))
	p.db.exec(`CREATE TABLE a (id int PRIMARY KEY)`)
	p.source = p.reading(p.primary, p.standby)
	r := p.store.start(p.source, 0)
	r.streaming()
	standby := newDatabase(t, p.standby.URL("postgres"))
	waitFor(t, "the slot on the standby", func() bool {
		p.db.exec(`SELECT pg_log_standby_snapshot()`)      // as the server does each 15 s
		standby.exec(`SELECT pg_sync_replication_slots()`) // as sync_replication_slots does each 30 s on a quiet server
		return standby.value(`SELECT count(*)::text FROM pg_replication_slots WHERE slot_name = 'tributary_shop' AND synced AND failover AND NOT temporary`) == "1"
	})
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	return p
}

// reading is a source with the addresses of servers, of which it reads the one that takes writes.
func (p *pair) reading(servers ...*postgres.Server) *Source {
	p.t.Helper()
	var hosts []string
	var address *url.URL
	for _, s := range servers {
		var err error
		if address, err = url.Parse(s.URL("postgres")); err != nil {
			p.t.Fatal(err)
		}
		hosts = append(hosts, address.Host)
	}
	address.Host = strings.Join(hosts, ",")
	address.RawQuery = "sslmode=disable&target_session_attrs=read-write"
	return p.db.source(func(o *Options) { o.ConnString = address.String() })
}

// flushed waits until the standby has what the primary wrote.
func (p *pair) flushed() {
	p.t.Helper()
	p.db.exec(`SET synchronous_commit = on; INSERT INTO a VALUES (-1); DELETE FROM a WHERE id = -1`)
	end := p.db.lsn(`SELECT pg_current_wal_flush_lsn()`)
	standby := newDatabase(p.t, p.standby.URL("postgres"))
	waitFor(p.t, "the standby to have all", func() bool {
		return standby.lsn(`SELECT coalesce(pg_last_wal_receive_lsn(), '0/0')`) >= end
	})
}

// promote ends the primary as a crash would, and has the standby take over.
func (p *pair) promote() *database {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	if err := p.primary.Kill(ctx); err != nil {
		p.t.Fatal(err)
	}
	standby := newDatabase(p.t, p.standby.URL("postgres"))
	if standby.value(`SELECT pg_promote(true, 60)::text`) != "true" {
		p.t.Fatal("the standby was not promoted")
	}
	return standby
}

func TestAPromotedStandbyIsReadOnWithoutLossOrRepetition(t *testing.T) {
	p := newPair(t)
	p.db.exec(`ALTER SYSTEM SET synchronized_standby_slots = 'standby'`) // what is read is on the standby
	p.db.exec(`SELECT pg_reload_conf()`)
	r := p.store.start(p.source, 0)
	p.db.exec(`INSERT INTO a SELECT generate_series(1, 100)`)
	r.until("a hundred events", func(s *store) bool { return s.count() == 100 })
	p.store.mu.Lock() // what comes now is read by nobody before the primary is gone
	p.db.exec(`INSERT INTO a SELECT generate_series(101, 200)`)
	p.flushed()
	standby := p.promote()
	p.store.mu.Unlock()
	if err := r.wait(); err == nil || errors.Is(err, ingest.ErrRefused) {
		t.Fatalf("at the end of the primary Run ended with %v, want an error that is tried again", err)
	}
	standby.exec(`INSERT INTO a SELECT generate_series(201, 210)`)

	// Cut off again and again: none of the events tells of the timeline by itself.
	const all = 100 + 100 + 2 + 10
	for p.store.count() < all {
		err := p.store.start(p.source, min(all-p.store.count(), 4)).wait()
		if err != nil && errors.Is(err, ingest.ErrRefused) {
			t.Fatalf("with %d events: %v", p.store.count(), err)
		}
	}
	for _, e := range p.store.all() { // that none came twice, and all in order, the store has seen
		if !strings.Contains(e.Data, `"table":"a"`) {
			t.Errorf("%s", e.Data)
		}
	}
	if at := p.store.where().Position.Timeline; at != 2 {
		t.Errorf("the position is on timeline %d", at)
	}

	// The old primary comes back, and knows nothing of what followed.
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := p.primary.Resume(ctx); err != nil {
		t.Fatal(err)
	}
	err := p.store.start(p.reading(p.primary), 0).wait()
	if !errors.Is(err, ingest.ErrRefused) || !strings.Contains(err.Error(), "is on timeline 1, which does not come from timeline 2") {
		t.Errorf("the old primary gives %v", err)
	}
}

func TestAPromotedStandbyThatLacksWhatWasPublishedIsRefused(t *testing.T) {
	p := newPair(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r := p.store.start(p.source, 0)
	p.db.exec(`INSERT INTO a VALUES (1)`)
	r.until("an event", func(s *store) bool { return s.count() == 1 })
	p.flushed()
	if err := p.standby.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	before := p.store.count()
	p.db.exec(`INSERT INTO a SELECT generate_series(2, 100)`)
	r.until("events that the standby will never have", func(s *store) bool { return s.count() >= before+99 })
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if err := p.primary.Kill(ctx); err != nil {
		t.Fatal(err)
	}
	if err := p.standby.Resume(ctx); err != nil {
		t.Fatal(err)
	}
	standby := newDatabase(t, p.standby.URL("postgres"))
	if standby.value(`SELECT pg_promote(true, 60)::text`) != "true" {
		t.Fatal("the standby was not promoted")
	}
	// It has written past that place since, so that its log's end alone says nothing.
	standby.exec(`INSERT INTO a SELECT generate_series(1000, 3000)`)
	if end := standby.lsn(`SELECT pg_current_wal_insert_lsn()`); end <= p.store.where().Through {
		t.Fatalf("the new primary is at %s, and not past %s", end, p.store.where().Through)
	}
	err := p.store.start(p.source, 0).wait()
	if !errors.Is(err, ingest.ErrRefused) || !strings.Contains(err.Error(), "it was restored, or took over without them") || !strings.Contains(err.Error(), "tributary snapshot --reset shop") {
		t.Errorf("got %v, want a refusal with the way out", err)
	}
	if n := p.store.count(); n != before+99 {
		t.Errorf("%d events, want %d", n, before+99)
	}
}
