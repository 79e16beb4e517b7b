package pgcdc

import (
	"fmt"
	"testing"

	"github.com/tributary-dev/tributary/internal/pgtest"
)

// addTable adds a table of five batches, whose reading is stored and not begun.
func addTable(t *testing.T, db *database, s *store, source *Source) {
	t.Helper()
	r := s.startConfirming(source, 0, nothing)
	r.streaming()
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	db.exec(`CREATE TABLE b (id int PRIMARY KEY, n int, doc text); ALTER TABLE b ALTER doc SET STORAGE EXTERNAL;
		INSERT INTO b SELECT i, 0, repeat(md5(i::text), 100) FROM generate_series(1, 1200) i`)
	for s.where().Position.Cursor == nil {
		s.step(source, 1)
	}
}

// Rows that get keys behind which the reading is already, by changes that leave a large value out.
func TestRowsThatMoveBehindTheReadingKeepTheirLargeValues(t *testing.T) {
	for name, c := range map[string]struct {
		steps int
		moves []string
	}{
		"a few":                  {2, []string{`UPDATE b SET id = -id WHERE id > 1190`}},
		"before the first chunk": {0, []string{`UPDATE b SET id = -id WHERE id > 1190`}},
		"more than are listed":   {2, []string{`UPDATE b SET id = -id WHERE id > 800`}},
		"one by one, and away again": {2, []string{
			`UPDATE b SET id = -id WHERE id = 1199`, `UPDATE b SET id = id - 1 WHERE id = -1199`, `UPDATE b SET n = 3 WHERE id = -1200`,
			`UPDATE b SET id = -id WHERE id = 1198`, `DELETE FROM b WHERE id = -1198`, `UPDATE b SET id = 0 WHERE id = 1197`,
			`UPDATE b SET id = -1, n = n + 1 WHERE id = 0`,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			db := newDatabase(t, pgtest.Database(t))
			db.exec(lastTable)
			source := db.source(withSnapshot, func(o *Options) { o.Log = nil })
			s := newStore(t)
			addTable(t, db, s, source)
			for range c.steps {
				s.step(source, 1)
			}
			for _, statement := range c.moves {
				db.exec(statement)
			}
			for range 4 { // cut off between the move and the row, and behind it
				s.step(source, 1)
			}
			checkTable(t, db, end(t, db, s.startConfirming(source, 0, nothing)), "b")
		})
	}
}

// Whoever moves rows all the time does not keep a reading from its end.
func TestAReadingEndsWhileRowsMove(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	db.exec(lastTable)
	source := db.source(withSnapshot, func(o *Options) { o.Log = nil })
	s := newStore(t)
	addTable(t, db, s, source)
	s.step(source, 1)
	r := s.startConfirming(source, 0, nothing)
	for i := 0; s.where().Position.Cursor != nil; i++ {
		before := s.count()
		db.exec(fmt.Sprintf(`UPDATE b SET id = id - 10000 WHERE abs(id) %% 400 = %d`, i%400))
		r.until("the moves", func(s *store) bool { return s.count() >= before+3 })
	}
	checkTable(t, db, end(t, db, r), "b")
}
