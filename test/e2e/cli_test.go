package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/internal/stall"
	"github.com/tributary-dev/tributary/test/harness"
)

// ran is how a call of the command ended.
type ran struct {
	stdout, stderr string
	status         int
}

// tributary calls the built command with the system's configuration.
func tributary(t *testing.T, s *harness.System, args ...string) ran {
	t.Helper()
	command := exec.Command(harness.Binary(t, "tributary"), append([]string{"--config", s.Config()}, args...)...)
	command.Env = append(os.Environ(), "SHOP_URL="+s.Postgres.URL("postgres"))
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	err := command.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return ran{stdout.String(), stderr.String(), command.ProcessState.ExitCode()}
}

// read calls the command with -o json, and decodes what it prints.
func read(t *testing.T, s *harness.System, into any, args ...string) {
	t.Helper()
	r := tributary(t, s, append(args, "-o", "json")...)
	if r.status != 0 {
		t.Fatalf("tributary %s: status %d: %s", strings.Join(args, " "), r.status, r.stderr)
	}
	if err := json.Unmarshal([]byte(r.stdout), into); err != nil {
		t.Fatalf("tributary %s: %v: %s", strings.Join(args, " "), err, r.stdout)
	}
}

// overview is what scenarios read of the status.
type overview struct {
	Sources []struct {
		Name, Leader, Phase string
		Lag                 struct{ Bytes *int64 }
		Database            struct {
			Active   bool  `json:"slot_active"`
			Retained int64 `json:"retained_bytes"`
			Safe     int64 `json:"safe_bytes"`
		}
		Session struct {
			Heartbeat   float64 `json:"heartbeat_seconds"`
			Unpublished int     `json:"unpublished_events"`
			InFlight    int     `json:"in_flight_events"`
		}
	}
	Workers struct {
		Members []struct{ Partitions []int }
		Pending uint64
	}
	Jobs        struct{ States map[string]int }
	DeadLetters struct{ Total int } `json:"dead_letters"`
}

type letter struct {
	Sequence  uint64
	EffectKey string `json:"effect_key"`
	EventID   string `json:"event_id"`
	Action    string
}

const goodAndBad = `
observers:
  - name: orders
    match: {source: shop, entity: public.orders}
    retry: {max_attempts: 2, initial: 20ms, max: 50ms}
    actions:
      - {name: good, type: webhook, url: "${receiver}/good", timeout: 5s}
      - {name: bad, type: webhook, url: "${receiver}/bad", timeout: 5s}
`

