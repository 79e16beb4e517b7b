package checkpoint_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/internal/pgtest"
	"github.com/tributary-dev/tributary/pkg/checkpoint"
	"github.com/tributary-dev/tributary/pkg/events"
)

const patience = time.Minute

func eventually(t *testing.T, what string, fact func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !fact() {
		select {
		case <-deadline:
			t.Fatalf("not within %v: %s", patience, what)
		case <-tick.C:
		}
	}
}

// TestConcurrentSavesShareOneTransaction holds up the first of many, and sees the rest come in the next transaction.
func TestConcurrentSavesShareOneTransaction(t *testing.T) {
	const sources, saves = 20, 30
	s, url := migrated(t)
	for source := range sources {
		mustSave(t, s, numbered(source, 0))
	}
	conn := connect(t, url)
	exec(t, conn, `BEGIN`)
	exec(t, conn, `SELECT FROM tributary.checkpoints WHERE source = 'source-0' FOR UPDATE`)
	var wait sync.WaitGroup
	save := func(source, place int) {
		wait.Go(func() {
			if err := s.Save(context.Background(), numbered(source, place)); err != nil && !errors.Is(err, checkpoint.ErrBackwards) {
				t.Error(err)
			}
		})
	}
	save(0, 1)
	observer := connect(t, url)
	eventually(t, "the first waits for the row", func() bool {
		var waits bool
		err := observer.QueryRow(t.Context(), `SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND pid IN
			(SELECT pid FROM pg_stat_activity WHERE datname = current_database())`).Scan(&waits)
		return err == nil && waits
	})
	for source := range sources {
		for place := range saves {
			save(source, 2+place)
		}
	}
	eventually(t, "all others wait", func() bool { return s.Waiting() == sources*saves })
	exec(t, conn, `COMMIT`)
	wait.Wait()

	var transactions, versions int
	const question = `SELECT count(DISTINCT xmin::text), max(version) FROM tributary.checkpoints`
	if err := conn.QueryRow(t.Context(), question).Scan(&transactions, &versions); err != nil {
		t.Fatal(err)
	}
	if transactions != 1 || versions != 3 { // made, held up, all the rest
		t.Errorf("%d sources were written by %d transactions, and at most %d times, want 1 and 3", sources, transactions, versions)
	}
	for source := range sources {
		if got, want := mustGet(t, s, fmt.Sprint("source-", source)), numbered(source, 1+saves); got != want {
			t.Errorf("the last of a group did not win: %+v, want %+v", got, want)
		}
	}
}

func numbered(source, place int) checkpoint.Checkpoint {
	c := first()
	c.Source = fmt.Sprint("source-", source)
	c.Index += uint32(place)
	return c
}

// TestRacingStoresKeepTheLatest lets several processes' stores save the same sources; all see the rules kept.
func TestRacingStoresKeepTheLatest(t *testing.T) {
	const stores, sources, saves = 4, 3, 50
	_, url := migrated(t)
	var wait sync.WaitGroup
	for n := range stores {
		s := open(t, url)
		for source := range sources {
			wait.Go(func() {
				for place := range saves {
					c := numbered(source, place)
					c.Epoch += uint64(place / 10)
					c.Commit += events.LSN(n)
					err := s.Save(t.Context(), c)
					if err != nil && !errors.Is(err, checkpoint.ErrBackwards) && !errors.Is(err, checkpoint.ErrStale) {
						t.Error(err)
						return
					}
					if err != nil {
						continue
					}
					if got := mustGet(t, s, c.Source); got.Epoch < c.Epoch || got.Commit < c.Commit || got.Commit == c.Commit && got.Index < c.Index {
						t.Errorf("the table holds %+v behind a save of %+v", got, c)
					}
				}
			})
		}
	}
	wait.Wait()
	for source := range sources {
		want := numbered(source, saves-1)
		want.Epoch += (saves - 1) / 10
		want.Commit += stores - 1
		if got := mustGet(t, open(t, url), want.Source); got != want {
			t.Errorf("got %+v, want the latest: %+v", got, want)
		}
	}
}

func TestSavedIsDurableWhenTheCallReturns(t *testing.T) {
	// Without synchronous commits the log writer would come long after the kill.
	server := pgtest.Server(t, map[string]string{"wal_writer_delay": "10s", "synchronous_commit": "off"})
	s := open(t, server.URL("postgres"))
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	c := first()
	for range 20 {
		c.Index++
		mustSave(t, s, c)
	}
	if err := server.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := server.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := mustGet(t, open(t, server.URL("postgres")), "shop"); got != c {
		t.Errorf("after the kill: %+v, want %+v", got, c)
	}
	eventually(t, "the store goes on", func() bool {
		c.Index++
		return s.Save(t.Context(), c) == nil
	})
}

func TestSaveEndsWithItsContext(t *testing.T) {
	s, url := migrated(t)
	mustSave(t, s, first())
	conn := connect(t, url)
	exec(t, conn, `BEGIN`)
	exec(t, conn, `LOCK TABLE tributary.checkpoints`)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	next := first()
	next.Index++
	if err := s.Save(ctx, next); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the end of the context", err)
	}
	exec(t, conn, `COMMIT`)
}
