package pgcdc

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tributary-dev/tributary/internal/pgtest"
)

// All of it is written before any of it is read, so the catalog is ahead of every change but the last.
func TestEachChangeHasTheShapeOfItsTime(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	db.exec(`CREATE SCHEMA archive; CREATE TYPE mood AS ENUM ('sad');
		CREATE TABLE t (id int PRIMARY KEY, a int, b text);
		CREATE TABLE log (id int, n int, PRIMARY KEY (id)) PARTITION BY RANGE (id);
		CREATE TABLE log_1 PARTITION OF log FOR VALUES FROM (0) TO (10);
		CREATE TABLE log_2 (n int, junk int, id int PRIMARY KEY); ALTER TABLE log_2 DROP junk`)
	source := db.source(func(o *Options) { o.Tables = []string{"public.*", "archive.*"} })
	s := newStore(t)
	r := s.startConfirming(source, 0, nothing)
	r.streaming()
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{
		`INSERT INTO t VALUES (1, 1, 'one')`,
		`ALTER TABLE t ADD c numeric(5,2) DEFAULT 1.5`,
		`INSERT INTO t VALUES (2, 2, 'two', 2)`,
		`ALTER TABLE t DROP a`,
		`INSERT INTO t VALUES (3, 'three', 3)`,
		`ALTER TABLE t RENAME b TO name`,
		`UPDATE t SET name = 'THREE' WHERE id = 3`,
		`ALTER TABLE t ALTER c TYPE text`,
		`UPDATE t SET c = 'x' WHERE id = 3`,
		`BEGIN; INSERT INTO t VALUES (4, 'before'); ALTER TABLE t ADD m mood; INSERT INTO t VALUES (5, 'after', NULL, 'sad'); COMMIT`,
		`ALTER TYPE mood ADD VALUE 'glad'`,
		`ALTER TABLE t ALTER id TYPE bigint`,
		`INSERT INTO t VALUES (6000000000, 'six', NULL, 'glad')`,
		`ALTER TABLE t SET SCHEMA archive`,
		`INSERT INTO archive.t VALUES (7, 'seven')`,
		`ALTER TABLE archive.t RENAME TO u`,
		`DELETE FROM archive.u WHERE id = 7`,
		`DROP TABLE archive.u`,
		`CREATE TABLE t (other text PRIMARY KEY)`,
		`ALTER PUBLICATION tributary_shop ADD TABLE t`,
		`INSERT INTO t VALUES ('eight')`,
		`INSERT INTO log VALUES (1, 1)`,
		`ALTER TABLE log ATTACH PARTITION log_2 FOR VALUES FROM (10) TO (20)`,
		`INSERT INTO log VALUES (11, 11)`,
		`ALTER TABLE log DETACH PARTITION log_1`,
		`ALTER PUBLICATION tributary_shop ADD TABLE log_1`,
		`INSERT INTO log_1 VALUES (3, 3)`,
	} {
		db.exec(statement)
	}
	got := s.startConfirming(source, 0, nothing).events(14)
	checkData(t, got,
		`op "insert" schema "public" table "t" key {"id":1} after {"id":1,"a":1,"b":"one"} index 1 last`,
		`op "insert" schema "public" table "t" key {"id":2} after {"id":2,"a":2,"b":"two","c":2.00} index 1 last`,
		`op "insert" schema "public" table "t" key {"id":3} after {"id":3,"b":"three","c":3.00} index 1 last`,
		`op "update" schema "public" table "t" key {"id":3} after {"id":3,"name":"THREE","c":3.00} index 1 last`,
		`op "update" schema "public" table "t" key {"id":3} after {"id":3,"name":"THREE","c":"x"} index 1 last`,
		`op "insert" schema "public" table "t" key {"id":4} after {"id":4,"name":"before","c":"1.5"} index 1`,
		`op "insert" schema "public" table "t" key {"id":5} after {"id":5,"name":"after","c":null,"m":"sad"} index 2 last`,
		`op "insert" schema "public" table "t" key {"id":6000000000} after {"id":6000000000,"name":"six","c":null,"m":"glad"} index 1 last`,
		`op "insert" schema "archive" table "t" key {"id":7} after {"id":7,"name":"seven","c":"1.5","m":null} index 1 last`,
		`op "delete" schema "archive" table "u" key {"id":7} before {"id":7} index 1 last`,
		`op "insert" schema "public" table "t" key {"other":"eight"} after {"other":"eight"} index 1 last`,
		`op "insert" schema "public" table "log_1" key {"id":1} after {"id":1,"n":1} index 1 last`,
		`op "insert" schema "public" table "log_2" key {"id":11} after {"n":11,"id":11} index 1 last`,
		`op "insert" schema "public" table "log_1" key {"id":3} after {"id":3,"n":3} index 1 last`,
	)
}

