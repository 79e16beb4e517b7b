package pgcdc

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tributary-dev/tributary/internal/pgtest"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/ingest"
)

func TestEveryWayToWriteIsRead(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	db.exec(`CREATE TABLE a (id int PRIMARY KEY, n int, twice int GENERATED ALWAYS AS (n * 2) STORED, junk text); ALTER TABLE a DROP junk;
		CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a ON DELETE CASCADE ON UPDATE CASCADE); CREATE TABLE c (id int PRIMARY KEY, b int REFERENCES b)`)
	s := newStore(t)
	r := s.start(db.source(), 0)
	r.streaming()
	insert := func(table string, columns string) string {
		return `op "insert" schema "public" table "` + table + `" ` + columns
	}
	if _, err := db.conn.CopyFrom(t.Context(), pgx.Identifier{"a"}, []string{"id", "n"}, pgx.CopyFromRows([][]any{{1, 1}, {2, 2}})); err != nil {
		t.Fatal(err)
	}
	want := []string{insert("a", `key {"id":1} after {"id":1,"n":1} index 1`), insert("a", `key {"id":2} after {"id":2,"n":2} index 2 last`)}
	db.exec(`INSERT INTO a VALUES (2, 20), (3, 3) ON CONFLICT (id) DO UPDATE SET n = excluded.n`)
	want = append(want, `op "update" schema "public" table "a" key {"id":2} after {"id":2,"n":20} index 1`, insert("a", `key {"id":3} after {"id":3,"n":3} index 2 last`))
	db.exec(`INSERT INTO a VALUES (3, 30) ON CONFLICT DO NOTHING`)
	db.exec(`INSERT INTO b VALUES (1, 1); UPDATE a SET id = 10 WHERE id = 1; DELETE FROM a WHERE id = 10`)
	want = append(want, insert("b", `key {"id":1} after {"id":1,"a":1} index 1`),
		`op "update" schema "public" table "a" key {"id":10} before {"id":1} after {"id":10,"n":1} index 2`,
		`op "update" schema "public" table "b" key {"id":1} after {"id":1,"a":10} index 3`,
		`op "delete" schema "public" table "a" key {"id":10} before {"id":10} index 4`,
		`op "delete" schema "public" table "b" key {"id":1} before {"id":1} index 5 last`)
	db.exec(`WITH gone AS (DELETE FROM a WHERE id = 3 RETURNING *) INSERT INTO b SELECT id + 100, 2 FROM gone`)
	want = append(want, `op "delete" schema "public" table "a" key {"id":3} before {"id":3} index 1`, insert("b", `key {"id":103} after {"id":103,"a":2} index 2 last`))
	db.exec(`TRUNCATE a, b CASCADE`)
	for i, table := range []string{"a", "b", "c"} {
		last := map[bool]string{true: " last"}[i == 2]
		want = append(want, fmt.Sprintf(`op "truncate" schema "public" table "%s" index %d%s`, table, i+1, last))
	}
	if db.value(`SELECT (current_setting('server_version_num')::int >= 150000)::text`) == "true" {
		db.exec(`INSERT INTO a VALUES (1, 1), (2, 2)`)
		db.exec(`MERGE INTO a USING (VALUES (1, 5), (2, 6), (7, 7)) AS v (id, n) ON a.id = v.id WHEN MATCHED AND v.n = 6 THEN DELETE
			WHEN MATCHED THEN UPDATE SET n = v.n WHEN NOT MATCHED THEN INSERT (id, n) VALUES (v.id, v.n)`)
		want = append(want, insert("a", `key {"id":1} after {"id":1,"n":1} index 1`), insert("a", `key {"id":2} after {"id":2,"n":2} index 2 last`),
			`op "update" schema "public" table "a" key {"id":1} after {"id":1,"n":5} index 1`, `op "delete" schema "public" table "a" key {"id":2} before {"id":2} index 2`,
			insert("a", `key {"id":7} after {"id":7,"n":7} index 3 last`))
	}
	checkData(t, r.events(len(want)), want...)
}

