//go:build bench

package bench

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tributary-dev/tributary/test/harness"
)

// TestSnapshotToStream reads a table's rows at the first start, and once more among the changes.
func TestSnapshotToStream(t *testing.T) {
	const rows = 300_000
	for _, parallel := range []int{1, 2} {
		s := harness.New(t, harness.Options{Schema: table, Source: fmt.Sprintf("snapshot_parallel: %d", parallel)})
		s.Exec(fmt.Sprintf(`INSERT INTO orders SELECT `+row+` FROM generate_series(1, %d) i`, rows))
		s.Exec(`VACUUM ANALYZE orders`)
		raw := copyToNothing(t, s, rows)
		batches := publishBatches(t, s, rows, 700)
		limit, limitName := raw, "COPY to nothing"
		if batches < raw {
			limit, limitName = batches, "atomic batches of 1,000"
		}
		m := startMeter(s, "nats", "postgres")
		s.Start("ingest")
		rate := rateUntil(t, rows, 5*time.Minute, func() int { return s.CountEvents("shop") })
		cpu := append(m.stop(rows), usage{"ingest", s.CPU("ingest"), rows})
		figure{fmt.Sprintf("snapshot to stream, %d connections", parallel), rate, limit, limitName, cpu}.print()
		fmt.Printf("%44s COPY to nothing %.0f/s, atomic batches %.0f/s, ingest %d MB resident at the most\n",
			"", raw, batches, s.Process("ingest").PeakBytes()>>20)
		if parallel > 1 {
			continue
		}
		s.WaitForLeader()
		ask(t, s)
		again := rateUntil(t, 2*rows, 5*time.Minute, func() int { return s.CountEvents("shop") })
		figure{"rows that are asked for, among changes", again, limit, limitName, nil}.print()
	}
}

// copyToNothing has PostgreSQL send all rows as text, and throws them away.
func copyToNothing(t *testing.T, s *harness.System, rows int) float64 {
	t.Helper()
	conn, err := pgconn.Connect(t.Context(), s.Postgres.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	start := time.Now()
	if _, err := conn.CopyTo(t.Context(), io.Discard, `COPY orders TO STDOUT`); err != nil {
		t.Fatal(err)
	}
	return float64(rows) / time.Since(start).Seconds()
}

// ask asks for all rows of orders.
func ask(t *testing.T, s *harness.System) {
	t.Helper()
	command := exec.Command(harness.Binary(t, "tributary"), "--config", s.Config(), "snapshot", "public.orders", "--no-wait")
	command.Env = append(os.Environ(), "SHOP_URL="+s.Postgres.URL("postgres"))
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}
