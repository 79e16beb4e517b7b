package trace

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/tributary-dev/tributary/internal/natstest"
	"github.com/tributary-dev/tributary/internal/stall"
)

// run runs a recorder; what it gives ends it and waits.
func run(t *testing.T, r *Recorder) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() { r.Run(ctx) })
	stop = func() {
		cancel()
		running.Wait()
	}
	t.Cleanup(stop)
	return stop
}

func find(t *testing.T, server *natstest.Server, event string, sequence uint64) Found {
	t.Helper()
	found, err := Read(t.Context(), server.JetStream(t), Query{Event: event, Partition: 2, Sequence: sequence, Stored: time.Now().Add(-time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func summary(found Found) string {
	var words []string
	for _, r := range found.Records {
		switch {
		case r.Evaluation != nil:
			words = append(words, r.By+" evaluated")
		default:
			words = append(words, fmt.Sprintf("%s %d %s", r.By, r.Effect.Attempt.Number, r.Effect.Outcome))
		}
	}
	return strings.Join(words, ", ")
}

func TestAnEventIsFoundAmongOthersFromItsEvaluationToItsLastAttempt(t *testing.T) {
	server, worker := rig(t, Options{Kind: Worker, By: "w"})
	runner, err := New(server.JetStream(t), Options{Kind: JobRunner, By: "j"})
	if err != nil {
		t.Fatal(err)
	}
	stopWorker, stopRunner := run(t, worker), run(t, runner)
	const events = 3000 // more than a message takes
	for i := range uint64(events) {
		event := fmt.Sprint("shop-1-", i)
		worker.Note(2, evaluated(event, i+1))
		worker.Note(2, attempted(event, i+1, 1, Handed))
		worker.Note(1, evaluated(event, i+1)) // another partition's
	}
	for i := range 2 * mostHashes {
		runner.Note(2, attempted(fmt.Sprint("shop-1-", i), 0, 2, Again))
	}
	runner.Note(2, attempted("shop-1-7", 0, 3, Done))
	stopWorker()
	stopRunner()
	if got, want := summary(find(t, server, "shop-1-7", 8)), "w evaluated, w 1 job, j 2 again, j 3 done"; got != want {
		t.Errorf("on record is %q, want %q", got, want)
	}
	if got, want := summary(find(t, server, "shop-1-2999", 3000)), "w evaluated, w 1 job"; got != want {
		t.Errorf("on record is %q, want %q", got, want)
	}
	for name, found := range map[string]Found{
		"another event in the same place":    find(t, server, "shop-2-7", 8),
		"the same event in a later EVENTS":   find(t, server, "shop-1-2000", 5_000_000),
		"an event that nobody has evaluated": find(t, server, "shop-1-5000", 5001),
	} {
		if len(found.Records) > 0 {
			t.Errorf("%s: on record is %q", name, summary(found))
		}
	}
}

func TestReadingEndsAtItsBound(t *testing.T) {
	server, worker := rig(t, Options{Kind: Worker, By: "w"})
	js := server.JetStream(t)
	for i := range uint64(20) {
		b := batch{partition: 2, first: i + 1, last: i + 1, lines: appendLine(nil, evaluated("e", i+1))}
		if err := worker.publish(t.Context(), b.message(worker.options, worker.packer)); err != nil {
			t.Fatal(err)
		}
	}
	query := Query{Event: "e", Partition: 2, Sequence: 15, Stored: time.Now(), Most: 10}
	found, err := Read(t.Context(), js, query)
	if err != nil || !found.Partial || len(found.Records) > 0 {
		t.Errorf("found %+v, %v; want a partial answer without the event", found, err)
	}
	query.Most = 20
	if found, err = Read(t.Context(), js, query); err != nil || found.Partial || len(found.Records) != 1 {
		t.Errorf("found %+v, %v; want the event", found, err)
	}
}

func TestSamplingLeavesOutTheSameEventsEverywhereAndNoFailure(t *testing.T) {
	half, none := 0.5, 0.0
	registry := prometheus.NewRegistry()
	server, a := rig(t, Options{Kind: Worker, By: "a", Sample: &half, Metrics: NewMetrics(registry)})
	js := server.JetStream(t)
	b, err := New(js, Options{Kind: JobRunner, By: "b", Sample: &half})
	if err != nil {
		t.Fatal(err)
	}
	const events = 1000
	for i := range uint64(events) {
		event := fmt.Sprintf("shop-1-%016X-1-1", i)
		a.Note(0, evaluated(event, i+1))
		b.Note(0, attempted(event, 0, 1, Done))
	}
	kept := 0
	for _, batch := range b.take(true) {
		kept += batch.records
	}
	if a.open[0].records != kept || kept < 400 || kept > 600 {
		t.Errorf("of %d events the worker keeps %d and the runner %d, want the same half", events, a.open[0].records, kept)
	}
	if n := value(t, a.options.Metrics.records.WithLabelValues(notSampled)); int(n) != events-kept {
		t.Errorf("%v records are counted as left out, want %d", n, events-kept)
	}
	c, err := New(js, Options{Kind: Worker, By: "c", Sample: &none})
	if err != nil {
		t.Fatal(err)
	}
	c.Note(0, evaluated("e", 1))
	c.Note(0, attempted("e", 1, 1, Done))
	c.Note(0, &Record{Event: "e", Evaluation: &Evaluation{Failed: []Failure{{"o", "bad"}}}})
	c.Note(0, attempted("e", 1, 1, Dead))
	failed := attempted("e", 1, 1, Handed)
	failed.Effect.Attempt.Error = "503"
	c.Note(0, failed)
	if c.open[0].records != 3 {
		t.Errorf("%d records are kept of a sample of nothing, want the 3 failures", c.open[0].records)
	}
	for _, r := range []*Recorder{a, b, c} {
		r.packer.Close()
	}
}

// What can't be sent is kept up to the bound, and then dropped and counted; what is recorded afterwards is sent again.
func TestRecordingNeverBlocksWhileTheServerIsAway(t *testing.T) {
	server, worker := rig(t, Options{Kind: Worker, By: "w", pending: 100 << 10})
	run(t, worker)
	worker.Note(2, evaluated("before", 1))
	eventually(t, "the first record is written", func() bool { return len(find(t, server, "before", 1).Records) == 1 })
	server.Stop()
	const records = 5000
	begun := stall.Begin(t)
	for i := range uint64(records) {
		worker.Note(2, evaluated(fmt.Sprint("away-", i), i+2))
	}
	begun.Within(2*time.Second, "records while the server was away")
	lost := value(t, worker.options.Metrics.records.WithLabelValues(dropped))
	if lost == 0 || lost == records {
		t.Errorf("%v of %d records are dropped, want those that have no room", lost, records)
	}
	server.Restart(t)
	eventually(t, "what was kept is written", func() bool {
		return value(t, worker.options.Metrics.records.WithLabelValues(written)) == records+1-lost
	})
	if n := len(find(t, server, "away-0", 2).Records); n != 1 {
		t.Errorf("%d records of the first event, want 1", n)
	}
	worker.Note(2, evaluated("after", 9999))
	eventually(t, "what comes later is written", func() bool { return len(find(t, server, "after", 9999).Records) == 1 })
	if value(t, worker.options.Metrics.bytes) == 0 {
		t.Error("tributary_traces_bytes_total does not move")
	}
}

func value(t *testing.T, counter prometheus.Metric) float64 {
	t.Helper()
	var m dto.Metric
	if err := counter.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue()
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for !is() {
		select {
		case <-look.C:
		case <-deadline:
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func BenchmarkNote(b *testing.B) {
	r, err := New(nil, Options{Kind: Worker, By: "w", pending: 1 << 40})
	if err != nil {
		b.Fatal(err)
	}
	record := evaluated("shop-1-0000000016B37488-771-3", 123456)
	b.ReportAllocs()
	for b.Loop() {
		r.Note(3, record)
		for _, full := range r.take(false) {
			full.message(r.options, r.packer)
			r.release(full, written)
		}
	}
}