// Under FULL the wire does not say which columns are the key, and the catalog has its new name.
func TestAKeyThatWasRenamedSinceIsStillTheKey(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	db.exec(`CREATE TABLE t (n int, b text, a int, PRIMARY KEY (b, a)); ALTER TABLE t REPLICA IDENTITY FULL`)
	source := db.source()
	s := newStore(t)
	r := s.startConfirming(source, 0, nothing)
	r.streaming()
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	db.exec(`INSERT INTO t VALUES (1, 'x', 2)`)
	db.exec(`ALTER TABLE t RENAME b TO bb`)
	db.exec(`ALTER TABLE t RENAME a TO b`)
	db.exec(`DELETE FROM t`)
	got := s.startConfirming(source, 0, nothing).events(2)
	checkData(t, got,
		`op "insert" schema "public" table "t" key {"b":"x","a":2} after {"n":1,"b":"x","a":2} index 1 last`,
		`op "delete" schema "public" table "t" key {"bb":"x","b":2} before {"n":1,"bb":"x","b":2} index 1 last`,
	)
	if got[0].Subject[:len("events.000")] != got[1].Subject[:len("events.000")] {
		t.Errorf("one row is in two partitions: %s, %s", got[0].Subject, got[1].Subject)
	}
}

func TestACompositeHasTheNamesOfItsTime(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	db.exec(`CREATE TYPE pair AS (a int, b text); CREATE DOMAIN held AS pair; CREATE TYPE outside AS (p held[]);
		CREATE TABLE t (id int PRIMARY KEY, p pair, o outside[]); INSERT INTO t VALUES (0, (0, 'o'), ARRAY[ROW(ARRAY[(0, 'o')::held])::outside])`)
	registry := prometheus.NewRegistry()
	source := db.source(withSnapshot, func(o *Options) { o.Metrics = NewMetrics(registry) })
	s := newStore(t)
	r := s.startConfirming(source, 0, nothing)
	r.streaming()
	insert := func(id string) {
		db.exec(`INSERT INTO t VALUES (` + id + `, (` + id + `, 'x'), ARRAY[ROW(ARRAY[(` + id + `, 'x')::held])::outside])`)
	}
	insert("1")
	r.until("the first insert", func(s *store) bool { return s.count() == 2 })
	// One that is read after the type was altered, and one that is written after it; nothing about the table changes.
	db.exec(`BEGIN; INSERT INTO t VALUES (2, (2, 'x')); COMMIT; ALTER TYPE pair RENAME ATTRIBUTE a TO z`)
	insert("3")
	r.until("the third insert", func(s *store) bool { return s.count() == 4 })
	if n := counted(t, registry, "tributary_ingest_text_values_total"); n != 0 {
		t.Errorf("%v values were passed as text", n)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	// Who comes later, and never saw the type as it was, does not make up names.
	insert("4")
	db.exec(`ALTER TYPE pair RENAME ATTRIBUTE z TO y`)
	insert("5")
	r = s.startConfirming(source, 0, nothing)
	checkData(t, r.events(6),
		`op "snapshot" schema "public" table "t" key {"id":0} after {"id":0,"p":{"a":0,"b":"o"},"o":[{"p":[{"a":0,"b":"o"}]}]}`,
		`op "insert" schema "public" table "t" key {"id":1} after {"id":1,"p":{"a":1,"b":"x"},"o":[{"p":[{"a":1,"b":"x"}]}]} index 1 last`,
		`op "insert" schema "public" table "t" key {"id":2} after {"id":2,"p":{"a":2,"b":"x"},"o":null} index 1 last`,
		`op "insert" schema "public" table "t" key {"id":3} after {"id":3,"p":{"z":3,"b":"x"},"o":[{"p":[{"z":3,"b":"x"}]}]} index 1 last`,
		`op "insert" schema "public" table "t" key {"id":4} after {"id":4,"p":"(4,x)","o":"{\"(\\\"{\\\"\\\"(4,x)\\\"\\\"}\\\")\"}"} index 1 last`,
		`op "insert" schema "public" table "t" key {"id":5} after {"id":5,"p":{"y":5,"b":"x"},"o":[{"p":[{"y":5,"b":"x"}]}]} index 1 last`,
	)
	if n := counted(t, registry, "tributary_ingest_text_values_total"); n != 2 {
		t.Errorf("%v values count as passed as text, want 2", n)
	}
}

func TestTransactionsAreCompared(t *testing.T) {
	for _, c := range []struct {
		xid, than uint32
		want      bool
	}{{2, 1, true}, {1, 1, false}, {1, 2, false}, {3, 1<<32 - 3, true}, {1<<32 - 3, 3, false}} {
		if later(c.xid, c.than) != c.want {
			t.Errorf("%d later than %d: %v", c.xid, c.than, !c.want)
		}
	}
	if laterOf(0, 5) != 5 || laterOf(5, 0) != 5 || laterOf(3, 1<<32-3) != 3 {
		t.Error("the later one is not found")
	}
}
