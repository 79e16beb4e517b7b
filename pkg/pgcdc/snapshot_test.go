package pgcdc

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/tributary-dev/tributary/internal/pgtest"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/ingest"
)

// inChunks reads with several connections, eight blocks at a time.
func inChunks(o *Options) {
	o.Snapshot, o.SnapshotParallel, o.snapshotChunk = true, 3, 8*8192
}

// rowsOf counts the rows that events of tables end in, by all that they hold: what a reader without a key can do.
func rowsOf(t *testing.T, all []stored, tables ...string) map[string]int {
	t.Helper()
	rows := map[string]int{}
	for _, e := range all {
		row := e.row(t)
		of := false
		for _, table := range tables {
			of = of || table == row.Table
		}
		if !of {
			continue
		}
		if before := string(row.Before); row.Before != nil && rows[before] > 0 {
			if rows[before]--; rows[before] == 0 {
				delete(rows, before)
			}
		}
		if row.After != nil {
			rows[string(row.After)]++
		}
	}
	return rows
}

func (d *database) rows(table string) map[string]int {
	d.t.Helper()
	result, err := d.conn.Query(d.t.Context(), `SELECT row_to_json(x)::text FROM `+table+` x`)
	if err != nil {
		d.t.Fatal(err)
	}
	texts, err := pgx.CollectRows(result, pgx.RowTo[string])
	if err != nil {
		d.t.Fatal(err)
	}
	rows := map[string]int{}
	for _, text := range texts {
		rows[text]++
	}
	return rows
}

func TestASnapshotHasEachRowOnce(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	db.exec(`CREATE TABLE keyed (id int PRIMARY KEY, note text); INSERT INTO keyed SELECT i, repeat('x', 300) FROM generate_series(1, 5000) i;
		CREATE TABLE bloated (id int PRIMARY KEY); INSERT INTO bloated SELECT i FROM generate_series(1, 20000) i; DELETE FROM bloated WHERE id % 500 <> 0;
		CREATE TABLE keyless (n int); ALTER TABLE keyless REPLICA IDENTITY FULL; INSERT INTO keyless SELECT i / 2 FROM generate_series(1, 5000) i;
		CREATE TABLE toasted (id int PRIMARY KEY, doc text); ALTER TABLE toasted ALTER doc SET STORAGE EXTERNAL;
		INSERT INTO toasted SELECT i, repeat(md5(i::text), 100) FROM generate_series(1, 1000) i;
		CREATE TABLE parted (id int, note text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
		CREATE TABLE low PARTITION OF parted FOR VALUES FROM (0) TO (1000);
		CREATE TABLE high (note text, id int NOT NULL); ALTER TABLE parted ATTACH PARTITION high FOR VALUES FROM (1000) TO (9999);
		INSERT INTO parted SELECT i, 'n' || i FROM generate_series(1, 3000) i; CREATE TABLE empty (id int PRIMARY KEY);
		CREATE TABLE made (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED); INSERT INTO made VALUES (1);
		CREATE VIEW seen AS SELECT * FROM keyed`)
	s := newStore(t)
	r := s.start(db.source(inChunks), 0)
	r.streaming()
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	for _, table := range []string{"keyed", "bloated", "keyless", "toasted", "low", "high", "empty"} {
		if diff := cmp.Diff(db.rows(table), rowsOf(t, s.all(), table)); diff != "" {
			t.Errorf("%s (-table +events):\n%.1000s", table, diff)
		}
	}
	if diff := cmp.Diff(map[string]int{`{"id":1}`: 1}, rowsOf(t, s.all(), "made")); diff != "" && db.value(`SHOW server_version_num`) < "180000" {
		t.Errorf("what is generated is not in the stream either:\n%s", diff)
	}
	for _, e := range s.all() {
		if address, err := events.ParseAddress(e.Subject); err != nil || address.Op != events.OpSnapshot {
			t.Fatalf("%s: %v", e.Subject, err)
		}
	}
}

func TestAPartitionedTableThatIsPublishedWholeIsReadByPartitions(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	db.exec(`CREATE TABLE parted (id int PRIMARY KEY, note text) PARTITION BY HASH (id);
		CREATE TABLE p0 PARTITION OF parted FOR VALUES WITH (MODULUS 2, REMAINDER 0); CREATE TABLE p1 PARTITION OF parted FOR VALUES WITH (MODULUS 2, REMAINDER 1);
		INSERT INTO parted SELECT i, repeat('x', 200) FROM generate_series(1, 5000) i;
		CREATE PUBLICATION given FOR TABLE parted WITH (publish_via_partition_root = true)`)
	source := db.source(inChunks, func(o *Options) { o.Publication = "given" })
	for name, cut := range map[string]int{"in one go": 0, "cut off": 4} {
		s := newStore(t)
		if cut > 0 {
			s.step(source, cut)
		}
		r := s.startConfirming(source, 0, nothing)
		r.until("the rows", func(s *store) bool {
			p := s.where().Position
			return p.Phase == ingest.PhaseStreaming && p.Cursor == nil
		})
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(db.rows("parted"), rowsOf(t, s.all(), "parted")); diff != "" || s.count() != 5000 {
			t.Errorf("%s: %d events (-table +events):\n%.1000s", name, s.count(), diff)
		}
		db.dropSlot()
	}
}

