package app_test

import (
	"bytes"
	"context"
	"encoding/pem"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tributary-dev/tributary/internal/app"
	"github.com/tributary-dev/tributary/internal/natstest"
	"github.com/tributary-dev/tributary/internal/pgtest"
)

func TestMain(m *testing.M) {
	pgtest.Main(m,
		// bleve starts its workers when it is imported, and never ends them.
		goleak.IgnoreTopFunction("github.com/blevesearch/bleve_index_api.AnalysisWorker"),
		// A NATS server that is stopped while its cluster changes leaves some of a stream's behind.
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*fileStore).flushStreamStateLoop"),
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"))
}

// call runs a program until it ends by itself.
func call(t *testing.T, program func(context.Context, app.Program) int, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	status = program(t.Context(), app.Program{Args: args, Environ: []string{"SHOP_URL=postgres://localhost/shop"}, Stdout: &out, Stderr: &errs})
	return status, out.String(), errs.String()
}

// files writes files into a folder, which it gives.
func files(t *testing.T, texts map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range texts {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const smallest = `nats: {url: "nats://127.0.0.1:4222"}
sources:
  - {name: shop, postgres: env:SHOP_URL}
observers: observers.yaml
`

const logAll = `observers:
  - {name: all, actions: [{name: note, type: log, message: seen}]}
`

func TestCheckReadsWhatTheConfigurationNames(t *testing.T) {
	programs := map[string]func(context.Context, app.Program) int{"ingest": app.Ingest, "worker": app.Worker, "jobrunner": app.JobRunner}
	for name, c := range map[string]struct {
		program, config, observers string
		status                     int
		says                       string
	}{
		"ingest":                         {"ingest", smallest, logAll, 0, "ok\n"},
		"worker":                         {"worker", smallest, logAll, 0, "ok\n"},
		"jobrunner":                      {"jobrunner", smallest, logAll, 0, "ok\n"},
		"a secret that is not there":     {"ingest", strings.ReplaceAll(smallest, "SHOP_URL", "STORE_URL"), logAll, 1, "STORE_URL"},
		"a secret that is another's":     {"worker", strings.ReplaceAll(smallest, "SHOP_URL", "STORE_URL"), logAll, 0, "ok\n"},
		"an unknown key":                 {"jobrunner", smallest + "jobz: {}\n", logAll, 1, "jobz"},
		"an observer with a wrong field": {"worker", smallest, strings.ReplaceAll(logAll, "message", "massage"), 1, "observers.yaml:2"},
		"a certificate that is not there": {
			"jobrunner", smallest + "actions: {tls: [{host: a.example, ca: ca.pem}]}\n", logAll, 1, "actions.tls[0].ca: open",
		},
		"a certificate that is not there, for workers": {
			"worker", smallest + "actions: {tls: [{host: a.example, ca: ca.pem}]}\n", logAll, 1, "actions.tls[0].ca: open",
		},
		"certificates that are there": {"worker", smallest + "actions: {tls: [{ca: good.pem}]}\n", logAll, 0, "ok\n"},
	} {
		dir := files(t, map[string]string{"tributary.yaml": c.config, "observers.yaml": c.observers, "good.pem": goodCertificate(t)})
		status, stdout, stderr := call(t, programs[c.program], "--config", filepath.Join(dir, "tributary.yaml"), "--check")
		if said := stdout + stderr; status != c.status || !strings.Contains(said, c.says) {
			t.Errorf("%s: status %d, want %d with %q, got:\n%s", name, status, c.status, c.says, said)
		}
	}
}

func TestReadyAsksTheServiceThatRuns(t *testing.T) {
	server := natstest.Start(t)
	dir := files(t, map[string]string{"tributary.yaml": "nats: {url: \"" + server.URL() + "\"}\n"})
	config := []string{"--config", filepath.Join(dir, "tributary.yaml")}
	ask := func() (int, string) {
		status, stdout, stderr := call(t, app.JobRunner, append(config, "--ready")...)
		return status, stdout + stderr
	}
	if status, said := ask(); status != 1 || !strings.Contains(said, "no jobrunner runs with this configuration") {
		t.Errorf("nothing runs: status %d, %s", status, said)
	}

	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	go func() { ended <- app.JobRunner(ctx, app.Program{Args: config, Stdout: os.Stdout, Stderr: os.Stderr}) }()
	waitFor(t, "ready", func() bool { status, said := ask(); return status == 0 && said == "ready\n" })
	server.Stop()
	waitFor(t, "not ready, since NATS is away", func() bool {
		status, said := ask()
		return status == 1 && strings.Contains(said, "NATS is away")
	})
	cancel()
	if status := <-ended; status != 0 {
		t.Errorf("ended with %d", status)
	}
}

func TestAJobRunnerWaitsForTheObserversToKnowWhoIsPaused(t *testing.T) {
	server := natstest.Start(t)
	dir := files(t, map[string]string{"tributary.yaml": "nats: {url: \"" + server.URL() + "\"}\nobservers: observers.yaml\n"})
	config := []string{"--config", filepath.Join(dir, "tributary.yaml")}
	ask := func() (int, string) {
		status, stdout, stderr := call(t, app.JobRunner, append(config, "--ready")...)
		return status, stdout + stderr
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	go func() { ended <- app.JobRunner(ctx, app.Program{Args: config, Stdout: os.Stdout, Stderr: os.Stderr}) }()
	waitFor(t, "it says what it waits for", func() bool {
		status, said := ask()
		return status == 1 && strings.Contains(said, "no job runs until it can be read which observers are paused")
	})
	text := "observers:\n  - {name: o, paused: true, actions: [{name: a, type: log, message: hello}]}\n"
	if err := os.WriteFile(filepath.Join(dir, "observers.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "ready", func() bool { status, said := ask(); return status == 0 && said == "ready\n" })
	cancel()
	if status := <-ended; status != 0 {
		t.Errorf("ended with %d", status)
	}
}

// goodCertificate is one in PEM.
func goodCertificate(t *testing.T) string {
	t.Helper()
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
}

func waitFor(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute) // a server that lost its cluster leads on for up to 20 s
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
