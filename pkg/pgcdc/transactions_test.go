package pgcdc

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tributary-dev/tributary/internal/pgtest"
	"github.com/tributary-dev/tributary/pkg/events"
)

func TestPreparedTransactionsComeWithTheirCommit(t *testing.T) {
	server := pgtest.Server(t, map[string]string{"max_prepared_transactions": "10"})
	url := pgtest.DatabaseOn(t, server.URL("postgres"))
	db := newDatabase(t, url)
	db.exec(`CREATE TABLE a (id int PRIMARY KEY)`)
	source := db.source()
	s := newStore(t)
	r := s.start(source, 0)
	r.streaming()
	prepare := func(name string, ids ...int) {
		t.Helper()
		db.exec(`BEGIN`)
		for _, id := range ids {
			db.exec(fmt.Sprintf(`INSERT INTO a VALUES (%d)`, id))
		}
		db.exec(`PREPARE TRANSACTION '` + name + `'`)
	}
	prepare("one", 1, 2)
	prepare("two", 3)
	prepare("three", 4, 5)
	db.exec(`INSERT INTO a VALUES (6)`)
	db.exec(`ROLLBACK PREPARED 'two'`)
	r.until("what is committed", func(s *store) bool { return s.count() == 1 })
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	db.exec(`COMMIT PREPARED 'one'`) // while nobody reads
	r = s.start(source, 0)
	r.until("what was committed meanwhile", func(s *store) bool { return s.count() == 3 })
	confirmed := db.lsn(`SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = 'tributary_shop'`)
	if err := server.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.wait(); err == nil {
		t.Error("the server's end was not seen")
	}
	if err := server.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	r = s.start(source, 0)
	db = newDatabase(t, url)
	db.exec(`INSERT INTO a VALUES (7)`)
	r.until("what was committed after the restart", func(s *store) bool { return s.count() == 4 })
	db.exec(`COMMIT PREPARED 'three'`)
	db.exec(`INSERT INTO a VALUES (8)`)
	checkData(t, r.events(7),
		`op "insert" schema "public" table "a" key {"id":6} after {"id":6} index 1 last`,
		`op "insert" schema "public" table "a" key {"id":1} after {"id":1} index 1`,
		`op "insert" schema "public" table "a" key {"id":2} after {"id":2} index 2 last`,
		`op "insert" schema "public" table "a" key {"id":7} after {"id":7} index 1 last`,
		`op "insert" schema "public" table "a" key {"id":4} after {"id":4} index 1`,
		`op "insert" schema "public" table "a" key {"id":5} after {"id":5} index 2 last`,
		`op "insert" schema "public" table "a" key {"id":8} after {"id":8} index 1 last`,
	)
	if confirmed == 0 {
		t.Error("nothing was confirmed before the restart")
	}
	db.conn.Close(context.WithoutCancel(t.Context()))
}

// The rows are large enough for the server to spill its memory, in which it keeps subtransactions apart.
func TestSavepointsKeepWhatIsReleased(t *testing.T) {
	server := pgtest.Server(t, map[string]string{"logical_decoding_work_mem": "64kB"})
	db := newDatabase(t, pgtest.DatabaseOn(t, server.URL("postgres")))
	defer db.conn.Close(context.WithoutCancel(t.Context()))
	db.exec(`CREATE TABLE a (id int PRIMARY KEY, note text)`)
	s := newStore(t)
	r := s.start(db.source(), 0)
	r.streaming()
	insert := func(from, to int) {
		db.exec(fmt.Sprintf(`INSERT INTO a SELECT i, repeat('x', 500) FROM generate_series(%d, %d) i`, from, to))
	}
	db.exec(`BEGIN`)
	insert(1, 200)
	db.exec(`SAVEPOINT a`)
	insert(201, 400)
	db.exec(`SAVEPOINT b`)
	insert(401, 600)
	db.exec(`SELECT pg_logical_emit_message(true, 'x', 'rolled back')`)
	db.exec(`SELECT pg_logical_emit_message(false, 'x', 'of no transaction')`)
	db.exec(`SAVEPOINT c`)
	insert(601, 800)
	db.exec(`RELEASE c`)
	db.exec(`ROLLBACK TO b`)
	insert(401, 405)
	db.exec(`RELEASE b`)
	db.exec(`SELECT pg_logical_emit_message(true, 'x', 'kept')`)
	db.exec(`RELEASE a`)
	db.exec(`SAVEPOINT d`)
	insert(900, 1000)
	db.exec(`ROLLBACK TO d`)
	xid := db.value(`SELECT pg_current_xact_id()::text`)
	db.exec(`COMMIT`)
	got := r.events(1 + 405 + 1)
	if first := data(t, got[0]); first != `op "message" prefix "x" content "of no transaction"` {
		t.Errorf("the first event is %s: a message of no transaction waits for none", first)
	}
	for i, e := range got[1:] {
		want := fmt.Sprintf(`"id":%d}`, i+1)
		if i == 405 {
			want = `"content":"kept"`
		}
		if !strings.Contains(e.Data, want) || e.At.Index != uint32(i+1) || !strings.Contains(e.Data, `"tx":{"id":`+xid+`,`) {
			t.Fatalf("event %d is %s %s, want %s of transaction %s", i+1, e.ID, e.Data, want, xid)
		}
	}
	if last := got[len(got)-1]; last.Through != events.LSN(last.At.Commit)+1 {
		t.Errorf("the transaction does not end: %+v", last)
	}
}

func TestOverlappingTransactionsComeInTheOrderOfTheirCommits(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	db.exec(`CREATE TABLE a (id int PRIMARY KEY, n int)`)
	s := newStore(t)
	source := db.source()
	r := s.start(source, 0)
	r.streaming()
	var open []*pgx.Conn
	for i := range 5 {
		conn, err := pgx.Connect(t.Context(), db.url)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.WithoutCancel(t.Context()))
		open = append(open, conn)
		begin(t, conn, i)
	}
	for n := range 20 {
		for i, conn := range open {
			if _, err := conn.Exec(t.Context(), `INSERT INTO a VALUES ($1, $2)`, 100*(i+1)+n, n); err != nil {
				t.Fatal(err)
			}
		}
		db.exec(`INSERT INTO a VALUES ($1, 0)`, n) // short ones commit meanwhile
		if n == 10 {
			// A restart while all are open: their changes lie before the position, their commits behind.
			r.until("the short ones", func(s *store) bool { return s.count() == 11 })
			if err := r.stop(); err != nil {
				t.Fatal(err)
			}
			r = s.start(source, 0)
		}
	}
	order := []int{3, 0, 4, 1, 2}
	for _, i := range order {
		if _, err := open[i].Exec(t.Context(), `COMMIT`); err != nil {
			t.Fatal(err)
		}
	}
	got := r.events(20 + 5*20)
	for n, i := range order {
		for k := range 20 {
			e := got[20+20*n+k]
			if want := fmt.Sprintf(`"after":{"id":%d,"n":%d}`, 100*(i+1)+k, k); !strings.Contains(e.Data, want) || e.At.Index != uint32(k+1) {
				t.Fatalf("event %d is %s, want %s", 20+20*n+k, e.Data, want)
			}
		}
	}
}

func begin(t *testing.T, conn *pgx.Conn, n int) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), `BEGIN`); err != nil {
		t.Fatalf("begin %d: %v", n, err)
	}
}
