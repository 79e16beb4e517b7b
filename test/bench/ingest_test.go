//go:build bench

package bench

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/test/harness"
)

// table has rows of about 200 B.
const table = `CREATE TABLE orders (id bigint PRIMARY KEY, customer bigint, status text, total numeric(10,2), note text, at timestamptz)`

const (
	row      = `i, i %% 1000, 'shipped', (i %% 10000) / 100.0, repeat('x', 130), now()`
	largeRow = `i, i %% 1000, 'shipped', (i %% 10000) / 100.0, repeat(md5(i::text), 60), now()`

	inOne   = `INSERT INTO orders SELECT %s FROM generate_series(1, %%d) i`
	oneEach = `DO $$ BEGIN FOR i IN 1..%%d LOOP INSERT INTO orders SELECT %s; COMMIT; END LOOP; END $$`
)

// wide is a table of a hundred columns, half of them numbers, and a row of it.
func wide() (schema, row string) {
	columns, values := []string{"id bigint PRIMARY KEY"}, []string{"i"}
	for n := 1; n < 100; n++ {
		kind, value := "int", fmt.Sprintf("i + %d", n)
		if n%2 == 0 {
			kind, value = "text", fmt.Sprintf("'value %d'", n)
		}
		columns, values = append(columns, fmt.Sprintf("column_%02d %s", n, kind)), append(values, value)
	}
	return "CREATE TABLE orders (" + strings.Join(columns, ", ") + ")", strings.Join(values, ", ")
}

func TestSlotToStream(t *testing.T) {
	wideTable, wideRow := wide()
	cases := []struct {
		name, schema, insert string
		rows                 int
	}{
		{"200 B rows, one transaction", table, fmt.Sprintf(inOne, row), 300_000},
		{"200 B rows, one-row transactions", table, fmt.Sprintf(oneEach, row), 150_000},
		{"2 kB rows, one transaction", table, fmt.Sprintf(inOne, largeRow), 100_000},
		{"2 kB rows, one-row transactions", table, fmt.Sprintf(oneEach, largeRow), 60_000},
		{"100 columns, one transaction", wideTable, fmt.Sprintf(inOne, wideRow), 60_000},
		{"100 columns, one-row transactions", wideTable, fmt.Sprintf(oneEach, wideRow), 60_000},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := harness.New(t, harness.Options{Schema: c.schema, Settings: map[string]string{"synchronous_commit": "off", "max_wal_size": "4GB"}, Profile: profiles()})
			s.Start("ingest")
			s.WaitForLeader()
			s.Stop("ingest") // the slot keeps what comes now
			s.Exec(`SELECT pg_create_logical_replication_slot('raw', 'pgoutput')`)
			s.Exec(fmt.Sprintf(c.insert, c.rows))

			m := startMeter(s, "nats", "postgres")
			s.Start("ingest")
			defer profile(t, s, c.name, func() bool { return s.CountEvents("shop") > 0 }, "ingest")()
			rate := rateUntil(t, c.rows, 5*time.Minute, func() int { return s.CountEvents("shop") })
			cpu := append(m.stop(c.rows), usage{"ingest", s.CPU("ingest"), c.rows})
			peak, after := s.Process("ingest").PeakBytes()>>20, s.Process("ingest").ResidentBytes()>>20
			s.Stop("ingest")
			size := envelopeSize(t, s, c.rows)

			// Of two, the better one: what others do on the machine must not flatter us.
			slot := max(readRaw(t, s, c.rows), readRaw(t, s, c.rows))
			async, asyncCPU := publishAsync(t, s, c.rows, size, nil)
			again, _ := publishAsync(t, s, c.rows, size, nil)
			async = max(async, again)
			withFence, fenceCPU := publishAsync(t, s, c.rows, size, fenced())
			batches := publishBatches(t, s, c.rows, size)
			limit, limitName := slot, "raw slot read"
			if async < slot {
				limit, limitName = async, "asynchronous publishing"
			}
			figure{c.name, rate, limit, limitName, cpu}.print()
			fmt.Printf("%44s raw slot read %.0f/s, asynchronous publishing %.0f/s, atomic batches %.0f/s of %d B; ingest %d MB resident at the most, %d MB behind it\n",
				"", slot, async, batches, size, peak, after)
			fmt.Printf("%44s NATS takes %v of CPU for each of the asynchronous, and %v with ingest's headers, at %.0f/s\n",
				"", asyncCPU, fenceCPU, withFence)
		})
	}
}

// envelopeSize is the mean of the events' bodies.
func envelopeSize(t *testing.T, s *harness.System, n int) int {
	sum, counted := 0, min(n, 1000)
	for msg := range storedMessages(t, s, counted) {
		sum += len(msg.Data())
	}
	return sum / counted
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
