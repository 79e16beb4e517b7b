package app_test

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tributary-dev/tributary/internal/app"
	"github.com/tributary-dev/tributary/internal/natstest"
	"github.com/tributary-dev/tributary/internal/pgtest"
	"github.com/tributary-dev/tributary/internal/telemetry"
	"github.com/tributary-dev/tributary/pkg/events"
)

// running is a service that runs in this process until the end of the test.
type running struct {
	t       *testing.T
	address string // the file
}

// run starts a program with a configuration and the observers logAll.
func run(t *testing.T, name string, program func(context.Context, app.Program) int, config string, environ ...string) running {
	t.Helper()
	dir := files(t, map[string]string{"tributary.yaml": config, "observers.yaml": logAll})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	go func() {
		ended <- program(ctx, app.Program{
			Args: []string{"--config", filepath.Join(dir, "tributary.yaml")}, Environ: environ, Stdout: t.Output(), Stderr: t.Output(),
		})
	}()
	t.Cleanup(func() {
		cancel()
		if status := <-ended; status != 0 {
			t.Errorf("%s ended with status %d", name, status)
		}
	})
	return running{t: t, address: filepath.Join(dir, ".tributary", name+".addr")}
}

// waitUntil waits until the service is ready, or is not, and a condition says so in these words.
func (r running) waitUntil(ready bool, condition, why string) {
	r.t.Helper()
	var last telemetry.Readiness
	waitFor(r.t, condition+": "+why, func() bool {
		last = r.readiness()
		for _, c := range last.Conditions {
			if last.Ready == ready && c.OK == ready && c.Name == condition && strings.Contains(c.Why, why) {
				return true
			}
		}
		return false
	})
}

func (r running) readiness() telemetry.Readiness {
	address, err := os.ReadFile(r.address)
	if err != nil {
		return telemetry.Readiness{}
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Get("http://" + strings.TrimSpace(string(address)) + "/readyz")
	if err != nil {
		return telemetry.Readiness{}
	}
	defer func() { _ = answer.Body.Close() }()
	var readiness telemetry.Readiness
	if err := json.NewDecoder(answer.Body).Decode(&readiness); err != nil {
		r.t.Fatal(err)
	}
	if ok := answer.StatusCode == http.StatusOK; ok != readiness.Ready {
		r.t.Errorf("status %d, and ready is %v", answer.StatusCode, readiness.Ready)
	}
	return readiness
}

func configFor(server *natstest.Server) string {
	return strings.ReplaceAll(smallest, "nats://127.0.0.1:4222", server.URL())
}

func TestIngestIsReadyWhileItReadsOrStandsBy(t *testing.T) {
	server := natstest.Start(t)
	database := pgtest.Server(t, nil)
	environ := "SHOP_URL=" + database.URL("postgres")
	first := run(t, "ingest", app.Ingest, configFor(server), environ)
	first.waitUntil(true, "source shop", "leads")
	first.waitUntil(true, "source INBOX", "leads")
	second := run(t, "ingest", app.Ingest, configFor(server), environ)
	second.waitUntil(true, "source shop", "stands by")

	if err := database.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	first.waitUntil(false, "source shop", "reading stopped")
	second.waitUntil(false, "source shop", "reading stopped")
	if err := database.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "one of them leads again", func() bool { return first.readiness().Ready || second.readiness().Ready })

	server.Stop()
	first.waitUntil(false, "nats", "NATS is away")
	second.waitUntil(false, "nats", "NATS is away")
	server.Restart(t)
	first.waitUntil(true, "nats", "events are stored")
}

func TestIngestIsNotReadyWhileEventsTakesNothing(t *testing.T) {
	server := natstest.Start(t)
	ingest := run(t, "ingest", app.Ingest, configFor(server), "SHOP_URL="+pgtest.Database(t))
	ingest.waitUntil(true, "source INBOX", "leads")
	js := server.JetStream(t)
	stream, err := js.Stream(t.Context(), events.StreamEvents)
	if err != nil {
		t.Fatal(err)
	}
	config := stream.CachedInfo().Config
	config.MaxBytes = int64(stream.CachedInfo().State.Bytes)
	if _, err := js.UpdateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "publish.web.order.placed", []byte(`{}`)); err != nil {
		t.Fatal(err)
	}
	ingest.waitUntil(false, "source INBOX", "EVENTS has taken nothing")
	config.MaxBytes = 1 << 30
	if _, err := js.UpdateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	ingest.waitUntil(true, "source INBOX", "leads")
}

func TestWorkerIsReadyWhileItHoldsOrSharesPartitions(t *testing.T) {
	server := natstest.Start(t)
	first := run(t, "worker", app.Worker, configFor(server))
	first.waitUntil(true, "partitions", "holds 16 partitions")
	second := run(t, "worker", app.Worker, configFor(server))
	second.waitUntil(true, "partitions", "holds")
	server.Stop()
	first.waitUntil(false, "nats", "NATS is away")
	first.waitUntil(false, "partitions", "waits for")
	server.Restart(t)
	first.waitUntil(true, "partitions", "holds")
	second.waitUntil(true, "partitions", "holds")
}

func TestServiceIsNotReadyWhileTheStreamHasNoLeader(t *testing.T) {
	servers := natstest.Cluster(t, 3)
	jobs := run(t, "jobrunner", app.JobRunner, "nats: {url: \""+servers.URL()+"\", replicas: 3}\n")
	jobs.waitUntil(true, "nats", "jobs run")
	stream, err := servers.JetStream(t).Stream(t.Context(), events.StreamEvents)
	if err != nil {
		t.Fatal(err)
	}
	// The leader goes, and one more, so that nobody can follow it: servers are called n1, n2 and n3.
	leader := int(stream.CachedInfo().Cluster.Leader[1] - '1')
	gone := []*natstest.Server{servers[leader], servers[(leader+1)%3]}
	for _, server := range gone {
		server.Stop()
	}
	jobs.waitUntil(false, "nats", "EVENTS does not answer")
	for _, server := range gone {
		server.Restart(t)
	}
	jobs.waitUntil(true, "nats", "jobs run")
}
