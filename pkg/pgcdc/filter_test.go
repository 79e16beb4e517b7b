package pgcdc

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tributary-dev/tributary/internal/pgtest"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/ingest"
)

// unlike keeps what does not hold a text.
func unlike(text string) func(*Options) {
	return func(o *Options) {
		o.Keep = func(c *Candidate) (bool, error) { return !bytes.Contains(c.Envelope, []byte(text)), nil }
	}
}

// counted gives the sum of a counter over its labels.
func counted(t *testing.T, registry *prometheus.Registry, name string) (sum float64) {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == name {
			for _, m := range family.GetMetric() {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

func TestAFilterLeavesNoHoleButInTheIndices(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	db.exec(`CREATE TABLE a (id int PRIMARY KEY, n text); CREATE TABLE audit_a (id int PRIMARY KEY); INSERT INTO a VALUES (1, 'no'), (2, 'yes')`)
	registry := prometheus.NewRegistry()
	source := db.source(withSnapshot, unlike(`"n":"no"`), func(o *Options) {
		o.Tables = []string{"public.*", "!public.audit_*"}
		o.Metrics = NewMetrics(registry)
	})
	s := newStore(t)
	r := s.startConfirming(source, 0, nothing)
	r.streaming()
	db.exec(`INSERT INTO a VALUES (3, 'yes'), (4, 'no'), (5, 'yes'), (6, 'no'), (7, 'no')`)
	db.exec(`INSERT INTO a VALUES (8, 'no'); INSERT INTO audit_a VALUES (1)`)
	db.exec(`SELECT pg_logical_emit_message(true, 'x', '{"n":"no"}'), pg_logical_emit_message(true, 'x', 'yes')`)
	db.exec(`SELECT pg_logical_emit_message(false, 'x', '{"n":"no"}')`)
	db.exec(`DELETE FROM a WHERE id = 8`)
	whole := r.events(5)
	checkData(t, whole,
		`op "snapshot" schema "public" table "a" key {"id":2} after {"id":2,"n":"yes"}`,
		`op "insert" schema "public" table "a" key {"id":3} after {"id":3,"n":"yes"} index 1`,
		`op "insert" schema "public" table "a" key {"id":5} after {"id":5,"n":"yes"} index 3 last`,
		`op "message" prefix "x" content "yes" index 2 last`,
		`op "delete" schema "public" table "a" key {"id":8} before {"id":8} index 1 last`,
	)
	if whole[2].Through != events.LSN(whole[2].At.Commit)+1 {
		t.Errorf("the last event that passes does not end its transaction: through %s", whole[2].Through)
	}
	if n := counted(t, registry, "tributary_ingest_filtered_total"); n != 7 {
		t.Errorf("%v changes count as filtered, want 7", n)
	}

	// Ids are those of the unfiltered stream, and restarts at each event change nothing.
	again := newStore(t)
	again.state = s.where()
	again.state.Last, again.state.Through = events.Sequence{}, events.LSN(whole[1].At.Commit)
	for n := 1; n <= 4; n++ {
		if err := again.startConfirming(source, 1, nothing).wait(); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(whole[1:], again.all()); diff != "" {
		t.Errorf("read in one go and with restarts (-one go +restarts):\n%s", diff)
	}
}

func TestATransactionThatIsFilteredWholeMovesThePosition(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	db.exec(`CREATE TABLE a (id int PRIMARY KEY)`)
	s := newStore(t)
	r := s.start(db.source(unlike(`"a"`), func(o *Options) { o.Heartbeat = 1 }), 0)
	r.streaming()
	db.exec(`INSERT INTO a SELECT generate_series(1, 100)`)
	end := db.lsn(`SELECT pg_current_wal_insert_lsn()`)
	r.until("the position behind it", func(s *store) bool { return s.where().Position.EndLSN >= end })
	if n := s.count(); n != 0 {
		t.Errorf("%d events", n)
	}
}

func TestOperationsAreChosen(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	db.exec(`CREATE TABLE a (id int PRIMARY KEY, n int); INSERT INTO a VALUES (1)`)
	s := newStore(t)
	r := s.start(db.source(withSnapshot, func(o *Options) { o.Ops = []events.Op{events.OpUpdate, events.OpTruncate} }), 0)
	r.streaming()
	db.exec(`INSERT INTO a VALUES (2); UPDATE a SET n = 1 WHERE id = 2; DELETE FROM a; SELECT pg_logical_emit_message(true, 'x', 'x')`)
	db.exec(`TRUNCATE a`)
	checkData(t, r.events(2),
		`op "update" schema "public" table "a" key {"id":2} after {"id":2,"n":1} index 2 last`,
		`op "truncate" schema "public" table "a" index 1 last`)
	if _, err := New(Options{Name: "shop", Tables: []string{"*.*"}, Partitions: 1, Ops: []events.Op{"upsert"}}); err == nil || !strings.Contains(err.Error(), "sources[shop].ops") {
		t.Errorf("an operation that there is not: %v", err)
	}
}

func TestAChangeThatCanNotBeJudgedIsPublishedAndCounted(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	db.exec(`CREATE TABLE a (id int PRIMARY KEY)`)
	registry := prometheus.NewRegistry()
	s := newStore(t)
	r := s.start(db.source(func(o *Options) {
		o.Metrics = NewMetrics(registry)
		o.Keep = func(c *Candidate) (bool, error) { return false, errors.New("no such key") }
	}), 0)
	r.streaming()
	db.exec(`INSERT INTO a VALUES (1), (2)`)
	checkData(t, r.events(2),
		`op "insert" schema "public" table "a" key {"id":1} after {"id":1} index 1`,
		`op "insert" schema "public" table "a" key {"id":2} after {"id":2} index 2 last`)
	if n := counted(t, registry, "tributary_ingest_filter_errors_total"); n != 2 {
		t.Errorf("%v changes count as not judged, want 2", n)
	}
}

func TestRowsOfANewTablePassTheSameFilter(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	s := newStore(t)
	r := s.start(db.source(withSnapshot, func(o *Options) {
		o.Keep = func(c *Candidate) (bool, error) { return !bytes.Contains(c.Envelope, []byte(`"n":0`)), nil }
	}), 0)
	r.streaming()
	db.exec(`CREATE TABLE a (id int PRIMARY KEY, n int); INSERT INTO a SELECT n, n % 2 FROM generate_series(1, 2500) n`)
	got := r.events(1250)
	for _, e := range got {
		if !strings.Contains(e.Data, `"n":1`) {
			t.Errorf("not filtered: %s", e.Data)
		}
	}
	if position := s.where().Position; position.Phase != ingest.PhaseStreaming {
		t.Errorf("the position is %+v", position)
	}
}

func TestPatternsLeaveTablesOut(t *testing.T) {
	p, err := parsePatterns([]string{"public.*", "!public.audit_*", "archive.audit_*", "!*.tmp"})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		names [][2]string
		want  bool
	}{
		"a table":                         {[][2]string{{"public", "orders"}}, true},
		"one that is left out":            {[][2]string{{"public", "audit_1"}}, false},
		"one of another schema":           {[][2]string{{"archive", "audit_1"}}, true},
		"one that is left out everywhere": {[][2]string{{"archive", "tmp"}}, false},
		"a partition of a table":          {[][2]string{{"parts", "p1"}, {"public", "orders"}}, true},
		"a partition of what is left out": {[][2]string{{"public", "p1"}, {"public", "audit_1"}}, false},
		"a partition that is left out":    {[][2]string{{"public", "audit_p1"}, {"public", "orders"}}, false},
		"our own":                         {[][2]string{{"tributary", "positions"}}, false},
	} {
		if got := p.matchAny(c.names); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if _, err := parsePatterns([]string{"!public.a"}); err == nil {
		t.Error("patterns that only leave out are taken")
	}
	if got := fmt.Sprint(p); got != "public.*, !public.audit_*, archive.audit_*, !*.tmp" {
		t.Error(got)
	}
}

func TestATransactionThatAFilterCutsHasItsEnd(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	db.exec(`CREATE TABLE a (id int PRIMARY KEY, n text)`)
	s := newStore(t)
	r := s.startConfirming(db.source(), 0, nothing)
	r.streaming()
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	db.exec(`INSERT INTO a VALUES (1, 'yes'), (2, 'yes'), (3, 'no'), (4, 'no')`)
	db.exec(`INSERT INTO a VALUES (5, 'yes')`)
	if err := s.startConfirming(db.source(), 2, nothing).wait(); err != nil {
		t.Fatal(err)
	}
	source := db.source(unlike(`"n":"no"`), func(o *Options) { o.Ops = []events.Op{events.OpInsert} })
	if err := s.startConfirming(source, 1, nothing).wait(); err != nil { // cut off once more, behind the end that was made
		t.Fatal(err)
	}
	all := s.startConfirming(source, 0, nothing).events(4)
	checkData(t, all,
		`op "insert" schema "public" table "a" key {"id":1} after {"id":1,"n":"yes"} index 1`,
		`op "insert" schema "public" table "a" key {"id":2} after {"id":2,"n":"yes"} index 2`,
		`op "message" prefix "tributary.closed" content "" index 4 last`,
		`op "insert" schema "public" table "a" key {"id":5} after {"id":5,"n":"yes"} index 1 last`)
}
