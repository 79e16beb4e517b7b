package pgcdc

import (
	"strings"
	"testing"

	"github.com/tributary-dev/tributary/internal/pgtest"
	"github.com/tributary-dev/tributary/pkg/events"
)

func TestChangesBecomeEvents(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	db.exec(`CREATE TABLE orders (id int PRIMARY KEY, status text, total numeric);
		CREATE TABLE lines ("order" int, "Line no." int, note text, PRIMARY KEY ("Line no.", "order"))`)
	s := newStore(t)
	r := s.start(db.source(), 0)
	r.streaming()
	db.exec(`INSERT INTO orders VALUES (1, 'new', 19.90), (2, NULL, 'NaN')`)
	db.exec(`UPDATE orders SET status = 'packed' WHERE id = 1; UPDATE orders SET id = 3 WHERE id = 2; DELETE FROM orders WHERE id = 3`)
	db.exec(`INSERT INTO lines VALUES (1, 7, 'a "b" c')`)
	db.exec(`DELETE FROM lines`)
	db.exec(`TRUNCATE orders, lines`)
	got := r.events(9)
	checkData(t, got,
		`op "insert" schema "public" table "orders" key {"id":1} after {"id":1,"status":"new","total":19.90} index 1`,
		`op "insert" schema "public" table "orders" key {"id":2} after {"id":2,"status":null,"total":"NaN"} index 2 last`,
		`op "update" schema "public" table "orders" key {"id":1} after {"id":1,"status":"packed","total":19.90} index 1`,
		`op "update" schema "public" table "orders" key {"id":3} before {"id":2} after {"id":3,"status":null,"total":"NaN"} index 2`,
		`op "delete" schema "public" table "orders" key {"id":3} before {"id":3} index 3 last`,
		`op "insert" schema "public" table "lines" key {"Line no.":7,"order":1} after {"order":1,"Line no.":7,"note":"a \"b\" c"} index 1 last`,
		`op "delete" schema "public" table "lines" key {"Line no.":7,"order":1} before {"order":1,"Line no.":7} index 1 last`,
		`op "truncate" schema "public" table "orders" index 1`,
		`op "truncate" schema "public" table "lines" index 2 last`,
	)
	last := got[len(got)-1]
	event, err := events.Parse([]byte(last.Data))
	if err != nil {
		t.Fatal(err)
	}
	if event.PartitionKey != "public.lines" || last.Through != events.LSN(last.At.Commit)+1 || got[7].Through != 0 {
		t.Errorf("the last event is %+v, through %s", event, last.Through)
	}
	address, err := events.ParseAddress(got[5].Subject)
	if err != nil {
		t.Fatal(err)
	}
	want := events.Address{Partition: events.Partition("public.lines/7/1", 16), Source: "shop", Schema: "public", Table: "lines", Op: events.OpInsert}
	if address != want {
		t.Errorf("the subject of line 7 is %+v, want %+v", address, want)
	}
	if prefix := "shop-1-"; !strings.HasPrefix(got[0].ID, prefix) || !strings.HasSuffix(got[0].ID, "-1") {
		t.Errorf("the first id is %s", got[0].ID)
	}
}

// long is a text that PostgreSQL keeps out of line, and does not compress.
const long = `(SELECT string_agg(md5(n::text), '') FROM generate_series(1, 200) n)`

