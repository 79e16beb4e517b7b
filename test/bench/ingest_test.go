//go:build bench

package bench

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/test/harness"
)

// table has rows of about 200 B.
const table = `CREATE TABLE orders (id bigint PRIMARY KEY, customer bigint, status text, total numeric(10,2), note text, at timestamptz)`

const row = `i, i %% 1000, 'shipped', (i %% 10000) / 100.0, repeat('x', 130), now()`

func TestSlotToStream(t *testing.T) {
	cases := []struct {
		name, insert string
		rows         int
	}{
		{"slot to stream, one transaction", `INSERT INTO orders SELECT ` + row + ` FROM generate_series(1, %d) i`, 300_000},
		{"slot to stream, one-row transactions", `DO $$ BEGIN FOR i IN 1..%d LOOP INSERT INTO orders SELECT ` + row + `; COMMIT; END LOOP; END $$`, 150_000},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := harness.New(t, harness.Options{Schema: table, Settings: map[string]string{"synchronous_commit": "off"}})
			s.Start("ingest")
			s.WaitForLeader()
			s.Stop("ingest") // the slot keeps what comes now
			s.Exec(`SELECT pg_create_logical_replication_slot('raw', 'pgoutput')`)
			s.Exec(fmt.Sprintf(c.insert, c.rows))

			slot := readRaw(t, s, c.rows)
			batches := publishBatches(t, s, c.rows)
			limit, limitName := slot, "raw slot read"
			if batches < slot {
				limit, limitName = batches, "atomic batches of 1,000"
			}
			m := startMeter(s, "nats", "postgres")
			s.Start("ingest")
			rate := rateUntil(t, c.rows, 5*time.Minute, func() int { return s.CountEvents("shop") })
			cpu := append(m.stop(c.rows), usage{"ingest", s.CPU("ingest"), c.rows})
			figure{c.name, rate, limit, limitName, cpu}.print()
			fmt.Printf("%44s raw slot read %.0f/s, atomic batches %.0f/s, ingest %d MB resident at the most\n",
				"", slot, batches, s.Process("ingest").PeakBytes()>>20)
		})
	}
}

func TestCommitToStored(t *testing.T) {
	for _, perSecond := range []int{500, 2000} {
		// A commit that is not flushed at once is not sent at once either.
		s := harness.New(t, harness.Options{Schema: table, Settings: map[string]string{"synchronous_commit": "on", "fsync": "on"}})
		s.Start("ingest")
		s.WaitForLeader()
		n := 10 * perSecond
		pace(t, s, n, perSecond)
		s.WaitForEvents(n, time.Minute)
		delays := storedDelays(t, s, n)
		at := func(q float64) time.Duration {
			return delays[int(q*float64(len(delays)-1))].Round(10 * time.Microsecond)
		}
		fmt.Printf("%-44s p50 %v, p90 %v, p99 %v, max %v\n",
			fmt.Sprintf("commit to stored at %d/s", perSecond), at(0.5), at(0.9), at(0.99), at(1))
	}
}

// pace commits n one-row transactions at a steady rate, from four connections.
func pace(t *testing.T, s *harness.System, n, perSecond int) {
	t.Helper()
	const writers = 4
	done := make(chan error, writers)
	for w := range writers {
		go func() {
			next := time.Now()
			for i := w; i < n; i += writers {
				time.Sleep(time.Until(next))
				next = next.Add(time.Second * writers / time.Duration(perSecond))
				_, err := s.DB.Exec(context.Background(), `INSERT INTO orders (id, status) VALUES ($1, 'placed')`, i)
				if err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range writers {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}

// storedDelays gives the time from each commit to its event's storing, ascending.
func storedDelays(t *testing.T, s *harness.System, n int) []time.Duration {
	t.Helper()
	var delays []time.Duration
	for msg := range storedMessages(t, s, n) {
		event, err := events.Parse(msg.Data())
		if err != nil {
			t.Fatal(err)
		}
		meta, err := msg.Metadata()
		if err != nil {
			t.Fatal(err)
		}
		delays = append(delays, meta.Timestamp.Sub(event.Time))
	}
	slices.Sort(delays)
	return delays
}
