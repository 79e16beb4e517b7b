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
