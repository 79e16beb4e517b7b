package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/test/harness"
)

const rows = 30_000

// insertMany commits so many rows in one transaction, and returns at once; the channel closes at the commit.
func insertMany(s *harness.System, n int) <-chan struct{} {
	committed := make(chan struct{})
	go func() {
		defer close(committed)
		s.Exec(fmt.Sprintf(`INSERT INTO orders (id, status) SELECT i, repeat('x', 150) FROM generate_series(1, %d) i`, n))
	}()
	return committed
}

func TestTransactionCutInTheMiddleIsStoredOnce(t *testing.T) {
	cut := map[string]func(*harness.System){
		"by SIGTERM": func(s *harness.System) { s.Stop("ingest") },
		"by SIGKILL": func(s *harness.System) { s.Kill("ingest") },
	}
	for name, end := range cut {
		t.Run(name, func(t *testing.T) {
			s := harness.New(t, harness.Options{})
			s.Start("ingest")
			s.WaitForLeader()
			committed := insertMany(s, rows)
			s.WaitForEvents(1000, time.Minute)
			end(s)
			<-committed
			if n := s.CountEvents("shop"); n >= rows {
				t.Logf("the cut came late: EVENTS holds %d", n)
			}
			s.Start("ingest")
			s.WaitForEvents(rows, time.Minute)
			s.CheckStream(rows)
		})
	}
}

func TestFrozenLeaderPublishesNothingWhenItWakes(t *testing.T) {
	s := harness.New(t, harness.Options{})
	s.Start("ingest")
	s.WaitForLeader()
	s.Start("ingest-2")
	<-insertMany(s, rows)
	s.WaitForEvents(1000, time.Minute)
	s.Process("ingest").Freeze()
	s.WaitForEvents(rows, time.Minute)
	s.Process("ingest").Thaw()
	s.Exec(`INSERT INTO orders (id) VALUES (1000001)`)
	s.WaitForEvents(rows+1, time.Minute)
	s.Settle()
	s.CheckStream(rows + 1)
}

func TestNATSAwayUnderLoad(t *testing.T) {
	s := harness.New(t, harness.Options{})
	s.Start("ingest", "worker", "jobrunner")
	s.WaitForLeader()
	load := s.Write(6000, 4, 200, 2)
	harness.Eventually(t, time.Minute, "the load runs", func() bool { return load.Commits() > 500 })
	s.Kill("nats")
	time.Sleep(30 * time.Second)
	s.Start("nats")
	changes := load.Wait()
	s.Receiver.WaitFor(changes, 2*time.Minute)
	s.CheckStream(changes)
	s.Receiver.CheckOrder()
	for _, name := range []string{"ingest", "worker", "jobrunner"} {
		if !s.Process(name).Running() {
			t.Errorf("%s has ended", name)
		}
	}
}

func TestPostgresRestartsAndWalsenderIsTerminated(t *testing.T) {
	s := harness.New(t, harness.Options{})
	s.Start("ingest", "worker", "jobrunner")
	s.WaitForLeader()
	load := s.Write(4000, 4, 200, 3)
	harness.Eventually(t, time.Minute, "the load runs", func() bool { return load.Commits() > 500 })
	s.Exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_replication`)
	harness.Eventually(t, time.Minute, "the load runs", func() bool { return load.Commits() > 1500 })
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	started := time.Now()
	if err := s.Postgres.Stop(ctx); err != nil {
		t.Fatalf("PostgreSQL did not stop in order: %v", err)
	}
	t.Logf("PostgreSQL stopped within %v", time.Since(started).Round(time.Millisecond))
	if err := s.Postgres.Resume(ctx); err != nil {
		t.Fatal(err)
	}
	changes := load.Wait()
	s.Receiver.WaitFor(changes, 2*time.Minute)
	s.CheckStream(changes)
	if !s.Process("ingest").Running() {
		t.Error("ingest has ended")
	}
}

func TestFullStreamIsWaitedFor(t *testing.T) {
	s := harness.New(t, harness.Options{Source: "heartbeat: 200ms", Settings: map[string]string{"max_slot_wal_keep_size": "256MB"}})
	s.Start("ingest")
	s.WaitForLeader()
	var idle, full overview
	harness.Eventually(t, time.Minute, "the status tells of a heartbeat", func() bool {
		read(t, s, &idle, "status")
		return idle.Sources[0].Session.Heartbeat > 0
	})
	if at := idle.Sources[0]; at.Session.Unpublished != 0 || at.Session.InFlight != 0 || at.Database.Safe < 100<<20 || at.Database.Safe > 300<<20 {
		t.Errorf("the status of an idle source: %+v", at)
	}
	js := s.JetStream()
	stream, err := js.Stream(t.Context(), events.StreamEvents)
	if err != nil {
		t.Fatal(err)
	}
	config := stream.CachedInfo().Config
	room := config.MaxBytes
	config.MaxBytes = 2 << 20
	if _, err := js.UpdateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	<-insertMany(s, rows)
	harness.Eventually(t, time.Minute, "EVENTS is full", func() bool {
		info, err := stream.Info(t.Context())
		return err == nil && info.State.Bytes > 1<<20 && s.Metric("ingest", "tributary_ingest_full_total") > 0
	})
	read(t, s, &full, "status")
	before, now := idle.Sources[0], full.Sources[0]
	if now.Session.Unpublished == 0 || now.Session.InFlight == 0 || now.Database.Retained <= before.Database.Retained || now.Database.Safe >= before.Database.Safe {
		t.Errorf("the status of a source that waits for room: %+v, and before: %+v", now, before)
	}
	config.MaxBytes = room
	if _, err := js.UpdateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	s.WaitForEvents(rows, time.Minute)
	s.CheckStream(rows)
	if !s.Process("ingest").Running() {
		t.Error("ingest has ended")
	}
}

func TestJanitorMakesRoomBehindWhatIsSettled(t *testing.T) {
	s := harness.New(t, harness.Options{Config: "events: {max_bytes: 8MiB}\n"})
	s.Start("ingest", "worker", "jobrunner")
	s.WaitForLeader()
	<-insertMany(s, rows) // about 20 MB of events
	s.Receiver.WaitFor(rows, 3*time.Minute)
	js := s.JetStream()
	stream, err := js.Stream(t.Context(), events.StreamEvents)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.GetLastMsgForSubject(t.Context(), events.PositionSubject("shop")); err != nil {
		t.Errorf("the position is gone: %v", err)
	}
	if effects, _ := s.Receiver.Repeated(); effects > 0 {
		t.Errorf("%d effects were repeated", effects)
	}
}

func TestHugeTransactionInLittleMemory(t *testing.T) {
	const huge = 2_000_000
	s := harness.New(t, harness.Options{Settings: map[string]string{"wal_sender_timeout": "5s"}})
	s.Start("ingest")
	s.WaitForLeader()
	<-insertMany(s, huge)
	s.WaitForEvents(huge, 5*time.Minute)
	peak := s.Process("ingest").PeakBytes() >> 20
	t.Logf("ingest had %d MB resident at the most", peak)
	if peak > 200 {
		t.Errorf("ingest had %d MB resident, want less than 200", peak)
	}
	if n := s.CountEvents("shop"); n != huge {
		t.Errorf("EVENTS holds %d, want %d", n, huge)
	}
	if strings.Contains(s.Process("ingest").Log(), "reading stopped") {
		t.Error("the connection was lost on the way")
	}
}