// Through the root, rows of partitions whose columns stand in another order, with dropped ones between, have the root's.
func TestPartitionsHaveTheColumnsOfTheRootThatPublishes(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	db.exec(`CREATE TABLE log (id int, n int, note text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
		CREATE TABLE log_1 PARTITION OF log FOR VALUES FROM (0) TO (10);
		CREATE TABLE log_2 (note text, junk int, n int, id int PRIMARY KEY); ALTER TABLE log_2 DROP junk; ALTER TABLE log_2 REPLICA IDENTITY FULL; ALTER TABLE log_1 REPLICA IDENTITY FULL; ALTER TABLE log REPLICA IDENTITY FULL;
		ALTER TABLE log ATTACH PARTITION log_2 FOR VALUES FROM (10) TO (20);
		INSERT INTO log VALUES (1, 1, 'a'), (11, 11, 'b'); CREATE PUBLICATION given FOR TABLE log WITH (publish_via_partition_root = true)`)
	s := newStore(t)
	r := s.start(db.source(withSnapshot, func(o *Options) { o.Tables, o.Publication = []string{"public.log"}, "given" }), 0)
	r.streaming()
	db.exec(`INSERT INTO log VALUES (12, 12, 'c'); UPDATE log SET n = 0 WHERE id = 12; UPDATE log SET id = 2 WHERE id = 12`)
	db.exec(`TRUNCATE log`)
	got := r.events(7)
	checkData(t, got,
		`op "snapshot" schema "public" table "log" key {"id":1} after {"id":1,"n":1,"note":"a"}`,
		`op "snapshot" schema "public" table "log" key {"id":11} after {"id":11,"n":11,"note":"b"}`,
		`op "insert" schema "public" table "log" key {"id":12} after {"id":12,"n":12,"note":"c"} index 1`,
		`op "update" schema "public" table "log" key {"id":12} before {"id":12,"n":12,"note":"c"} after {"id":12,"n":0,"note":"c"} changed ["n"] index 2`,
		`op "delete" schema "public" table "log" key {"id":12} before {"id":12,"n":0,"note":"c"} index 3`,
		`op "insert" schema "public" table "log" key {"id":2} after {"id":2,"n":0,"note":"c"} index 4 last`,
		`op "truncate" schema "public" table "log" index 1 last`,
	)
}

// The identity of the root is not that of its partitions, which decides what of old rows there is.
func TestOldRowsOfPartitionsThatAreNotWholeHaveNoNullsMadeUp(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	db.exec(`CREATE TABLE log (id int PRIMARY KEY, n int) PARTITION BY RANGE (id); CREATE TABLE log_1 PARTITION OF log FOR VALUES FROM (0) TO (10);
		ALTER TABLE log REPLICA IDENTITY FULL; CREATE PUBLICATION given FOR TABLE log WITH (publish_via_partition_root = true)`)
	s := newStore(t)
	r := s.start(db.source(func(o *Options) { o.Tables, o.Publication = []string{"public.log"}, "given" }), 0)
	r.streaming()
	db.exec(`INSERT INTO log VALUES (1, 1); UPDATE log SET n = 2; UPDATE log SET id = 2; DELETE FROM log`)
	checkData(t, r.events(4),
		`op "insert" schema "public" table "log" key {"id":1} after {"id":1,"n":1} index 1`,
		`op "update" schema "public" table "log" key {"id":1} after {"id":1,"n":2} index 2`,
		`op "update" schema "public" table "log" key {"id":2} before {"id":1} after {"id":2,"n":2} index 3`,
		`op "delete" schema "public" table "log" key {"id":2} before {"id":2} index 4 last`,
	)
}

func TestRowsWiderThanTheirTableAreRefused(t *testing.T) {
	d, rel := newTestDecoder(nil)
	if err := d.decode(t.Context(), beginMessage(1)); err != nil {
		t.Fatal(err)
	}
	err := d.decode(t.Context(), insertMessage(rel, "1", "2", "shipped", "1.5", "2026-11-23 08:45:53+00", "x", "hidden"))
	if !errors.Is(err, ingest.ErrRefused) || !strings.Contains(err.Error(), "15.2") {
		t.Errorf("got %v", err)
	}
}

