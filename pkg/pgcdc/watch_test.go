package pgcdc

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tributary-dev/tributary/internal/pgtest"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/ingest"
)

func newWatch() *watch {
	r := &run{Source: &Source{opts: Options{Slot: "s", Heartbeat: 10 * time.Second}}, out: &output{}, feed: ingest.NewFeed(1)}
	return &watch{run: r, status: &status{}, beat: &heartbeat{run: r}}
}

func TestASlotThatDoesNotMoveThoughItShouldIsReported(t *testing.T) {
	begin := time.Now()
	after := func(seconds int) time.Time { return begin.Add(time.Duration(seconds) * time.Second) }
	w := newWatch()
	expect := func(step string, s Standing, seconds int, want string) {
		t.Helper()
		if got := w.complaint(s, after(seconds)); !strings.Contains(got, want) || (want == "") != (got == "") {
			t.Errorf("%s: got %q, want %q", step, got, want)
		}
	}
	expect("nothing was told", Standing{Confirmed: 5}, 0, "")
	w.status.told.Store(10)
	expect("just told", Standing{Confirmed: 5}, 2, "")
	expect("a while ago", Standing{Confirmed: 5}, 20, "")
	expect("long ago", Standing{Confirmed: 5}, 40, "slot s has stood at 0/5 for 38s, and PostgreSQL was told to forget up to 0/A")
	expect("it moves", Standing{Confirmed: 7}, 42, "")
	expect("and stands again", Standing{Confirmed: 7}, 44, "")
	expect("for long", Standing{Confirmed: 7}, 80, "stood at 0/7")
	expect("it is where it should be", Standing{Confirmed: 10}, 82, "")
	expect("and may stay there", Standing{Confirmed: 10}, 1000, "")
	expect("it is lost", Standing{Confirmed: 10, WALStatus: "lost"}, 1000, "slot s is lost")

	w.beat.sent.Store(after(1000).UnixNano())
	expect("a heartbeat is on its way", Standing{Confirmed: 10}, 1020, "")
	expect("it does not come back", Standing{Confirmed: 10}, 1040, "a heartbeat has not come back through slot s for 40s")
	w.out.blocked.Store(after(1030).UnixNano())
	expect("because EVENTS is full, which is told elsewhere", Standing{Confirmed: 10}, 1040, "")
	w.out.blocked.Store(0)
	w.beat.sent.Store(0)
	expect("it is back", Standing{Confirmed: 10}, 1042, "")
}

func TestLagIsTheAgeOfWhatIsNotStored(t *testing.T) {
	w, now := newWatch(), time.Now()
	for i, step := range []struct {
		end, stored events.LSN
		want        time.Duration
	}{
		{100, 100, 0},
		{150, 100, 1 * time.Second},
		{180, 120, 2 * time.Second}, // the log ended at 100, which is stored, two seconds ago
		{190, 160, 2 * time.Second}, // 150 two seconds ago
		{200, 195, 1 * time.Second},
		{200, 200, 0},
		{200, 200, 0},
		{300, 250, 1 * time.Second},
	} {
		if got := w.lag(step.end, step.stored, now.Add(time.Duration(i)*time.Second)); got != step.want {
			t.Errorf("step %d: %v, want %v", i, got, step.want)
		}
	}
	for i := range 5000 {
		w.lag(events.LSN(400+i), 300, now.Add(time.Duration(10+i)*time.Second))
	}
	if len(w.marks) > 1000 {
		t.Errorf("%d marks are kept", len(w.marks))
	}
	if got, want := w.lag(6000, 4000, now.Add(5010*time.Second)), 1400*time.Second; got < want || got > want+20*time.Second {
		t.Errorf("after long the lag is %v, want about %v", got, want)
	}
}

func TestTheSlotsStandingIsTold(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	db.exec(`CREATE TABLE a (id int PRIMARY KEY, note text)`)
	registry := prometheus.NewRegistry()
	source := db.source(func(o *Options) { o.Metrics = NewMetrics(registry) })
	s := newStore(t)
	r := s.startConfirming(source, 0, nothing)
	r.streaming()
	value := func(name string) float64 { return gaugeSum(t, registry, name) }
	waitFor(t, "the slot's status", func() bool { return value("tributary_ingest_wal_status") == 1 })
	s.mu.Lock() // nothing is stored from now on
	db.exec(`INSERT INTO a SELECT i, repeat('x', 1000) FROM generate_series(1, 5000) i`)
	waitFor(t, "the lag", func() bool {
		return value("tributary_ingest_lag_bytes") > 4_000_000 && value("tributary_ingest_lag_seconds") > 0 && value("tributary_ingest_wal_retained_bytes") > 4_000_000
	})
	s.mu.Unlock()
	waitFor(t, "all to be stored", func() bool { return value("tributary_ingest_lag_seconds") == 0 && s.count() == 5000 })
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if value("tributary_ingest_wal_status") != 0 {
		t.Error("who does not lead any more still tells")
	}
}

// gaugeSum gives the sum of a gauge over its labels.
func gaugeSum(t *testing.T, registry *prometheus.Registry, name string) (sum float64) {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == name {
			for _, m := range family.GetMetric() {
				sum += m.GetGauge().GetValue()
			}
		}
	}
	return sum
}
