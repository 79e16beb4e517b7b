package pgcdc

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/tributary-dev/tributary/internal/pgtest"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/ingest"
)

// image is a row by its columns.
type image map[string]string

// follow gives the rows that events of a table end in, by their id, and checks on the way that no row gets older: its n
// only grows, and what was deleted does not come again.
func follow(t *testing.T, all []stored, table string) map[string]image {
	t.Helper()
	rows, newest, gone := map[string]image{}, map[string]int{}, map[string]bool{}
	for _, e := range all {
		row := e.row(t)
		if row.Table != table {
			continue
		}
		id := func(data []byte) string {
			if data == nil {
				return "" // a table without a key
			}
			return columns(t, data)["id"]
		}
		if row.Op == events.OpTruncate {
			clear(rows)
			continue
		}
		var old image
		if row.Before != nil {
			old = rows[id(row.Before)]
			delete(rows, id(row.Before))
			gone[id(row.Before)] = row.Op == events.OpDelete || row.Key != nil && id(row.Before) != id(row.Key)
		}
		if row.After == nil {
			continue
		}
		after := columns(t, row.After)
		for _, name := range row.Unchanged {
			if after[name] = rows[after["id"]][name]; old != nil { // its key changed
				after[name] = old[name]
			}
		}
		if gone[after["id"]] {
			t.Errorf("%s brings a row again that was gone: %s", e.ID, e.Data)
		}
		var n int
		if _, err := fmt.Sscan(after["n"], &n); err == nil && n < newest[after["id"]] {
			t.Errorf("%s is older than what came before it (n was %d): %.300s", e.ID, newest[after["id"]], e.Data)
		}
		newest[after["id"]] = n
		rows[after["id"]] = after
	}
	return rows
}

func columns(t *testing.T, data []byte) image {
	t.Helper()
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(data, &raw); err != nil {
		t.Fatalf("%v: %s", err, data)
	}
	row := image{}
	for name, value := range raw {
		row[name] = string(value)
	}
	return row
}

// table gives the rows of a table as follow does.
func (d *database) table(name string) map[string]image {
	d.t.Helper()
	rows, err := d.conn.Query(d.t.Context(), `SELECT row_to_json(x)::text FROM `+name+` x`)
	if err != nil {
		d.t.Fatal(err)
	}
	all := map[string]image{}
	var row string
	if _, err := pgx.ForEachRow(rows, []any{&row}, func() error {
		c := columns(d.t.(*testing.T), []byte(row))
		all[c["id"]] = c
		return nil
	}); err != nil {
		d.t.Fatal(err)
	}
	return all
}

func checkTable(t *testing.T, db *database, all []stored, name string) {
	t.Helper()
	if diff := cmp.Diff(db.table(name), follow(t, all, name)); diff != "" {
		t.Errorf("the events of %s end in another table (-table +events):\n%.3000s", name, diff)
	}
}

// readThrough tells whether an event of the table last came, and nothing is left to be read.
func readThrough(t *testing.T) func(*store) bool {
	return func(s *store) bool {
		all := s.all()
		if len(all) == 0 || s.where().Position.Cursor != nil {
			return false
		}
		for i := len(all) - 1; i >= 0; i-- {
			if address, err := events.ParseAddress(all[i].Subject); err == nil && address.Table == "last" {
				return true
			}
		}
		return false
	}
}

// end writes to the table last, waits until all is read, and gives it.
func end(t *testing.T, db *database, r *session) []stored {
	t.Helper()
	db.exec(`INSERT INTO last VALUES (1)`)
	r.until("the end of reading", readThrough(t))
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	return r.store.all()
}

const lastTable = `CREATE TABLE last (id int PRIMARY KEY); `