const toKill = `CREATE TABLE b (id int PRIMARY KEY, n int, doc text); ALTER TABLE b ALTER doc SET STORAGE EXTERNAL;
	INSERT INTO b SELECT i, 0, CASE WHEN i % 3 = 0 THEN repeat(md5(i::text), 100) ELSE repeat('y', 200) END FROM generate_series(1, 3000) i;
	CREATE TABLE keyless (n int, note text); ALTER TABLE keyless REPLICA IDENTITY FULL; INSERT INTO keyless SELECT i, repeat('z', 100) FROM generate_series(1, 3000) i;`

// keylessWriter changes rows that look like no other, in a table without a key.
func keylessWriter(t *testing.T, url string, n int) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close(t.Context())
	for i := range n {
		for _, statement := range []string{
			fmt.Sprintf(`UPDATE keyless SET note = note || 'u' WHERE n = %d`, 7*i), fmt.Sprintf(`DELETE FROM keyless WHERE n = %d`, 11*i+1),
			fmt.Sprintf(`INSERT INTO keyless VALUES (%d, 'new')`, 10000+i),
		} {
			if _, err := conn.Exec(t.Context(), statement); err != nil {
				t.Error(err)
				return
			}
		}
	}
}

// Behind the second batch nothing of the snapshot is stored, and it is begun anew.
func TestASnapshotIsCutOffAtAnyBatchWhileWritersRun(t *testing.T) {
	for _, cut := range []int{2, 4, 7} {
		t.Run(fmt.Sprint(cut), func(t *testing.T) {
			db := newDatabase(t, pgtest.Database(t))
			db.exec(lastTable + toKill)
			source := db.source(inChunks, func(o *Options) { o.Log = nil })
			s := newStore(t)
			var writers sync.WaitGroup
			defer writers.Wait()
			write := func(seed uint64) {
				writers.Go(func() { writer(t, db.url, "b", seed, 150) })
			}
			write(1)
			s.step(source, cut)
			write(2)
			writers.Go(func() { keylessWriter(t, db.url, 100) })
			s.step(source, 3) // and the reading that goes on is cut off as well
			s.step(source, 2)
			r := s.startConfirming(source, 0, nothing)
			writers.Wait()
			all := end(t, db, r)
			checkTable(t, db, all, "b")
			if diff := cmp.Diff(db.rows("keyless"), rowsOf(t, all, "keyless")); diff != "" {
				t.Errorf("keyless (-table +events):\n%.1000s", diff)
			}
		})
	}
}