func TestAnOperatorMendsAFailingEndpoint(t *testing.T) {
	s := harness.New(t, harness.Options{Observers: goodAndBad})
	var mended atomic.Bool
	s.Receiver.Answer(func(r *http.Request) int {
		if r.URL.Path == "/bad" && !mended.Load() {
			return http.StatusServiceUnavailable
		}
		return http.StatusOK
	})
	s.Start("ingest", "worker", "jobrunner")
	s.WaitForLeader()

	// Idle: all is well, and nothing is there.
	var idle overview
	harness.Eventually(t, 30*time.Second, "the worker has all partitions", func() bool {
		idle = overview{}
		read(t, s, &idle, "status")
		return len(idle.Workers.Members) == 1 && len(idle.Workers.Members[0].Partitions) == 16
	})
	if shop := idle.Sources[0]; shop.Name != "shop" || shop.Leader == "" || shop.Phase != "streaming" || shop.Lag.Bytes == nil || !shop.Database.Active {
		t.Errorf("idle, the source is %+v", shop)
	}
	if idle.DeadLetters.Total != 0 || idle.Jobs.States["dead"] != 0 {
		t.Errorf("idle: %+v", idle)
	}
	if r := tributary(t, s, "doctor"); r.status != 0 {
		t.Errorf("idle, doctor ends with %d:\n%s%s", r.status, r.stdout, r.stderr)
	}

	// The endpoint fails.
	const orders = 5
	s.Exec(`INSERT INTO orders (id) SELECT generate_series(1, 5)`)
	harness.Eventually(t, 30*time.Second, "each order is a dead letter", func() bool {
		busy := overview{}
		read(t, s, &busy, "status")
		return busy.DeadLetters.Total == orders && busy.Jobs.States["dead"] == orders && busy.Workers.Pending == 0
	})
	var letters []letter
	read(t, s, &letters, "dlq", "list")
	if len(letters) != orders || letters[0].Action != "bad" {
		t.Fatalf("the dead letters are %+v", letters)
	}
	harness.Eventually(t, 10*time.Second, "the event is explained", func() bool { // traces come behind
		explained := tributary(t, s, "events", "explain", letters[0].EventID)
		return strings.Contains(explained.stdout, "good: done by") && strings.Contains(explained.stdout, "bad: dead letter")
	})
	before := len(s.Receiver.Deliveries())
	if r := tributary(t, s, "dlq", "retry-all", "--dry-run"); r.status != 0 || !strings.Contains(r.stdout, "5  would be queued") {
		t.Errorf("the dry run ends with %d: %s", r.status, r.stdout)
	}
	if after := len(s.Receiver.Deliveries()); after != before || s.CountDeadLetters() != orders {
		t.Errorf("the dry run sent %d requests and left %d dead letters", after-before, s.CountDeadLetters())
	}

	// It is mended, and several people retry the same dead letter at once.
	mended.Store(true)
	first := letters[0]
	var asking sync.WaitGroup
	var queued atomic.Int32
	for range 4 {
		asking.Go(func() {
			if r := tributary(t, s, "dlq", "retry", first.EffectKey); strings.Contains(r.stdout, ": queued") {
				queued.Add(1)
			}
		})
	}
	asking.Wait()
	if queued.Load() != 1 {
		t.Errorf("%d of 4 were told that it is queued", queued.Load())
	}
	harness.Eventually(t, 30*time.Second, "its dead letter is gone", func() bool { return s.CountDeadLetters() == orders-1 })
	if r := tributary(t, s, "dlq", "retry-all"); r.status != 0 || !strings.Contains(r.stdout, "4  queued") {
		t.Errorf("retry-all ends with %d: %s%s", r.status, r.stdout, r.stderr)
	}
	harness.Eventually(t, 30*time.Second, "all dead letters are gone", func() bool { return s.CountDeadLetters() == 0 })
	s.Receiver.WaitFor(2*orders, 10*time.Second)
	if effects, more := s.Receiver.Repeated(); effects > 0 {
		t.Errorf("%d effects were done %d times more than once", effects, more)
	}
	var done overview
	read(t, s, &done, "status")
	if done.Jobs.States["done"] != orders || done.Jobs.States["dead"] != 0 {
		t.Errorf("mended, the jobs are %v", done.Jobs.States)
	}

	// Without NATS it says so, soon.
	s.Kill("nats")
	begun := stall.Begin(t)
	r := tributary(t, s, "status")
	begun.Within(6*time.Second, "status without NATS")
	if r.status != 1 || !strings.Contains(r.stderr, "nats.url") {
		t.Errorf("without NATS status ends with %d: %s", r.status, r.stderr)
	}
	if r := tributary(t, s, "doctor"); r.status != 1 || !strings.Contains(r.stdout, "fail  nats, connection") {
		t.Errorf("without NATS doctor ends with %d: %s", r.status, r.stdout)
	}
	if r := tributary(t, s, "dlq", "explode"); r.status != 2 || !strings.Contains(r.stderr, "--help") {
		t.Errorf("wrong use ends with %d: %s", r.status, r.stderr)
	}
}

func TestAppliedObserversAreFollowed(t *testing.T) {
	s := harness.New(t, harness.Options{})
	config, err := os.ReadFile(s.Config())
	if err != nil {
		t.Fatal(err)
	}
	const key = "observers: observers.yaml\n"
	if !strings.Contains(string(config), key) {
		t.Fatalf("the configuration does not name its observers:\n%s", config)
	}
	if err := os.WriteFile(s.Config(), []byte(strings.Replace(string(config), key, "", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Start("ingest", "worker", "worker-2", "jobrunner")
	s.WaitForLeader()
	apply := func(path string) {
		t.Helper()
		file := filepath.Join(s.Dir, "applied.yaml")
		text := "observers: [{name: orders, match: {entity: public.orders}, actions: [{name: tell, type: webhook, url: '" + s.Receiver.URL + path + "'}]}]"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if r := tributary(t, s, "observers", "apply", file); r.status != 0 || !strings.Contains(r.stdout, "is in force, number") {
			t.Fatalf("apply ends with %d: %s%s", r.status, r.stdout, r.stderr)
		}
	}
	came := func(path string) (n int) {
		for _, d := range s.Receiver.Deliveries() {
			if d.Path == path {
				n++
			}
		}
		return n
	}
	for i, path := range []string{"/first", "/second"} {
		apply(path)
		harness.Eventually(t, 20*time.Second, "both workers follow", func() bool {
			followed := func(name string) int { return strings.Count(s.Process(name).Log(), "observers are in force") }
			return followed("worker") == i+1 && followed("worker-2") == i+1
		})
		s.Exec(`INSERT INTO orders (id) SELECT generate_series($1::int, $1::int + 19)`, 1+100*i)
		s.Receiver.WaitFor(20*(i+1), 30*time.Second)
		if got := came(path); got != 20 {
			t.Errorf("%d of 20 came to %s", got, path)
		}
	}
	if effects, more := s.Receiver.Repeated(); effects > 0 || came("/first") != 20 {
		t.Errorf("%d effects were done %d times more than once, %d came to the first path", effects, more, came("/first"))
	}
	var listed struct{ Observers []struct{ Name string } }
	read(t, s, &listed, "observers", "list")
	if len(listed.Observers) != 1 || listed.Observers[0].Name != "orders" {
		t.Errorf("in force are %+v", listed)
	}
}