// writer changes rows of a table at random, n times; what it inserts it alone changes.
func writer(t *testing.T, url, table string, seed uint64, n int) {
	ctx := context.WithoutCancel(t.Context())
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close(ctx)
	random := rand.New(rand.NewPCG(seed, 1))
	next := int(seed) * 1_000_000
	for i := range n {
		next++
		row := int(seed)*1_000_000 + random.IntN(i+1) + 1
		old := random.IntN(3000) + 1
		statements := []string{
			fmt.Sprintf(`INSERT INTO %s VALUES (%d, 0, (SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 100)))`, table, next),
			fmt.Sprintf(`UPDATE %s SET n = n + 1 WHERE id = %d`, table, row),
			fmt.Sprintf(`UPDATE %s SET n = n + 1 WHERE id %% 3 = %d AND id BETWEEN %d AND %d`, table, seed%3, old, old+20),
			fmt.Sprintf(`BEGIN; UPDATE %[1]s SET n = n + 1 WHERE id = %[2]d; SAVEPOINT s; DELETE FROM %[1]s WHERE id = %[2]d; ROLLBACK TO s; COMMIT`, table, row),
			fmt.Sprintf(`DELETE FROM %s WHERE id = %d AND id %% 7 = 0`, table, row),
			fmt.Sprintf(`UPDATE %s SET id = -id WHERE id = %d AND id %% 11 = 0`, table, row),
			fmt.Sprintf(`UPDATE %s SET id = -id WHERE id = %d AND id %% 3 = %d`, table, old, seed%3), // which leaves doc out
		}
		if _, err := conn.Exec(ctx, statements[[]int{0, 0, 1, 2, 3, 4, 5, 6, 6}[random.IntN(9)]]); err != nil {
			t.Error(err)
			return
		}
	}
}

const newTable = `CREATE TABLE b (id int PRIMARY KEY, n int, doc text); ALTER TABLE b ALTER doc SET STORAGE EXTERNAL;
	INSERT INTO b SELECT i, 0, repeat(md5(i::text), 100) FROM generate_series(1, 3000) i`

func TestRowsOfANewTableAreReadAmongItsChanges(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	db.exec(lastTable)
	s := newStore(t)
	r := s.start(db.source(withSnapshot), 0)
	r.streaming()
	db.exec(newTable)
	var writers sync.WaitGroup
	defer writers.Wait()
	for seed := range uint64(3) {
		writers.Go(func() { writer(t, db.url, "b", seed+1, 1000) })
	}
	r.until("a row", func(s *store) bool { return s.count() > 0 })
	writers.Wait()
	checkTable(t, db, end(t, db, r), "b")
}

// step runs source until n batches are stored and one more is lost, or none comes any more, since all is read.
func (s *store) step(source ingest.Source, n int) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	feed := ingest.NewFeed(1 << 20)
	done := make(chan error, 1)
	go func() {
		done <- source.Run(ctx, s.where(), feed)
		cancel() // where it was refused nothing more comes
	}()
	for stored := 0; stored <= n; {
		batches, err := feed.Take(ctx)
		if err != nil {
			s.t.Error(err)
			break
		}
		for _, b := range batches {
			if stored++; stored <= n {
				s.take(b, 1<<60)
				feed.Stored(b)
			}
		}
		if s.where().Position.Cursor == nil && s.count() > 0 {
			break
		}
	}
	cancel()
	<-done
}

func TestRestartsAtEveryStepOfANewTableLoseAndRepeatNothing(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	db.exec(lastTable)
	source := db.source(withSnapshot, func(o *Options) { o.Log = nil })
	s := newStore(t)
	r := s.startConfirming(source, 0, nothing)
	r.streaming()
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	db.exec(newTable)
	sessions := 0
	for ; s.count() == 0 || s.where().Position.Cursor != nil; sessions++ {
		s.step(source, sessions%4)
		if sessions%4 > 0 {
			continue
		}
		db.exec(fmt.Sprintf(`UPDATE b SET n = n + 1 WHERE id %% 100 = %d`, sessions))
		db.exec(fmt.Sprintf(`DELETE FROM b WHERE id = %d; INSERT INTO b VALUES (%d, 0, 'new')`, 50*sessions, 10000+sessions))
		if sessions > 60 {
			t.Fatalf("no end after %d sessions and %d events", sessions, s.count())
		}
	}
	if sessions < 5 {
		t.Errorf("the reading was cut off %d times only", sessions)
	}
	checkTable(t, db, end(t, db, s.startConfirming(source, 0, nothing)), "b")
}

