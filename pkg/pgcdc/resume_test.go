package pgcdc

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/tributary-dev/tributary/internal/pgtest"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/ingest"
)

// nothing keeps the slot where it is, so that all can be read again.
func nothing(ingest.State) events.LSN { return 0 }

func TestRestartsAtEveryEventLoseAndRepeatNothing(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	db.exec(`CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE hidden (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY, n int);
		ALTER TABLE b REPLICA IDENTITY FULL; CREATE PUBLICATION tributary_shop FOR TABLE a, hidden, b`)
	tables := func(o *Options) { o.Tables = []string{"public.a", "public.b"} }
	source := db.source(tables)
	once := newStore(t)
	r := once.startConfirming(source, 0, nothing)
	r.streaming()
	begin := once.where()
	want := writeInterleaved(t, db)
	whole := r.events(want)

	again := newStore(t)
	again.state = begin
	for n := 1; n <= want; n++ {
		if err := again.startConfirming(source, 1, nothing).wait(); err != nil {
			t.Fatal(err)
		}
		if got := again.count(); got != n {
			t.Fatalf("%d events after %d sessions of one", got, n)
		}
	}
	if diff := cmp.Diff(whole, again.all()); diff != "" {
		t.Errorf("read in one go and with restarts (-one go +restarts):\n%s", diff)
	}
}

// writeInterleaved writes all that has a place of its own: transactions that overlap, commit out of order, roll back in
// part, end in what is not published, messages within and without. It gives the number of events.
func writeInterleaved(t *testing.T, db *database) int {
	t.Helper()
	long, err := pgx.Connect(t.Context(), db.url)
	if err != nil {
		t.Fatal(err)
	}
	defer long.Close(t.Context())
	inLong := func(sql string) {
		t.Helper()
		if _, err := long.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	inLong(`BEGIN`)
	inLong(`INSERT INTO a VALUES (1), (2)`)
	db.exec(`INSERT INTO a VALUES (10); INSERT INTO hidden VALUES (1)`)
	db.exec(`SELECT pg_logical_emit_message(false, 'note', '1')`)
	db.exec(`INSERT INTO hidden VALUES (2)`)
	inLong(`SAVEPOINT s`)
	inLong(`INSERT INTO b VALUES (1, 1)`)
	inLong(`ROLLBACK TO s`)
	inLong(`INSERT INTO b VALUES (2, 2)`)
	db.exec(`INSERT INTO b VALUES (3, 3); UPDATE b SET n = 4; SELECT pg_logical_emit_message(true, 'note', '2')`)
	inLong(`COMMIT`)
	for i := range 5 {
		db.exec(fmt.Sprintf(`SELECT pg_logical_emit_message(false, 'note', '%d')`, i))
		db.exec(fmt.Sprintf(`INSERT INTO a VALUES (%d)`, 100+i))
	}
	db.exec(`INSERT INTO a VALUES (200); SELECT pg_logical_emit_message(false, 'note', 'its commit begins where this ends')`)
	db.exec(`TRUNCATE a, hidden, b`)
	return 1 + 1 + 3 + 3 + 10 + 2 + 2
}

func TestRestartsDuringASnapshotLoseAndRepeatNothing(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	db.exec(`CREATE TABLE a (id int PRIMARY KEY, note text); CREATE TABLE "B" (x numeric(5,1), y char(3), n int, PRIMARY KEY (y, x));
		CREATE TABLE c (n int); ALTER TABLE c REPLICA IDENTITY FULL; CREATE TABLE empty (id int PRIMARY KEY);
		INSERT INTO a SELECT n, repeat('x', 50) FROM generate_series(1, 2500) n;
		INSERT INTO "B" SELECT n % 70, (n / 70)::text, n FROM generate_series(1, 2000) n;
		INSERT INTO c SELECT n FROM generate_series(1, 2200) n; DELETE FROM c WHERE n % 5 = 0`)
	rows := 2500 + 2000 + 1760
	source := db.source(withSnapshot)
	s := newStore(t)
	reading := func() bool {
		p := s.where().Position
		return p.Phase != ingest.PhaseStreaming || p.Cursor != nil
	}
	sessions := 0
	for ; reading(); sessions++ {
		s.step(source, 3)
		if sessions > 40 {
			t.Fatalf("no end after %d sessions and %d events", sessions, s.count())
		}
		if sessions == 0 {
			db.exec(`INSERT INTO a VALUES (5000, 'late')`) // is read, and streamed as well
		}
	}
	if sessions < 5 {
		t.Errorf("the snapshot was cut off %d times only", sessions)
	}
	tables := map[string]int{}
	for _, e := range s.all() {
		address, err := events.ParseAddress(e.Subject)
		if err != nil {
			t.Fatalf("%s: %v", e.Subject, err)
		}
		tables[address.Table+" "+string(address.Op)]++
	}
	if diff := cmp.Diff(map[string]int{"a snapshot": 2501, "B snapshot": 2000, "c snapshot": 1760, "a insert": 1}, tables); diff != "" {
		t.Error(diff)
	}
	if got := s.count(); got != rows+2 {
		t.Errorf("%d events", got)
	}
}

func TestASnapshotThatIsCutOffConverges(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	db.exec(`CREATE TABLE a (id int PRIMARY KEY, n int); INSERT INTO a SELECT n, 0 FROM generate_series(1, 5000) n`)
	source := db.source(withSnapshot)
	s := newStore(t)
	if err := s.startConfirming(source, 1, nothing).wait(); err != nil {
		t.Fatal(err)
	}
	read := s.count()
	if read == 0 || read >= 5000 {
		t.Fatalf("%d rows were read before the cut", read)
	}
	db.exec(`UPDATE a SET n = 1 WHERE id % 7 = 0`)
	db.exec(`DELETE FROM a WHERE id % 11 = 0`)
	db.exec(`UPDATE a SET id = id + 10000 WHERE id % 13 = 0`)
	db.exec(`INSERT INTO a VALUES (11, 2), (4950, 3), (20000, 4)`)
	r := s.startConfirming(source, 0, nothing)
	r.until("the end of the reading", func(s *store) bool { return s.where().Position.Cursor == nil })
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	rows, err := db.conn.Query(t.Context(), `SELECT id::text, row_to_json(a)::text FROM a`)
	if err != nil {
		t.Fatal(err)
	}
	var id, row string
	if _, err := pgx.ForEachRow(rows, []any{&id, &row}, func() error { want[id] = row; return nil }); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, replay(t, s.all())); diff != "" {
		t.Errorf("the events end in another table (-table +events):\n%s", diff)
	}
}

