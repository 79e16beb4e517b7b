package e2e

import (
	"context"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/test/harness"
)

// TestASnapshotSurvivesWhatItNeeds takes away, one after the other, what a snapshot is written to and what it is read from,
// while rows change: the first snapshot, then rows that somebody asked for.
func TestASnapshotSurvivesWhatItNeeds(t *testing.T) {
	s := harness.New(t, harness.Options{
		Schema: harness.OrdersTable + `; INSERT INTO orders (id, status, note) SELECT i, 'old', repeat('x', 200) FROM generate_series(1, 20000) i; ANALYZE orders`,
		Source: "snapshot_rate: 500KiB",
	})
	harness.Binary(t, "tributary") // before the time counts
	natsAway := func() {
		s.Kill("nats")
		s.Exec(`UPDATE orders SET n = n + 1 WHERE id % 10 = 0`)
		s.Start("nats")
	}
	postgresAway := func(stop func(context.Context) error) func() {
		return func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := stop(ctx); err != nil {
				t.Fatal(err)
			}
			if err := s.Postgres.Resume(ctx); err != nil {
				t.Fatal(err)
			}
			s.DB.Reset() // its connections are of the server before
			s.Exec(`UPDATE orders SET n = n + 1 WHERE id % 10 IN (0, 2)`)
		}
	}
	faults := []struct {
		what string
		make func()
	}{
		{"NATS is killed", natsAway},
		{"PostgreSQL is restarted", postgresAway(s.Postgres.Stop)},
		{"NATS is killed again", natsAway},
		{"PostgreSQL is killed", postgresAway(s.Postgres.Kill)},
	}
	s.Start("ingest")
	stored := 0
	for _, fault := range faults {
		before := stored
		harness.Eventually(t, time.Minute, "rows are stored before "+fault.what, func() bool {
			stored = s.CountEvents("shop")
			return stored > before+500
		})
		fault.make()
	}
	settled(t, s, 2*time.Minute, "all rows and what changed meanwhile are stored")
	for _, fault := range faults {
		var under []reading
		harness.Eventually(t, time.Minute, "it can be said what is read", func() (known bool) {
			under, known = readings(t, s)
			return known
		})
		if len(under) == 0 { // the one before has ended
			if r := tributary(t, s, "snapshot", "public.orders", "--no-wait"); r.status != 0 {
				t.Fatalf("snapshot --no-wait: %s", r.stderr)
			}
		}
		harness.Eventually(t, time.Minute, "rows are read again before "+fault.what, func() bool {
			under, _ = readings(t, s)
			return len(under) > 0 && under[0].Rows > 0
		})
		fault.make()
	}
	settled(t, s, 2*time.Minute, "all rows and what changed meanwhile are stored")
	if !s.Process("ingest").Running() {
		t.Error("ingest has ended")
	}
}
