//go:build bench

package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tributary-dev/tributary/internal/pgtest"
	"github.com/tributary-dev/tributary/pkg/checkpoint"
	"github.com/tributary-dev/tributary/pkg/events"
)

// A rate is taken for so long, so often, and the middle one counts: each save waits for the disk, which others use, too.
const (
	measured = 1500 * time.Millisecond
	rounds   = 3
)

// TestCheckpoints saves positions from many goroutines, each save durable when its call returns, beside as many
// connections that update a row each in transactions of their own.
func TestCheckpoints(t *testing.T) {
	settings := map[string]string{"fsync": "on", "synchronous_commit": "on", "max_connections": "120"}
	for _, c := range []struct{ callers, sources int }{{1, 1}, {8, 8}, {64, 64}, {1024, 64}, {1024, 1024}} {
		name := fmt.Sprintf("checkpoints: %d callers, %d sources", c.callers, c.sources)
		t.Run(name, func(t *testing.T) {
			server := pgtest.Server(t, settings)
			url := server.URL("postgres")
			s, err := checkpoint.New(url, checkpoint.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if err := s.Migrate(t.Context()); err != nil {
				t.Fatal(err)
			}
			connections := min(c.callers, 64)
			type round struct {
				limit, rate float64
				delays      []time.Duration
			}
			var all []round
			update, places := updater(t, url, connections, min(c.sources, connections)), new(atomic.Uint64)
			for range rounds {
				var r round
				r.limit, _ = callers(t, connections, update)
				r.rate, r.delays = saves(t, s, places, c.callers, c.sources)
				all = append(all, r)
			}
			slices.SortFunc(all, func(a, b round) int { return cmp.Compare(a.rate, b.rate) })
			middle := all[len(all)/2]
			figure{name: name, rate: middle.rate, limit: middle.limit, limitName: fmt.Sprintf("%d connections updating", connections)}.print()
			fmt.Printf("%44s a save takes %v (p50), %v (p99); the rounds %.0f to %.0f/s\n", "", quantile(middle.delays, 0.5), quantile(middle.delays, 0.99),
				all[0].rate, all[len(all)-1].rate)
			const toBeat = 10_000
			if c.callers >= 1024 && all[len(all)-1].rate < toBeat {
				t.Errorf("%.0f saves/s at the best, want %d", all[len(all)-1].rate, toBeat)
			}
		})
	}
}

func quantile(sorted []time.Duration, q float64) time.Duration {
	return sorted[int(q*float64(len(sorted)-1))].Round(10 * time.Microsecond)
}

// callers calls do from n goroutines for a while, and gives how many calls a second ended, and how long some of them took.
func callers(t *testing.T, n int, do func(ctx context.Context, caller, call int) error) (rate float64, sorted []time.Duration) {
	t.Helper()
	var count atomic.Int64
	var mu sync.Mutex
	var wait sync.WaitGroup
	begun := time.Now()
	for caller := range n {
		wait.Go(func() {
			var own []time.Duration
			for call := 1; time.Since(begun) < measured; call++ {
				start := time.Now()
				err := do(t.Context(), caller, call)
				if errors.Is(err, checkpoint.ErrBackwards) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				count.Add(1)
				const each = 10
				if rand.IntN(each) == 0 || call == 1 {
					own = append(own, time.Since(start))
				}
			}
			mu.Lock()
			defer mu.Unlock()
			sorted = append(sorted, own...)
		})
	}
	wait.Wait()
	slices.Sort(sorted)
	return float64(count.Load()) / time.Since(begun).Seconds(), sorted
}

// saves gives the rate of saves that were stored. Where callers share a source, one that was overtaken is refused, and does
// not count.
func saves(t *testing.T, s *checkpoint.Store, places *atomic.Uint64, n, sources int) (float64, []time.Duration) {
	t.Helper()
	return callers(t, n, func(ctx context.Context, caller, _ int) error {
		c := checkpoint.Checkpoint{
			Source: fmt.Sprintf("source_%04d", caller%sources), Epoch: 1, Incarnation: 1, SystemID: "7311", Timeline: 1,
			Slot: "tributary_shop", Phase: "streaming", Commit: events.LSN(places.Add(1)), Leader: "bench",
		}
		c.End = c.Commit + 1
		return s.Save(ctx, c)
	})
}

// updater gives what n connections do: transactions that update one row each.
func updater(t *testing.T, url string, n, rows int) func(ctx context.Context, caller, call int) error {
	t.Helper()
	conns := make([]*pgx.Conn, n)
	for i := range conns {
		conn, err := pgx.Connect(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close(context.Background()) })
		conns[i] = conn
	}
	_, err := conns[0].Exec(t.Context(), fmt.Sprintf(`CREATE TABLE bare WITH (fillfactor = 20) AS SELECT i AS id, 0::bigint AS place FROM generate_series(0, %d) i`, rows))
	if err == nil {
		_, err = conns[0].Exec(t.Context(), `ALTER TABLE bare ADD PRIMARY KEY (id)`)
	}
	if err != nil {
		t.Fatal(err)
	}
	return func(ctx context.Context, caller, call int) error {
		_, err := conns[caller].Exec(ctx, `UPDATE bare SET place = $2 WHERE id = $1`, caller%rows, call)
		return err
	}
}