func TestOldRowsDependOnTheReplicaIdentity(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	db.exec(`CREATE TABLE whole (id int PRIMARY KEY, n int, doc text); ALTER TABLE whole REPLICA IDENTITY FULL;
		CREATE TABLE keyless (n int, m int); ALTER TABLE keyless REPLICA IDENTITY FULL;
		CREATE TABLE other (id int PRIMARY KEY, code text NOT NULL UNIQUE, n int); ALTER TABLE other REPLICA IDENTITY USING INDEX other_code_key;
		CREATE TABLE normal (id int PRIMARY KEY, n int, doc text);
		CREATE TABLE longkey (id text PRIMARY KEY, n int); ALTER TABLE longkey ALTER id SET STORAGE EXTERNAL`)
	s := newStore(t)
	r := s.start(db.source(), 0)
	r.streaming()
	db.exec(`INSERT INTO whole VALUES (1, 1, ` + long + `)`)
	db.exec(`UPDATE whole SET n = 2; UPDATE whole SET n = 2; DELETE FROM whole`)
	db.exec(`INSERT INTO keyless VALUES (1, NULL); UPDATE keyless SET m = 2; DELETE FROM keyless`)
	db.exec(`INSERT INTO other VALUES (1, 'a', 1); UPDATE other SET n = 2; UPDATE other SET code = 'b'; DELETE FROM other`)
	db.exec(`INSERT INTO normal VALUES (1, 1, ` + long + `); UPDATE normal SET n = 2`)
	db.exec(`INSERT INTO longkey VALUES (repeat('k', 2500), 1); UPDATE longkey SET n = 2`)
	got := r.events(15)
	doc, key := db.value(`SELECT `+long), strings.Repeat("k", 2500)
	for i := range got {
		got[i].Data = strings.ReplaceAll(strings.ReplaceAll(got[i].Data, doc, "LONG"), key, "KEY")
	}
	checkData(t, got,
		`op "insert" schema "public" table "whole" key {"id":1} after {"id":1,"n":1,"doc":"LONG"} index 1 last`,
		`op "update" schema "public" table "whole" key {"id":1} before {"id":1,"n":1,"doc":"LONG"} after {"id":1,"n":2,"doc":"LONG"} changed ["n"] index 1`,
		`op "update" schema "public" table "whole" key {"id":1} before {"id":1,"n":2,"doc":"LONG"} after {"id":1,"n":2,"doc":"LONG"} changed [] index 2`,
		`op "delete" schema "public" table "whole" key {"id":1} before {"id":1,"n":2,"doc":"LONG"} index 3 last`,
		`op "insert" schema "public" table "keyless" after {"n":1,"m":null} index 1`,
		`op "update" schema "public" table "keyless" before {"n":1,"m":null} after {"n":1,"m":2} changed ["m"] index 2`,
		`op "delete" schema "public" table "keyless" before {"n":1,"m":2} index 3 last`,
		`op "insert" schema "public" table "other" key {"code":"a"} after {"id":1,"code":"a","n":1} index 1`,
		`op "update" schema "public" table "other" key {"code":"a"} after {"id":1,"code":"a","n":2} index 2`,
		`op "update" schema "public" table "other" key {"code":"b"} before {"code":"a"} after {"id":1,"code":"b","n":2} index 3`,
		`op "delete" schema "public" table "other" key {"code":"b"} before {"code":"b"} index 4 last`,
		`op "insert" schema "public" table "normal" key {"id":1} after {"id":1,"n":1,"doc":"LONG"} index 1`,
		`op "update" schema "public" table "normal" key {"id":1} after {"id":1,"n":2} unchanged ["doc"] index 2 last`,
		`op "insert" schema "public" table "longkey" key {"id":"KEY"} after {"id":"KEY","n":1} index 1`,
		`op "update" schema "public" table "longkey" key {"id":"KEY"} after {"n":2} unchanged ["id"] index 2 last`,
	)
}

func TestLogicalMessagesBecomeEvents(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	db.exec(`CREATE TABLE orders (id int PRIMARY KEY)`)
	s := newStore(t)
	r := s.start(db.source(), 0)
	r.streaming()
	db.exec(`SELECT pg_logical_emit_message(true, 'order placed', '{"id": 1,  "n": 12345678901234567890}'), pg_logical_emit_message(true, 'note', 'plain "text"')`)
	db.exec(`SELECT pg_logical_emit_message(false, 'note', '\x00ff'::bytea), pg_logical_emit_message(false, 'tributary.other', 'x'), pg_logical_emit_message(false, 'tributary.heartbeat', 'x')`)
	db.exec(`SELECT pg_logical_emit_message(true, 'tributary.first', ''); INSERT INTO orders VALUES (1); SELECT pg_logical_emit_message(true, 'tributary.last', '')`)
	db.exec(`SELECT pg_logical_emit_message(false, repeat('p', 5000), '')`)
	got := r.events(5)
	prefix := strings.Repeat("p", 5000)
	got[4].Data = strings.ReplaceAll(got[4].Data, prefix, "LONG")
	checkData(t, got,
		`op "message" prefix "order placed" content {"id": 1,  "n": 12345678901234567890} index 1`,
		`op "message" prefix "note" content "plain \"text\"" index 2 last`,
		`op "message" prefix "note" content {"base64":"AP8="}`,
		`op "insert" schema "public" table "orders" key {"id":1} after {"id":1} index 2 last`,
		`op "message" prefix "LONG" content ""`,
	)
	outside := got[2]
	if !strings.HasSuffix(outside.ID, "-0-0") || outside.At.Index != 0 || outside.Through != events.LSN(outside.At.Commit) {
		t.Errorf("the message of no transaction is %s at %s, through %s", outside.ID, outside.At, outside.Through)
	}
	address, err := events.ParseAddress(got[0].Subject)
	if err != nil {
		t.Fatal(err)
	}
	if want := (events.Address{Partition: events.Partition("order%20placed", 16), Source: "shop", Table: "order placed", Op: events.OpMessage}); address != want {
		t.Errorf("the subject is of %+v, want %+v", address, want)
	}
	if len(got[4].Subject) > 200 {
		t.Errorf("a subject has %d bytes", len(got[4].Subject))
	}
}

func TestPartitionsAreReadByTheirRoot(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	db.exec(`CREATE TABLE log (id int PRIMARY KEY, n int) PARTITION BY RANGE (id); CREATE TABLE log_1 PARTITION OF log FOR VALUES FROM (0) TO (10);
		CREATE TABLE unrelated (id int); INSERT INTO log VALUES (1)`)
	s := newStore(t)
	r := s.start(db.source(withSnapshot, func(o *Options) { o.Tables = []string{"public.log"} }), 0)
	r.streaming()
	db.exec(`CREATE TABLE log_2 PARTITION OF log FOR VALUES FROM (10) TO (20)`)
	db.exec(`INSERT INTO log VALUES (2, 2), (11, 11); INSERT INTO unrelated VALUES (1); UPDATE log SET id = 12 WHERE id = 2`)
	checkData(t, r.events(5),
		`op "snapshot" schema "public" table "log_1" key {"id":1} after {"id":1,"n":null}`,
		`op "insert" schema "public" table "log_1" key {"id":2} after {"id":2,"n":2} index 1`,
		`op "insert" schema "public" table "log_2" key {"id":11} after {"id":11,"n":11} index 2`,
		`op "delete" schema "public" table "log_1" key {"id":2} before {"id":2} index 3`,
		`op "insert" schema "public" table "log_2" key {"id":12} after {"id":12,"n":2} index 4 last`,
	)
}