func TestRowsThatAreAskedForComeAgainAmongTheirChanges(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	db.exec(lastTable + toKill)
	db.exec(`ANALYZE`)
	var ask func(Ask) (Answer, error)
	asking := make(chan struct{}, 1)
	source := db.source(inChunks, func(o *Options) {
		o.Log = nil
		o.Serve = serveTo(&ask, asking)
	})
	s := newStore(t)
	r := s.startConfirming(source, 0, nothing)
	r.streaming()
	<-asking
	for name, c := range map[string]struct{ table, where, says string }{
		"a table that is not published":      {"tributary.other", "", "not published"},
		"a view":                             {"seen", "", "not published"},
		"no such column":                     {"b", "missing = 1", `column "missing" does not exist`},
		"no condition":                       {"b", "n", "must be type boolean"},
		"a second statement":                 {"b", "true; DELETE FROM b", "syntax error"},
		"one that closes its place":          {"b", "true) OR (true", "syntax error"},
		"one that adds to the query":         {"b", "true) UNION SELECT * FROM keyless --", "syntax error"},
		"one that leaves the other wrapping": {"b", "true THEN true WHEN true", "syntax error"},
		"an open comment":                    {"b", "true /*", "unterminated"},
		"parameters":                         {"b", "id = $1", "parameters"},
		"one that never ends":                {"b", "pg_sleep(60) IS NULL AND (SELECT pg_sleep(60)) IS NULL", ""},
	} {
		if _, err := ask(Ask{ID: name, Table: c.table, Where: c.where, DryRun: true}); c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if a, err := ask(Ask{ID: "dry", Table: "b", Where: "id <= 100", DryRun: true}); err != nil || a.Rows < 50 || a.Rows > 300 || a.LSN != 0 {
		t.Errorf("a dry run gives %+v, %v", a, err)
	}
	before := s.count()
	var writers sync.WaitGroup
	for seed := range uint64(2) {
		writers.Go(func() { writer(t, db.url, "b", seed+1, 150) })
	}
	answer, err := ask(Ask{ID: "one", Table: "public.b", Where: "id <= 2000 -- all that are old"})
	if err != nil {
		t.Fatal(err)
	}
	again, err := ask(Ask{ID: "one", Table: "public.b", Where: "id <= 2000 -- all that are old"})
	if err != nil || again.LSN != answer.LSN {
		t.Errorf("asked twice: %+v, %v", again, err)
	}
	if err := r.stop(); err != nil { // whoever leads next goes on
		t.Fatal(err)
	}
	r = s.startConfirming(source, 0, nothing)
	<-asking
	keyless, err := ask(Ask{ID: "two", Table: "keyless"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ask(Ask{ID: "fails", Table: "b", Where: "1 / (id - id) = 0"}); err != nil {
		t.Fatal(err)
	}
	writers.Wait()
	ended := func(s *store) bool {
		_, ended, err := ReadProgress(s.where().Position)
		return err == nil && len(ended) == 3
	}
	r.until("the end of the readings", ended)
	_, done, err := ReadProgress(s.where().Position)
	if err != nil || done[0].Error != "" || done[1].Rows != 3000 || !strings.Contains(done[2].Error, "division by zero") {
		t.Errorf("they ended as %+v: %v", done, err)
	}
	all := finish(t, db, r)
	checkTable(t, db, all, "b")
	counts := map[string]int{}
	for _, e := range all[before:] {
		if i := strings.Index(e.ID, "-s"); i > 0 {
			counts[e.ID[:i]]++
		}
	}
	name := func(lsn events.LSN) string { return fmt.Sprintf("shop-1-%016X", uint64(lsn)) }
	if got := counts[name(answer.LSN)]; got < 1500 || got > 2100 {
		t.Errorf("%d rows of b came again", got)
	}
	if got := counts[name(keyless.LSN)]; got > 0 || len(counts) < 2 {
		t.Errorf("rows without a key are named by their places: %v", counts)
	}
}

// Every boundary between two batches of a small snapshot, and of the reading that goes on with it, is one where it ends.
func TestASnapshotIsCutOffBehindEachOfItsBatches(t *testing.T) {
	for cut := 1; ; cut++ {
		db := newDatabase(t, pgtest.Database(t))
		db.exec(lastTable + `CREATE TABLE b (id int PRIMARY KEY, n int, doc text); INSERT INTO b SELECT i, 0, repeat('y', 700) FROM generate_series(1, 60) i;
			CREATE TABLE parted (id int PRIMARY KEY, n int, doc text) PARTITION BY RANGE (id);
			CREATE TABLE low PARTITION OF parted FOR VALUES FROM (0) TO (100); CREATE TABLE high PARTITION OF parted FOR VALUES FROM (100) TO (200);
			INSERT INTO parted SELECT i, 0, repeat('z', 700) FROM generate_series(1, 30) i;
			CREATE TABLE emptied (id int PRIMARY KEY, n int); INSERT INTO emptied SELECT i, 0 FROM generate_series(1, 10) i;
			CREATE TABLE dropped (id int PRIMARY KEY, n int); INSERT INTO dropped SELECT i, 0 FROM generate_series(1, 10) i;
			CREATE TABLE was (id int PRIMARY KEY, n int); INSERT INTO was SELECT i, 0 FROM generate_series(1, 10) i`)
		source := db.source(func(o *Options) { o.Snapshot, o.SnapshotParallel, o.snapshotChunk, o.Log = true, 2, 8192, nil })
		s := newStore(t)
		s.step(source, cut)
		whole := s.where().Position.Phase == ingest.PhaseStreaming
		db.exec(`UPDATE b SET n = 1 WHERE id % 3 = 0; DELETE FROM b WHERE id % 7 = 0; UPDATE parted SET id = id + 100, n = 1 WHERE id % 5 = 0`)
		db.exec(`TRUNCATE emptied; INSERT INTO emptied VALUES (77, 7)`)
		db.exec(`DROP TABLE dropped`)
		db.exec(`ALTER TABLE was RENAME TO renamed; UPDATE renamed SET n = 2 WHERE id = 3`)
		s.step(source, 1)
		db.exec(`UPDATE parted SET id = id - 100, n = 2 WHERE id = 105`)
		all := end(t, db, s.startConfirming(source, 0, nothing))
		checkTable(t, db, all, "b")
		checkTable(t, db, all, "emptied")
		for table, names := range map[string][]string{"parted": {"low", "high"}, "renamed": {"was", "renamed"}} {
			if diff := cmp.Diff(db.rows(table), rowsUnder(t, all, names...)); diff != "" {
				t.Errorf("cut off behind batch %d: %s (-table +events):\n%.1500s", cut, table, diff)
			}
		}
		db.dropSlot()
		if whole || t.Failed() {
			if cut < 8 {
				t.Errorf("it has %d batches only", cut)
			}
			return
		}
	}
}

// rowsUnder gives the rows that events of several tables end in, whose keys are of one.
func rowsUnder(t *testing.T, all []stored, tables ...string) map[string]int {
	t.Helper()
	byKey := map[string]string{}
	for _, e := range all {
		row := e.row(t)
		if !slices.Contains(tables, row.Table) {
			continue
		}
		if row.Before != nil {
			delete(byKey, columns(t, row.Before)["id"])
		}
		if row.After != nil {
			byKey[columns(t, row.After)["id"]] = string(row.After)
		}
	}
	rows := map[string]int{}
	for _, row := range byKey {
		rows[row]++
	}
	return rows
}
