//go:build bench

// Package bench measures what the project claims, each figure beside its limit, measured in the same run: the machines are
// noisy, so the ratios are what counts.
//
//	make bench
package bench

import (
	"fmt"
	"iter"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/test/harness"
)

func TestMain(m *testing.M) {
	code := m.Run()
	harness.Cleanup()
	os.Exit(code)
}

// figure is one line of the result.
type figure struct {
	name      string
	rate      float64 // a second
	limit     float64
	limitName string
	cpu       []usage
}

// usage is the CPU that one program took for all the events of a measurement.
type usage struct {
	name  string
	total time.Duration
	n     int
}

func (f figure) print() {
	var cpu []string
	for _, u := range f.cpu {
		cpu = append(cpu, fmt.Sprintf("%s %.1f µs", u.name, float64(u.total.Nanoseconds())/1000/float64(u.n)))
	}
	fmt.Printf("%-44s %8.0f/s   limit %8.0f/s (%s)   %3.0f %%   CPU an event: %s\n",
		f.name, f.rate, f.limit, f.limitName, 100*f.rate/f.limit, strings.Join(cpu, ", "))
}

// meter takes the CPU of programs at a start and at an end.
type meter struct {
	s      *harness.System
	names  []string
	before []time.Duration
}

func startMeter(s *harness.System, names ...string) *meter {
	m := &meter{s: s, names: names}
	for _, name := range names {
		m.before = append(m.before, s.CPU(name))
	}
	return m
}

func (m *meter) stop(events int) []usage {
	var used []usage
	for i, name := range m.names {
		used = append(used, usage{name, m.s.CPU(name) - m.before[i], events})
	}
	return used
}

// ownCPU is what this process has used: its receivers, and the clients of limits.
func ownCPU(t *testing.T) time.Duration {
	t.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		t.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// ratePer waits until count reaches n and gives the rate from the first to the last, and how many it is over.
func rateUntil(t *testing.T, n int, most time.Duration, count func() int) float64 {
	t.Helper()
	start, first := time.Time{}, 0
	deadline := time.Now().Add(most)
	for {
		now := count()
		if start.IsZero() && now > 0 {
			start, first = time.Now(), now
		}
		if now >= n {
			return float64(n-first) / time.Since(start).Seconds()
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d after %v", now, n, most)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// storedMessages reads n events of shop, as they lie in EVENTS.
func storedMessages(t *testing.T, s *harness.System, n int) iter.Seq[jetstream.Msg] {
	return func(yield func(jetstream.Msg) bool) {
		t.Helper()
		consumer, err := s.JetStream().OrderedConsumer(t.Context(), events.StreamEvents, jetstream.OrderedConsumerConfig{
			FilterSubjects: []string{events.EventsOfSource("shop")},
		})
		if err != nil {
			t.Fatal(err)
		}
		messages, err := consumer.Messages()
		if err != nil {
			t.Fatal(err)
		}
		defer messages.Stop()
		for range n {
			msg, err := messages.Next(jetstream.NextMaxWait(10 * time.Second))
			if err != nil {
				t.Fatal(err)
			}
			if !yield(msg) {
				return
			}
		}
	}
}
