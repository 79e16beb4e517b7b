package pgcdc

import (
	"testing"
	"time"

	"github.com/tributary-dev/tributary/internal/pgtest"
	"github.com/tributary-dev/tributary/pkg/ingest"
)

// TestTheMirrorSaysWhatEventsLost takes from EVENTS what the mirror still has.
func TestTheMirrorSaysWhatEventsLost(t *testing.T) {
	for name, c := range map[string]struct {
		sql    string
		change func(*ingest.State)
		want   string
	}{
		"its position": {change: func(s *ingest.State) { *s = ingest.State{Mirrored: s.Mirrored} },
			want: `EVENTS has no position of source shop, although the mirror says that incarnation 1 of shop \(streaming\) was stored up to .*, index 1, by ann at 2026-.*checkpoint set shop --from-mirror.*snapshot --reset shop`},
		"a reset": {change: func(s *ingest.State) { s.Mirrored.Incarnation = 4 },
			want: `EVENTS ends in incarnation 1 of source shop, although the mirror says that incarnation 4 .*snapshot --reset shop`},
		"its end, which the slot does not have either": {sql: `SELECT pg_replication_slot_advance('tributary_shop', pg_current_wal_flush_lsn())`,
			change: func(s *ingest.State) { s.Through, s.Last.Commit = 1, 1 },
			want:   `the changes between .* and .* are gone: .*, although the mirror says that .* was stored up to .*snapshot --reset shop`},
	} {
		t.Run(name, func(t *testing.T) {
			db, s := streamed(t)
			if c.sql != "" {
				db.exec(c.sql)
			}
			c.change(&s.state)
			checkRefused(t, s.start(db.source(), 0).wait(), c.want)
		})
	}
}

// TestAMirrorOfAnotherDatabaseIsNoObstacle begins in a copy: its mirror speaks of the original.
func TestAMirrorOfAnotherDatabaseIsNoObstacle(t *testing.T) {
	db, s := streamed(t)
	db.dropSlot()
	known := s.state.Mirrored
	known.SystemID, known.Incarnation = "1", 6
	fresh := newStore(t)
	fresh.state.Mirrored = known
	fresh.start(db.source(), 0).streaming()
	if p := fresh.where().Position; p.Incarnation != 7 {
		t.Errorf("it begins incarnation %d, and the mirror knows 6", p.Incarnation)
	}
}

// streamed reads one change, and has a mirror that knows of it.
func streamed(t *testing.T) (*database, *store) {
	t.Helper()
	db := newDatabase(t, pgtest.Database(t))
	db.exec(`CREATE TABLE a (id int PRIMARY KEY)`)
	s := newStore(t)
	r := s.start(db.source(), 0)
	r.streaming()
	db.exec(`INSERT INTO a VALUES (1)`)
	r.events(1)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the slot to be free", func() bool {
		return db.value(`SELECT active::text FROM pg_replication_slots WHERE slot_name = 'tributary_shop'`) == "false"
	})
	s.state.Mirrored = s.state.Position
	s.state.Mirrored.Leader, s.state.Mirrored.Time = "ann", time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	return db, s
}
