package pgcdc

import (
	"errors"
	"strings"
	"testing"

	"github.com/tributary-dev/tributary/internal/pgtest"
)

func TestWhatWasAskedForCanBeCancelled(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	db.exec(lastTable + toKill)
	var ask func(Ask) (Answer, error)
	asking := make(chan struct{}, 1)
	source := func(rate int64) *Source {
		return db.source(inChunks, func(o *Options) {
			o.Log, o.SnapshotRate, o.Serve = nil, rate, serveTo(&ask, asking)
		})
	}
	s := newStore(t)
	r := s.startConfirming(source(0), 0, nothing)
	r.streaming()
	<-asking
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	const never = 1 << 10 // no chunk of the first comes to its end
	r = s.startConfirming(source(never), 0, nothing)
	<-asking
	must := func(a Ask) Answer {
		t.Helper()
		answer, err := ask(a)
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	must(Ask{ID: "one", Table: "b"})
	must(Ask{ID: "two", Table: "b", Where: "id < 3"})
	must(Ask{ID: "three", Table: "b", Where: "id = 7"})
	must(Ask{ID: "two", Cancel: true, Who: "me"})
	if err := r.stop(); err != nil { // what waits, and what was cancelled, are known to whoever leads next
		t.Fatal(err)
	}
	r = s.startConfirming(source(never), 0, nothing)
	<-asking
	must(Ask{ID: "one", Cancel: true, Who: "me"})
	must(Ask{ID: "one", Cancel: true, Who: "me"})
	if _, err := ask(Ask{ID: "none", Cancel: true}); !errors.Is(err, ErrUnfit) {
		t.Errorf("what nobody knows: %v", err)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	r = s.startConfirming(source(0), 0, nothing)
	<-asking
	r.until("the end of the third", func(s *store) bool {
		_, ended, err := ReadProgress(s.where().Position)
		return err == nil && len(ended) == 3
	})
	if _, err := ask(Ask{ID: "three", Cancel: true}); !errors.Is(err, ErrUnfit) {
		t.Errorf("what has ended: %v", err)
	}
	reading, ended, err := ReadProgress(s.where().Position)
	if err != nil || len(reading) != 0 || !ended[0].Cancelled || ended[0].ID != "two" || !strings.Contains(ended[1].Error, "cancelled by me") || ended[2].Rows != 1 {
		t.Errorf("they ended as %+v, %v", ended, err)
	}
	checkTable(t, db, finish(t, db, r), "b")
}

func TestTheQueryOfAReadingEndsWithIt(t *testing.T) {
	const query = `SELECT max(pid)::text FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()`
	db := newDatabase(t, pgtest.Database(t))
	db.exec(lastTable + toKill)
	var ask func(Ask) (Answer, error)
	asking := make(chan struct{}, 1)
	source := db.source(inChunks, func(o *Options) { o.Log, o.Serve = nil, serveTo(&ask, asking) })
	r := newStore(t).startConfirming(source, 0, nothing)
	<-asking
	for _, a := range []Ask{
		{ID: "long", Table: "b", Where: "(SELECT pg_sleep(600)) IS NULL"},
		{ID: "next", Table: "b", Where: "id = 7"},
	} {
		if _, err := ask(a); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, "the query", func() bool { return db.value(query) != "" })
	if _, err := ask(Ask{ID: "long", Cancel: true, Who: "me"}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the query to end", func() bool { return db.value(query) == "" })
	r.until("the reading behind it", func(s *store) bool {
		_, ended, err := ReadProgress(s.where().Position)
		return err == nil && len(ended) == 2 && ended[0].Cancelled && ended[1].Error == ""
	})
	finish(t, db, r)
}
