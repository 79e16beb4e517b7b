package chaos

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/test/harness"
)

// TestHugeTransactions commits one transaction of CHAOS_ROWS rows (default 5,000,000), kills ingest twice while it is read, and
// checks that each row is stored once, in little memory.
func TestHugeTransactions(t *testing.T) {
	rows := int(setting(t, "CHAOS_ROWS", 5_000_000))
	s := harness.New(t, harness.Options{
		Settings: map[string]string{"wal_sender_timeout": "10s"},
		Config:   "events: {max_bytes: 16GiB}\ningest: {rewind: 1s}\n",
	})
	s.Start("ingest")
	s.WaitForLeader()
	began := time.Now()
	s.Exec(fmt.Sprintf(`INSERT INTO orders (id, status) SELECT i, repeat('x', 150) FROM generate_series(1, %d) i`, rows))
	t.Logf("committed after %v", time.Since(began).Round(time.Second))
	read, peak := time.Now(), int64(0)
	for _, share := range []int{rows / 10, rows / 2} {
		s.WaitForEvents(share, 10*time.Minute)
		peak = max(peak, int64(s.Process("ingest").PeakBytes()))
		s.Kill("ingest")
		s.Start("ingest")
	}
	s.WaitForEvents(rows, 20*time.Minute)
	took := time.Since(read)
	peak = max(peak, int64(s.Process("ingest").PeakBytes()))
	t.Logf("%d rows stored in %v, with two kills: %d/s; ingest had %d MB resident at the most", rows, took.Round(time.Second),
		int(float64(rows)/took.Seconds()), peak>>20)
	if peak > 200<<20 {
		t.Errorf("ingest had %d MB resident, want less than 200", peak>>20)
	}
	s.CheckStream(rows)
	if strings.Contains(s.Process("ingest").Log(), "refused") {
		t.Error("ingest was refused something")
	}
}
