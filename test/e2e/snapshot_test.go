package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/test/harness"
)

// lastStates gives the rows that the events of shop end in, by their key, and checks that no event came twice and that no
// row got older on the way.
func lastStates(t *testing.T, s *harness.System) map[string]string {
	t.Helper()
	states, ids, newest := map[string]string{}, map[string]bool{}, map[string]int{}
	for _, e := range s.Events("shop") {
		if ids[e.Event.ID] {
			t.Errorf("%s came twice", e.Event.ID)
		}
		ids[e.Event.ID] = true
		key := string(e.Row.Key)
		if e.Row.After == nil {
			delete(states, key)
			continue
		}
		states[key] = string(e.Row.After)
		var row struct{ N int }
		if err := json.Unmarshal(e.Row.After, &row); err != nil {
			t.Fatal(err)
		}
		if row.N < newest[key] {
			t.Errorf("%s is older than what came before it: %s", e.Event.ID, e.Row.After)
		}
		newest[key] = row.N
	}
	return states
}

func tableStates(t *testing.T, s *harness.System) map[string]string {
	t.Helper()
	rows, err := s.DB.Query(t.Context(), `SELECT id, row_to_json(o)::text FROM orders o`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	states := map[string]string{}
	for rows.Next() {
		var id int
		var row string
		if err := rows.Scan(&id, &row); err != nil {
			t.Fatal(err)
		}
		states[fmt.Sprintf(`{"id":%d}`, id)] = row
	}
	return states
}

func TestASnapshotSurvivesItsLeaderAndRowsCanBeAskedFor(t *testing.T) {
	const rows = 6000
	s := harness.New(t, harness.Options{
		Schema: harness.OrdersTable + `; INSERT INTO orders (id, status, note) SELECT i, 'old', repeat('x', 200) FROM generate_series(1, 6000) i; ANALYZE orders`,
		Source: "snapshot_rate: 300KiB",
	})
	harness.Binary(t, "tributary") // before the time counts
	s.Start("ingest-1")
	harness.Eventually(t, time.Minute, "some rows are stored", func() bool { return s.CountEvents("shop") > 1000 })
	if r, _ := readings(t, s); len(r) != 1 || r[0].Kind != "snapshot" || r[0].Rows == 0 || r[0].Done <= 0 || r[0].Done >= 1 {
		t.Errorf("status shows %+v", r)
	}
	if r := tributary(t, s, "status"); !strings.Contains(r.stdout, "shop: reading snapshot: ") {
		t.Errorf("status shows no progress:\n%s", r.stdout)
	}
	s.Kill("ingest-1")
	s.Exec(`UPDATE orders SET n = n + 1 WHERE id % 10 = 0`)
	s.Exec(`DELETE FROM orders WHERE id % 10 = 1`)
	s.Start("ingest-2")
	s.Exec(`UPDATE orders SET n = n + 1 WHERE id % 10 IN (0, 2)`)
	settled(t, s, time.Minute, "the snapshot and what changed meanwhile are stored")

	for what, c := range map[string]struct {
		args   []string
		status int
		says   string
	}{
		"a dry run":          {[]string{"public.orders", "--where", "id <= 100", "--dry-run"}, 0, "rows of public.orders would be read"},
		"no such table":      {[]string{"public.nothing"}, 2, "not published"},
		"a second statement": {[]string{"orders", "--where", "true; DROP TABLE orders"}, 2, "syntax error"},
		"nothing":            {nil, 2, "--reset"},
		"an unknown reading": {[]string{"--cancel", "none"}, 2, "nothing is known"},
		"the list":           {[]string{"--list"}, 0, "No rows are being read"},
		"a list of a table":  {[]string{"orders", "--list"}, 2, "--source alone"},
		"both":               {[]string{"orders", "--reset", "shop"}, 2, "--reset"},
	} {
		r := tributary(t, s, append([]string{"snapshot"}, c.args...)...)
		if r.status != c.status || !strings.Contains(r.stdout+r.stderr, c.says) {
			t.Errorf("%s: status %d, %s%s", what, r.status, r.stdout, r.stderr)
		}
	}
	before := s.CountEvents("shop")
	if r := tributary(t, s, "snapshot", "public.orders", "--no-wait"); r.status != 0 {
		t.Fatalf("snapshot --no-wait: %s", r.stderr)
	}
	s.Kill("ingest-2") // the reading is in the position
	s.Start("ingest-3")
	var asked struct {
		Rows int
		Done bool
		LSN  string
	}
	read(t, s, &asked, "snapshot", "orders", "--where", "id % 100 = 2")
	if asked.Rows != rows/100 || !asked.Done {
		t.Errorf("what was asked for ends as %+v", asked)
	}
	settled(t, s, time.Minute, "what was asked for is stored")
	lock, err := s.DB.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Release()
	if _, err := lock.Exec(t.Context(), `SELECT pg_advisory_lock(7)`); err != nil { // holds the next reading's query
		t.Fatal(err)
	}
	var waiting struct{ ID string }
	read(t, s, &waiting, "snapshot", "orders", "--where", "CASE WHEN id = 2 THEN pg_advisory_lock_shared(7) IS NULL ELSE false END", "--no-wait")
	var second struct{ ID string }
	read(t, s, &second, "snapshot", "orders", "--where", "id = 3", "--no-wait")
	if r := tributary(t, s, "snapshot", "--cancel", second.ID); r.status != 0 || !strings.Contains(r.stdout, "is cancelled") {
		t.Errorf("snapshot --cancel: status %d, %s%s", r.status, r.stdout, r.stderr)
	}
	if r := tributary(t, s, "snapshot", "--list"); !strings.Contains(r.stdout, waiting.ID) || !strings.Contains(r.stdout, second.ID) || !strings.Contains(r.stdout, "cancelled by") {
		t.Errorf("snapshot --list shows\n%s", r.stdout)
	}
	if _, err := lock.Exec(t.Context(), `SELECT pg_advisory_unlock(7)`); err != nil {
		t.Fatal(err)
	}
	settled(t, s, time.Minute, "no reading is left")
	if got := s.CountEvents("shop") - before; got != rows*9/10+rows/100 {
		t.Errorf("%d rows were read again", got)
	}
}

// reading is one of rows, as the status shows it.
type reading struct {
	Kind string
	Rows int
	Done float64
}

// readings gives those that are under way, and false where the status can't be had, as while NATS is away.
func readings(t *testing.T, s *harness.System) (list []reading, known bool) {
	t.Helper()
	var status struct{ Sources []struct{ Reading []reading } }
	r := tributary(t, s, "status", "-o", "json")
	if r.status != 0 || json.Unmarshal([]byte(r.stdout), &status) != nil {
		return nil, false
	}
	for _, source := range status.Sources {
		list = append(list, source.Reading...)
	}
	return list, true
}

// settled waits until no reading is under way, and the events of shop end in what its table holds.
func settled(t *testing.T, s *harness.System, within time.Duration, what string) {
	t.Helper()
	harness.Eventually(t, within, what, func() bool {
		list, known := readings(t, s)
		return known && len(list) == 0 && sameStates(tableStates(t, s), lastStates(t, s))
	})
}

func sameStates(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for key, state := range a {
		if b[key] != state {
			return false
		}
	}
	return true
}