func TestTablesThatDoNotMatchAreCounted(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	db.exec(`CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY); CREATE PUBLICATION mixed FOR TABLE a, b`)
	s := newStore(t)
	r := s.start(db.source(func(o *Options) { o.Tables, o.Publication = []string{"public.a"}, "mixed" }), 0)
	r.streaming()
	db.exec(`INSERT INTO b VALUES (1); INSERT INTO a VALUES (1); INSERT INTO b VALUES (2); INSERT INTO a VALUES (2); INSERT INTO b VALUES (3)`)
	db.exec(`TRUNCATE b, a`)
	checkData(t, r.events(3),
		`op "insert" schema "public" table "a" key {"id":1} after {"id":1} index 2`,
		`op "insert" schema "public" table "a" key {"id":2} after {"id":2} index 4 last`,
		`op "truncate" schema "public" table "a" index 2 last`,
	)
}

func TestColumnsMayChange(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	db.exec(`CREATE TYPE pair AS (a int, b text); CREATE TABLE orders (id int PRIMARY KEY, n int, p pair)`)
	s := newStore(t)
	r := s.start(db.source(), 0)
	r.streaming()
	db.exec(`INSERT INTO orders VALUES (1, 1, (1, 'x'))`)
	db.exec(`ALTER TABLE orders DROP COLUMN n, ADD COLUMN m text DEFAULT 'd'`)
	db.exec(`INSERT INTO orders VALUES (2, (2, 'y'))`)
	r.until("two events", func(s *store) bool { return s.count() == 2 })
	db.exec(`ALTER TYPE pair ADD ATTRIBUTE c bool`)
	db.exec(`INSERT INTO orders VALUES (3, (3, 'z', true))`)
	checkData(t, r.events(3),
		`op "insert" schema "public" table "orders" key {"id":1} after {"id":1,"n":1,"p":{"a":1,"b":"x"}} index 1 last`,
		`op "insert" schema "public" table "orders" key {"id":2} after {"id":2,"p":{"a":2,"b":"y"},"m":"d"} index 1 last`,
		`op "insert" schema "public" table "orders" key {"id":3} after {"id":3,"p":{"a":3,"b":"z","c":true},"m":"d"} index 1 last`,
	)
}

func TestAPublicationThatIsGivenDecides(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	db.exec(`CREATE TABLE log (id int PRIMARY KEY, n int) PARTITION BY RANGE (id); CREATE TABLE log_1 PARTITION OF log FOR VALUES FROM (0) TO (10);
		CREATE TABLE other (id int PRIMARY KEY); INSERT INTO log VALUES (1, 1), (2, 2);
		CREATE PUBLICATION given FOR TABLE log WITH (publish_via_partition_root = true); ALTER PUBLICATION given OWNER TO pg_monitor`)
	s := newStore(t)
	r := s.start(db.source(withSnapshot, func(o *Options) { o.Publication = "given" }), 0)
	r.streaming()
	db.exec(`INSERT INTO other VALUES (1)`)
	db.exec(`UPDATE log SET n = 3 WHERE id = 1`)
	checkData(t, r.events(3),
		`op "snapshot" schema "public" table "log" key {"id":1} after {"id":1,"n":1}`,
		`op "snapshot" schema "public" table "log" key {"id":2} after {"id":2,"n":2}`,
		`op "update" schema "public" table "log" key {"id":1} after {"id":1,"n":3} index 1 last`,
	)
}

func TestColumnListsAndRowFiltersHoldForTheSnapshotToo(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	if db.value(`SELECT (current_setting('server_version_num')::int < 150000)::text`) == "true" {
		t.Skip("PostgreSQL 14 has neither")
	}
	db.exec(`CREATE TABLE a (secret text, id int PRIMARY KEY, n int); INSERT INTO a VALUES ('s', 1, 1), ('s', 2, -1)`)
	db.exec(`CREATE PUBLICATION given FOR TABLE a (id, n) WHERE (id <> 2)`)
	s := newStore(t)
	r := s.start(db.source(withSnapshot, func(o *Options) { o.Publication = "given" }), 0)
	r.streaming()
	db.exec(`INSERT INTO a VALUES ('s', 3, 3)`)
	checkData(t, r.events(2),
		`op "snapshot" schema "public" table "a" key {"id":1} after {"id":1,"n":1}`,
		`op "insert" schema "public" table "a" key {"id":3} after {"id":3,"n":3} index 1 last`,
	)
}
