package telemetry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/tributary-dev/tributary/internal/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// running is a server that runs until the end of the test.
type running struct {
	ready    *telemetry.Ready
	registry *prometheus.Registry
	dir      string
	address  string
	stop     func() error
}

func run(t *testing.T, pprof bool) running {
	t.Helper()
	r := running{
		ready:    telemetry.NewReady(slog.New(slog.DiscardHandler), "nats"),
		registry: telemetry.NewRegistry("worker", "1.2.3"),
		dir:      filepath.Join(t.TempDir(), "state"),
	}
	server, err := telemetry.Listen(telemetry.Options{
		Service: "worker", Listen: "127.0.0.1:0", StateDir: r.dir, PProf: pprof,
		Registry: r.registry, Ready: r.ready, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	r.address = server.Addr()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	r.stop = func() error {
		cancel()
		return <-ended
	}
	return r
}

// get asks over a connection of its own, so that none stays open.
func (r running) get(t *testing.T, path string) (int, string) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get("http://" + r.address + path)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

func TestServerAnswers(t *testing.T) {
	r := run(t, false)
	for path, want := range map[string]struct {
		status int
		text   string
	}{
		"/livez":         {200, "ok"},
		"/metrics":       {200, `tributary_build_info{go=`},
		"/metrics?":      {200, `tributary_ready{condition="nats"} 0`},
		"/metrics?go":    {200, "go_goroutines"},
		"/readyz":        {503, `"why": "not started yet"`},
		"/debug/pprof/":  {404, ""},
		"/":              {404, ""},
		"/metrics/other": {404, ""},
	} {
		if status, text := r.get(t, path); status != want.status || !strings.Contains(text, want.text) {
			t.Errorf("%s: got %d %s, want %d with %s", path, status, text, want.status, want.text)
		}
	}
	if err := r.stop(); err != nil {
		t.Error(err)
	}
}

func TestReadyWhileAllConditionsHold(t *testing.T) {
	r := run(t, false)
	for _, step := range []struct {
		name   string
		ok     bool
		why    string
		status int
	}{
		{"source shop", true, "streaming", 503},
		{"nats", true, "connected", 200},
		{"nats", false, "no answer for 5s", 503},
		{"nats", true, "connected again", 200},
	} {
		r.ready.Set(step.name, step.ok, step.why)
		status, text := r.get(t, "/readyz")
		var answer struct {
			Ready      bool
			Conditions []telemetry.Condition
		}
		if err := json.Unmarshal([]byte(text), &answer); err != nil {
			t.Fatal(err)
		}
		if status != step.status || answer.Ready != (step.status == 200) || len(answer.Conditions) != 2 || !strings.Contains(text, step.why) {
			t.Errorf("after %+v: got %d %s", step, status, text)
		}
	}
	if err := r.stop(); err != nil {
		t.Error(err)
	}
}

func TestReadyWithoutConditionsIsNot(t *testing.T) {
	if _, ready := telemetry.NewReady(slog.New(slog.DiscardHandler)).Conditions(); ready {
		t.Error("ready, with nothing promised")
	}
}

func TestOnlyChangesOfReadinessAreLogged(t *testing.T) {
	var log bytes.Buffer
	ready := telemetry.NewReady(slog.New(slog.NewTextHandler(&log, nil)), "nats")
	for _, why := range []string{"connected", "connected", "connected since 1s"} {
		ready.Set("nats", true, why)
	}
	ready.Set("nats", false, "gone")
	if lines := strings.Count(log.String(), "\n"); lines != 2 {
		t.Errorf("got %d lines, want 2:\n%s", lines, &log)
	}
}

func TestProfilesAreServedWhenAskedFor(t *testing.T) {
	r := run(t, true)
	if status, text := r.get(t, "/debug/pprof/goroutine?debug=1"); status != 200 || !strings.Contains(text, "goroutine profile") {
		t.Errorf("got %d %s", status, text)
	}
	if err := r.stop(); err != nil {
		t.Error(err)
	}
}

func TestAddressFileStandsWhileTheServerRuns(t *testing.T) {
	r := run(t, false)
	r.get(t, "/livez") // once it answers, the file is there
	path := filepath.Join(r.dir, "worker.addr")
	if text, err := os.ReadFile(path); err != nil || string(text) != r.address+"\n" {
		t.Errorf("got %q, %v, want %s", text, err, r.address)
	}
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(r.dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestAddressFileOfAnotherProcessStays(t *testing.T) {
	r := run(t, false)
	r.get(t, "/livez")
	path := filepath.Join(r.dir, "worker.addr")
	if err := os.WriteFile(path, []byte("127.0.0.1:1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}

func TestListenNamesTheKeyOfATakenAddress(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, err = telemetry.Listen(telemetry.Options{
		Listen: taken.Addr().String(), Registry: telemetry.NewRegistry("x", ""), Ready: telemetry.NewReady(slog.New(slog.DiscardHandler)),
	})
	if err == nil || !strings.Contains(err.Error(), "http.listen") {
		t.Errorf("got %v", err)
	}
}

func TestRegisterTakesEveryCollectorOfAStruct(t *testing.T) {
	type metrics struct {
		Done    prometheus.Counter
		Waiting *prometheus.GaugeVec
		Note    string
	}
	registry := prometheus.NewRegistry()
	m := &metrics{
		Done:    prometheus.NewCounter(prometheus.CounterOpts{Name: "done"}),
		Waiting: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "waiting"}, []string{"queue"}),
	}
	m.Waiting.WithLabelValues("a").Set(1)
	if err := telemetry.Register(registry, m); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil || len(families) != 2 {
		t.Errorf("got %v, %v, want two metrics", families, err)
	}
	for name, bad := range map[string]any{"twice": m, "a nil collector": &metrics{}, "no struct": 5} {
		if err := telemetry.Register(registry, bad); err == nil {
			t.Errorf("%s: registered", name)
		}
	}
}

func TestLoggerWritesInItsFormatFromItsLevel(t *testing.T) {
	for name, c := range map[string]struct{ level, format, want string }{
		"text":           {"info", "text", "level=INFO msg=seen source=shop\n"},
		"JSON":           {"debug", "json", `"msg":"seen","source":"shop"}` + "\n"},
		"a higher level": {"warn", "text", ""},
	} {
		var out bytes.Buffer
		log, err := telemetry.NewLogger(&out, c.level, c.format)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		log.Info("seen", "source", "shop")
		if !strings.HasSuffix(out.String(), c.want) || (c.want == "") != (out.Len() == 0) {
			t.Errorf("%s: got %q, want %q", name, out.String(), c.want)
		}
	}
	for _, wrong := range [][2]string{{"loud", "text"}, {"info", "xml"}} {
		if _, err := telemetry.NewLogger(io.Discard, wrong[0], wrong[1]); err == nil || !strings.HasPrefix(err.Error(), "log.") {
			t.Errorf("%v: got %v", wrong, err)
		}
	}
}
