package harness

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// Workload is writers that change orders in small transactions, until they have made theirs. What was committed is
// kept in the same transactions, in a table that is not published.
type Workload struct {
	s       *System
	wait    sync.WaitGroup
	commits atomic.Int64
	stop    atomic.Bool
}

const ledger = `CREATE SCHEMA IF NOT EXISTS ledger; CREATE TABLE IF NOT EXISTS ledger.commits (changes int NOT NULL)`

// Write starts writers that commit so many transactions in all over so many keys; the same seed does the same.
func (s *System) Write(transactions, writers, keys int, seed uint64) *Workload {
	s.t.Helper()
	s.Exec(ledger)
	w := &Workload{s: s}
	for i := range writers {
		share := transactions / writers
		if i < transactions%writers {
			share++
		}
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		w.wait.Add(1)
		go func() {
			defer w.wait.Done()
			for n := 0; n < share; {
				if w.commit(random, keys, i, n) {
					n++
					w.commits.Add(1)
				}
			}
		}()
	}
	return w
}

// WriteSteadily starts writers that commit about so many transactions a second in all, until Stop.
func (s *System) WriteSteadily(perSecond, writers, keys int, seed uint64) *Workload {
	s.t.Helper()
	s.Exec(ledger)
	w := &Workload{s: s}
	for i := range writers {
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		w.wait.Go(func() {
			next := time.Now()
			for n := 0; !w.stop.Load(); n++ {
				if w.commit(random, keys, i, n) {
					w.commits.Add(1)
				}
				next = next.Add(time.Second * time.Duration(writers) / time.Duration(perSecond))
				time.Sleep(time.Until(next))
			}
		})
	}
	return w
}

// Stop ends a steady load, and gives what Wait gives.
func (w *Workload) Stop() int {
	w.s.t.Helper()
	w.stop.Store(true)
	return w.Wait()
}

// Commits is how many transactions were committed so far.
func (w *Workload) Commits() int { return int(w.commits.Load()) }

// Wait waits for all writers, and gives how many changes were committed by all workloads so far.
func (w *Workload) Wait() int {
	w.s.t.Helper()
	w.wait.Wait()
	var changes int
	if err := w.s.DB.QueryRow(context.Background(), `SELECT coalesce(sum(changes), 0) FROM ledger.commits`).Scan(&changes); err != nil {
		w.s.t.Fatalf("read the ledger: %v", err)
	}
	return changes
}

// commit makes one transaction of one to three changes; false when PostgreSQL was away.
func (w *Workload) commit(random *rand.Rand, keys, writer, n int) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	err := pgx.BeginFunc(ctx, w.s.DB, func(tx pgx.Tx) error {
		changes := 0
		first := random.IntN(keys)
		for i := range 1 + random.IntN(3) {
			// Ascending keys within a transaction, so that writers never wait for each other in a circle.
			id := (first + i) % keys
			if id < first {
				break
			}
			changed, err := change(ctx, tx, random, id, writer, n)
			if err != nil {
				return err
			}
			changes += changed
		}
		_, err := tx.Exec(ctx, `INSERT INTO ledger.commits VALUES ($1)`, changes)
		return err
	})
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		time.Sleep(20 * time.Millisecond) // a restart of PostgreSQL: whether it committed, the ledger knows
	}
	return err == nil
}

func change(ctx context.Context, tx pgx.Tx, random *rand.Rand, id, writer, n int) (int, error) {
	if random.IntN(10) == 0 {
		tag, err := tx.Exec(ctx, `DELETE FROM orders WHERE id = $1`, id)
		return int(tag.RowsAffected()), err
	}
	tag, err := tx.Exec(ctx, `INSERT INTO orders (id, n, writer, status) VALUES ($1, 1, $2, $3)
		ON CONFLICT (id) DO UPDATE SET n = orders.n + 1, writer = $2, status = $3`, id, writer, fmt.Sprint("step ", n))
	return int(tag.RowsAffected()), err
}
