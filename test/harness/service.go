package harness

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/pkg/deadletter"
	"github.com/tributary-dev/tributary/pkg/events"
)

// Address is where a service serves metrics and health; empty while it does not.
func (s *System) Address(name string) string {
	kind, _, _ := strings.Cut(name, "-")
	data, err := os.ReadFile(filepath.Join(s.Dir, "state", name, kind+".addr"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// Get asks a service by HTTP; an empty body and 0 while it does not answer.
func (s *System) Get(name, path string) (status int, body string) {
	address := s.Address(name)
	if address == "" {
		return 0, ""
	}
	client := http.Client{Timeout: 2 * time.Second}
	request, err := http.NewRequest(http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		return 0, ""
	}
	request.Header.Set("Accept-Encoding", "identity") // benches ask often: to compress would count as the service's work
	answer, err := client.Do(request)
	if err != nil {
		return 0, ""
	}
	defer func() { _ = answer.Body.Close() }()
	data, err := io.ReadAll(answer.Body)
	if err != nil {
		return 0, ""
	}
	return answer.StatusCode, string(data)
}

// Metric sums a metric of a service over its labels.
func (s *System) Metric(name, metric string) float64 { return s.MetricOf(name, metric, "") }

// MetricOf sums a metric of a service over those labels that contain label, as in source="shop".
func (s *System) MetricOf(name, metric, label string) float64 {
	_, body := s.Get(name, "/metrics")
	sum := 0.0
	lines := bufio.NewScanner(strings.NewReader(body))
	for lines.Scan() {
		line := lines.Text()
		rest, found := strings.CutPrefix(line, metric)
		if !found || rest == "" || rest[0] != '{' && rest[0] != ' ' || !strings.Contains(rest, label) {
			continue
		}
		value, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
		if err == nil {
			sum += value
		}
	}
	return sum
}

// WaitForLeader waits until an ingest reads the changes of shop.
func (s *System) WaitForLeader() {
	s.t.Helper()
	Eventually(s.t, 30*time.Second, "ingest reads the changes", func() bool {
		var active bool
		err := s.DB.QueryRow(context.Background(), `SELECT coalesce(bool_or(active), false) FROM pg_replication_slots WHERE slot_name = 'tributary_shop'`).Scan(&active)
		position, ok := s.position()
		return err == nil && active && ok && strings.Contains(position, `"streaming"`)
	})
}

func (s *System) position() (string, bool) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	stream, err := s.shared().Stream(ctx, events.StreamEvents)
	if err != nil {
		return "", false
	}
	msg, err := stream.GetLastMsgForSubject(ctx, events.PositionSubject("shop"))
	if err != nil {
		return "", false
	}
	return string(msg.Data), true
}

// CountDeadLetters is how many dead letters there are.
func (s *System) CountDeadLetters() int { return int(s.streamState(events.StreamDeadLetters).Msgs) }

// DeadLetters reads all dead letters.
func (s *System) DeadLetters() []deadletter.Record {
	s.t.Helper()
	entries, err := deadletter.List(context.Background(), s.shared(), 0, 1000)
	if err != nil {
		s.t.Fatalf("read the dead letters: %v", err)
	}
	var records []deadletter.Record
	for _, e := range entries {
		records = append(records, e.Record)
	}
	return records
}

func (s *System) streamState(name string) jetstream.StreamState {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	stream, err := s.shared().Stream(ctx, name)
	if err != nil {
		return jetstream.StreamState{}
	}
	return stream.CachedInfo().State
}

// Settle waits until EVENTS has not changed for two seconds: time enough for whoever would still write.
func (s *System) Settle() {
	s.t.Helper()
	last, since := s.streamState(events.StreamEvents).LastSeq, time.Now()
	Eventually(s.t, time.Minute, "EVENTS rests", func() bool {
		now := s.streamState(events.StreamEvents).LastSeq
		if now != last {
			last, since = now, time.Now()
		}
		return time.Since(since) > 2*time.Second
	})
}

// Concurrency is how many effects a worker or jobrunner of the system runs at the same time: its default.
const Concurrency = 64

// WaitForDone waits until so many effects are done or dead: a change whose effect was interrupted three times, by three
// kills, is a dead letter.
func (s *System) WaitForDone(n int, most time.Duration) {
	s.t.Helper()
	Eventually(s.t, most, "every effect is done or dead", func() bool { return s.Receiver.Done()+s.CountDeadLetters() >= n })
}

// DropSlot drops the slot of shop, once the server has noticed that nobody reads it any more.
func (s *System) DropSlot() {
	s.t.Helper()
	Eventually(s.t, 10*time.Second, "the slot is dropped", func() bool {
		tag, err := s.DB.Exec(context.Background(), `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = 'tributary_shop' AND NOT active`)
		return err == nil && tag.RowsAffected() == 1
	})
}