// A commit is in the log, and in the stream, before queries see it: with synchronous replication until a standby answers.
func TestACommitThatQueriesDoNotSeeYetIsNotOvertaken(t *testing.T) {
	for name, c := range map[string]struct {
		change string
		waits  bool // the reading, for what it is to see
	}{
		"an update":                         {`UPDATE b SET n = 7 WHERE id = 11`, false},
		"a key that moves out of the chunk": {`UPDATE b SET n = 7 WHERE id = 11; UPDATE b SET id = -21 WHERE id = 21`, true},
	} {
		t.Run(name, func(t *testing.T) { hangCommit(t, c.change, c.waits) })
	}
}

func hangCommit(t *testing.T, change string, waits bool) {
	db := newDatabase(t, pgtest.Database(t))
	db.exec(lastTable)
	db.exec(`DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET synchronous_commit = local', current_database()); END $$`)
	db.exec(`SET synchronous_commit = local`)
	s := newStore(t)
	source := db.source(withSnapshot)
	r := s.start(source, 0)
	r.streaming()
	ctx := context.WithoutCancel(t.Context())
	open := func() *pgx.Conn {
		conn, err := pgx.Connect(ctx, db.url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close(ctx) })
		return conn
	}
	run := func(conn *pgx.Conn, sql string) {
		t.Helper()
		if _, err := conn.Exec(ctx, sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	early, hung := open(), open()
	db.exec(`CREATE TABLE b (id int PRIMARY KEY, n int, doc text); ALTER TABLE b ALTER doc SET STORAGE EXTERNAL; INSERT INTO b VALUES (21, 0, repeat('x', 3000))`)
	run(early, `BEGIN; INSERT INTO b VALUES (1, 0), (2, 0), (3, 0)`) // before the addition, and committed after it
	waitFor(t, "the addition", func() bool { return s.where().Position.Cursor != nil })
	waitFor(t, "the reader to wait for the writer of before, and for no other", func() bool {
		return db.value(`SELECT count(*)::text FROM pg_stat_activity WHERE application_name = 'tributary/shop' AND datname = current_database()
			AND state = 'idle' AND (query LIKE '%pg_locks%' OR query LIKE '%pg_current_snapshot%')`) == "1"
	})
	db.exec(`INSERT INTO b VALUES (11, 0), (12, 0)`)
	db.exec(`ALTER SYSTEM SET synchronous_standby_names = 'nobody'`)
	db.exec(`SELECT pg_reload_conf()`)
	t.Cleanup(func() {
		db.exec(`ALTER SYSTEM RESET synchronous_standby_names`)
		db.exec(`SELECT pg_reload_conf()`)
	})
	run(hung, `SET synchronous_commit = on`)
	waitFor(t, "the standby to be asked for", func() bool {
		var names string
		return hung.QueryRow(ctx, `SHOW synchronous_standby_names`).Scan(&names) == nil && names == "nobody"
	})
	db.exec(`CHECKPOINT`) // by the process that tells all others that there is a standby to wait for
	before := s.count()
	released := make(chan struct{})
	go func() {
		defer close(released)
		_, _ = hung.Exec(ctx, change)
	}()
	r.until("the hung commit", func(s *store) bool { return s.count() > before })
	if got := db.value(`SELECT n::text FROM b WHERE id = 11`); got != "0" {
		t.Fatalf("queries see the commit already: n is %s", got)
	}
	run(early, `COMMIT`) // whose own wait is local
	r.until("the rows", func(s *store) bool {
		cursor := string(s.where().Position.Cursor)
		return cursor == "" || waits && strings.Contains(cursor, `"drain":true`)
	})
	if got := follow(t, s.all(), "b")["11"]["n"]; got != "7" {
		t.Errorf("n of the row ends as %s", got)
	}
	db.exec(`ALTER SYSTEM RESET synchronous_standby_names`)
	db.exec(`SELECT pg_reload_conf()`)
	<-released
	checkTable(t, db, end(t, db, r), "b")
}

func TestNewTablesThatChangeAreReadAsTheyAre(t *testing.T) {
	for name, c := range map[string]struct{ table, before, after string }{
		"a key changes its columns": {`b`, `CREATE TABLE b (id int PRIMARY KEY, n int); INSERT INTO b SELECT i, i FROM generate_series(1, 2000) i`,
			`ALTER TABLE b DROP CONSTRAINT b_pkey; ALTER TABLE b ADD PRIMARY KEY (n, id); UPDATE b SET n = n + 1`},
		"it is renamed": {`c`, `CREATE TABLE b (id int PRIMARY KEY, n int); INSERT INTO b SELECT i, i FROM generate_series(1, 2000) i`,
			`ALTER TABLE b RENAME TO c`},
		"it is rewritten": {`b`, `CREATE TABLE b (id int PRIMARY KEY, n int); INSERT INTO b SELECT i, i FROM generate_series(1, 2000) i`,
			`ALTER TABLE b ALTER n TYPE bigint, ADD note text DEFAULT random()::text`},
		"it is truncated": {`b`, `CREATE TABLE b (id int PRIMARY KEY, n int); INSERT INTO b SELECT i, i FROM generate_series(1, 2000) i`,
			`TRUNCATE b; INSERT INTO b VALUES (5000, 1)`},
		"it is partitioned": {`b`, `CREATE TABLE b (id int PRIMARY KEY, n int) PARTITION BY HASH (id);
			CREATE TABLE b0 PARTITION OF b FOR VALUES WITH (MODULUS 2, REMAINDER 0); CREATE TABLE b1 PARTITION OF b FOR VALUES WITH (MODULUS 2, REMAINDER 1);
			INSERT INTO b SELECT i, i FROM generate_series(1, 2500) i`, `UPDATE b SET n = n + 1`},
		"it has no key": {`b`, `CREATE TABLE b (id int, n int); ALTER TABLE b REPLICA IDENTITY FULL; INSERT INTO b SELECT i, i FROM generate_series(1, 500) i`,
			`UPDATE b SET n = n + 1 WHERE id % 2 = 0; DELETE FROM b WHERE id = 3`},
		"it is dropped": {``, `CREATE TABLE b (id int PRIMARY KEY, n int); INSERT INTO b SELECT i, i FROM generate_series(1, 2000) i`, `DROP TABLE b`},
	} {
		t.Run(name, func(t *testing.T) {
			db := newDatabase(t, pgtest.Database(t))
			db.exec(lastTable)
			source := db.source(withSnapshot)
			s := newStore(t)
			r := s.startConfirming(source, 0, nothing)
			r.streaming()
			if err := r.stop(); err != nil {
				t.Fatal(err)
			}
			db.exec(c.before)
			for s.where().Position.Cursor == nil { // the addition, and the first rows where there are more
				s.step(source, 1)
			}
			s.step(source, 1)
			db.exec(c.after)
			all := end(t, db, s.startConfirming(source, 0, nothing))
			if c.table == "" {
				return
			}
			tables := []string{c.table}
			if name == "it is partitioned" {
				tables = []string{"b0", "b1"}
			}
			rows := map[string]image{}
			for _, table := range append(tables, "b") {
				for id, row := range follow(t, all, table) {
					rows[id] = row
				}
			}
			want := db.table(c.table)
			if name == "it is renamed" || name == "it is rewritten" { // rows read before have the shape of before
				if len(rows) != len(want) {
					t.Errorf("%d rows of %d", len(rows), len(want))
				}
				return
			}
			if diff := cmp.Diff(want, rows); diff != "" {
				t.Errorf("the events end in another table (-table +events):\n%.2000s", diff)
			}
		})
	}
}