// A made-up place, the begin of a change and the length of its text, would lie far behind this value's few kilobytes of log.
func TestACompressibleValueDoesNotOvershoot(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	db.exec(`CREATE TABLE a (id int PRIMARY KEY, note text)`)
	source := db.source()
	s := newStore(t)
	r := s.start(source, 0)
	r.streaming()
	db.exec(`INSERT INTO a VALUES (1, repeat('x', 4 << 20))`)
	r.until("the large one", func(s *store) bool { return s.count() == 1 })
	end := db.lsn(`SELECT pg_current_wal_insert_lsn()`)
	if through := s.where().Through; through > end {
		t.Errorf("stored through %s, and the log ends at %s", through, end)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	db.exec(`INSERT INTO a VALUES (2, 'small')`)
	got := s.start(source, 0).events(2)
	if !strings.Contains(got[1].Data, `"after":{"id":2,`) {
		t.Errorf("behind the large one comes %s", got[1].Data)
	}
}

func TestTheEndOfTheLogIsTheFlushedOne(t *testing.T) {
	server := pgtest.Server(t, map[string]string{"synchronous_commit": "off", "wal_writer_delay": "10s", "wal_writer_flush_after": "1GB"})
	db := newDatabase(t, server.URL("postgres"))
	db.exec(`CREATE TABLE a (id int)`)
	waitFor(t, "the log to be written, and not flushed", func() bool {
		db.exec(`INSERT INTO a SELECT generate_series(1, 1000)`)
		inserted := db.lsn(`SELECT pg_current_wal_insert_lsn()`)
		there, err := Stand(t.Context(), db.url, "none")
		if err != nil {
			t.Fatal(err)
		}
		flushed := db.lsn(`SELECT pg_current_wal_flush_lsn()`)
		if there.Flushed > flushed {
			t.Fatalf("the end is taken to be %s, and %s is flushed", there.Flushed, flushed)
		}
		return there.Flushed < inserted
	})
}

// What commits while the publication is not there is not sent, and newer servers only warn.
func TestAPublicationThatIsMadeAgainIsRefused(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	db.exec(`CREATE TABLE a (id int PRIMARY KEY)`)
	s := newStore(t)
	r := s.startConfirming(db.source(), 0, nothing)
	r.streaming()
	db.exec(`INSERT INTO a VALUES (1)`)
	r.until("an event", func(s *store) bool { return s.count() == 1 })
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	db.exec(`DROP PUBLICATION tributary_shop`)
	db.exec(`INSERT INTO a VALUES (2)`)
	db.exec(`CREATE PUBLICATION tributary_shop FOR TABLE a`)
	db.exec(`INSERT INTO a VALUES (3)`)
	checkRefused(t, s.startConfirming(db.source(), 0, nothing).wait(), `tributary_shop.*tributary snapshot --reset shop`)
}

func TestNamesDoNotReRouteSubjects(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	names := []string{"a.b", "*", ">", "a b", "ü", "a\tb", "%", "publish", "$JS.API"}
	for _, name := range names {
		id := pgx.Identifier{name}.Sanitize()
		db.exec(`CREATE SCHEMA ` + id + `; CREATE TABLE ` + id + `.` + id + ` (` + id + ` text PRIMARY KEY)`)
	}
	s := newStore(t)
	r := s.start(db.source(func(o *Options) { o.Tables = []string{"*.*"} }), 0)
	r.streaming()
	for _, name := range names {
		id := pgx.Identifier{name}.Sanitize()
		db.exec(`INSERT INTO `+id+`.`+id+` VALUES ($1)`, name)
	}
	for i, e := range r.events(len(names)) {
		address, err := events.ParseAddress(e.Subject)
		tokens := strings.Split(e.Subject, ".")
		if err != nil || address.Schema != names[i] || address.Table != names[i] || len(tokens) != 6 || strings.ContainsAny(strings.Join(tokens, ""), "*> \t") {
			t.Errorf("%q is published on %s: %+v, %v", names[i], e.Subject, address, err)
		}
		if strings.ContainsAny(e.ID, ".*> \t%") {
			t.Errorf("the id is %s", e.ID)
		}
	}
}

func TestRowFiltersOfThePublicationTurnUpdates(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	if db.value(`SELECT (current_setting('server_version_num')::int < 150000)::text`) == "true" {
		t.Skip("PostgreSQL 14 has no row filters")
	}
	db.exec(`CREATE TABLE a (id int PRIMARY KEY, n int, hidden text); ALTER TABLE a REPLICA IDENTITY FULL; INSERT INTO a VALUES (1, 1, 'x'), (2, -2, 'x')`)
	db.exec(`CREATE PUBLICATION given FOR TABLE a WHERE (n > 0)`)
	s := newStore(t)
	r := s.start(db.source(withSnapshot, func(o *Options) { o.Publication = "given" }), 0)
	r.streaming()
	db.exec(`UPDATE a SET n = -n; INSERT INTO a VALUES (3, -3); DELETE FROM a WHERE id = 1; UPDATE a SET n = 5 WHERE id = 2`)
	checkData(t, r.events(4),
		`op "snapshot" schema "public" table "a" key {"id":1} after {"id":1,"n":1,"hidden":"x"}`,
		`op "delete" schema "public" table "a" key {"id":1} before {"id":1,"n":1,"hidden":"x"} index 1`,
		`op "insert" schema "public" table "a" key {"id":2} after {"id":2,"n":2,"hidden":"x"} index 2`,
		`op "update" schema "public" table "a" key {"id":2} before {"id":2,"n":2,"hidden":"x"} after {"id":2,"n":5,"hidden":"x"} changed ["n"] index 3 last`,
	)
}

func TestGeneratedColumnsArePublishedWhereThePublicationDoes(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	if db.value(`SELECT (current_setting('server_version_num')::int < 180000)::text`) == "true" {
		t.Skip("before version 18 none is sent")
	}
	db.exec(`CREATE TABLE a (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED, live int GENERATED ALWAYS AS (id * 3) VIRTUAL); INSERT INTO a VALUES (1)`)
	db.exec(`CREATE PUBLICATION given FOR TABLE a WITH (publish_generated_columns = stored)`)
	s := newStore(t)
	r := s.start(db.source(withSnapshot, func(o *Options) { o.Publication, o.Masks = "given", map[string]string{"a.twice": "sha256"} }), 0)
	r.streaming()
	db.exec(`INSERT INTO a VALUES (2)`)
	checkData(t, r.events(2),
		`op "snapshot" schema "public" table "a" key {"id":1} after {"id":1,"twice":"`+hashed("2")+`"}`,
		`op "insert" schema "public" table "a" key {"id":2} after {"id":2,"twice":"`+hashed("4")+`"} index 1 last`,
	)
}