// replay gives the rows that events of one table end in, by the text of their id.
func replay(t *testing.T, all []stored) map[string]string {
	t.Helper()
	rows := map[string]string{}
	for _, e := range all {
		row := e.row(t)
		id := func(key []byte) string { return string(key[len(`{"id":`) : len(key)-1]) }
		if row.Before != nil {
			delete(rows, id(row.Before))
		}
		if row.After != nil {
			rows[id(row.Key)] = string(row.After)
		}
	}
	return rows
}

func TestATransactionIsReadAgainFromItsCommitOn(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	db.exec(`CREATE TABLE a (id int PRIMARY KEY)`)
	source := db.source()
	s := newStore(t)
	r := s.startConfirming(source, 0, nothing)
	r.streaming()
	db.exec(`INSERT INTO a VALUES (1)`)
	db.exec(`INSERT INTO a VALUES (2)`)
	got := r.events(2)
	for name, c := range map[string]struct {
		from   events.LSN
		events int
	}{
		"from its commit":               {events.LSN(got[0].At.Commit), 2},
		"from the byte behind":          {got[0].Through, 1},
		"from the next commit":          {events.LSN(got[1].At.Commit), 1},
		"from before both of them":      {s.where().Position.EndLSN, 2},
		"from the byte behind the last": {got[1].Through, 0},
	} {
		t.Run(name, func(t *testing.T) {
			again := newStore(t)
			again.state = s.where()
			again.state.Last, again.state.Through = events.Sequence{}, c.from
			r := again.startConfirming(source, 0, nothing)
			db.exec(`SELECT pg_logical_emit_message(false, 'end', '')`)
			r.until("the end", func(s *store) bool {
				all := s.all()
				return len(all) > 0 && all[len(all)-1].At.Index == 0
			})
			if err := r.stop(); err != nil {
				t.Fatal(err)
			}
			rows := 0
			for _, e := range again.all() {
				if e.At.Index > 0 {
					rows++
				}
			}
			if rows != c.events {
				t.Errorf("%d events from %s, want %d", rows, c.from, c.events)
			}
		})
	}
}

// PGBIN=fetch:17.5.0 runs it on a server that has the option.
func TestTheSlotFollowsAFailoverWhereTheServerHasTheOption(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	db.exec(`CREATE TABLE a (id int PRIMARY KEY)`)
	source := db.source()
	newStore(t).startConfirming(source, 0, nothing).streaming()
	var version int
	var failover *bool
	const question = `SELECT current_setting('server_version_num')::int, (to_jsonb(s)->>'failover')::bool FROM pg_replication_slots s WHERE slot_name = $1`
	if err := db.conn.QueryRow(t.Context(), question, source.opts.Slot).Scan(&version, &failover); err != nil {
		t.Fatal(err)
	}
	if want := version >= failoverVersion; want != (failover != nil && *failover) {
		t.Errorf("on version %d the slot's failover is %v, want %v", version, failover, want)
	}
}
