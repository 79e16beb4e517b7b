// Package harness drives the built programs as a person would: real PostgreSQL, a real NATS server, a receiver of
// webhooks, and services that can be killed, frozen and started again. Scenarios read like a script:
//
//	s := harness.New(t, harness.Options{})
//	s.Exec(`INSERT INTO orders …`)
//	s.Start("ingest", "worker", "jobrunner")
//	s.Kill("worker")
//	s.Receiver.WaitFor(3)
package harness

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/internal/pgtest"
	"github.com/tributary-dev/tributary/internal/postgres"
)

// Options of a System; the zero value works.
type Options struct {
	Settings  map[string]string // of postgresql.conf
	Schema    string            // SQL that makes the tables; OrdersTable if empty
	Observers string            // YAML; ${receiver} is the receiver's URL. One webhook for all of public.orders if empty
	Config    string            // YAML of further sections
	Source    string            // YAML of further keys of the source, such as "ops: [insert]"
	Profile   bool              // the NATS server and the services serve profiles
	Cluster   bool              // three NATS servers, nats-1 to nats-3, and three replicas of everything; one server, nats, if not
}

// OrdersTable is the schema that scenarios use unless they bring their own.
const OrdersTable = `CREATE TABLE orders (id bigint PRIMARY KEY, n bigint NOT NULL DEFAULT 0, writer int, status text, note text)`

const webhookForOrders = `
observers:
  - name: orders
    match: {source: shop, entity: public.orders}
    retry: {max_attempts: 20, strategy: exponential, initial: 50ms, max: 2s}
    actions:
      - {name: tell, type: webhook, url: "${receiver}/orders", timeout: 5s}
`

// System is one deployment under test.
type System struct {
	t        testing.TB
	Dir      string
	Postgres *postgres.Server
	DB       *pgxpool.Pool
	Receiver *Receiver
	NATSPort int // of the only NATS server, or of nats-1

	profile   int      // port of the only NATS server's profiles; 0: there are none
	cluster   *cluster // nil with one server
	config    string
	env       map[string]string
	mu        sync.Mutex
	processes map[string]*Process
	js        jetstream.JetStream
	ways      map[string]*Ways // by service
}

// New starts PostgreSQL, a NATS server and a receiver, and writes the configuration. No service runs yet.
func New(t testing.TB, o Options) *System {
	t.Helper()
	if o.Schema == "" {
		o.Schema = OrdersTable
	}
	if o.Observers == "" {
		o.Observers = webhookForOrders
	}
	s := &System{t: t, Dir: t.TempDir(), processes: map[string]*Process{}, Receiver: newReceiver(t), NATSPort: FreePort(t)}
	s.Postgres = pgtest.Server(t, o.Settings)
	pool, err := pgxpool.New(t.Context(), s.Postgres.URL("postgres"))
	if err != nil {
		t.Fatalf("connect to PostgreSQL: %v", err)
	}
	s.DB = pool
	t.Cleanup(pool.Close)
	s.Exec(o.Schema)
	s.write("observers.yaml", strings.ReplaceAll(o.Observers, "${receiver}", s.Receiver.URL))
	servers, replicas := []string{"nats"}, 1
	if o.Profile {
		s.profile = FreePort(t)
		s.Setenv("TRIBUTARY_HTTP_PPROF", "true")
	}
	if o.Cluster {
		s.cluster = newCluster(t, s.NATSPort)
		servers, replicas = s.cluster.names(), len(s.cluster.client)
	}
	s.config = s.write("tributary.yaml", fmt.Sprintf(`nats: {url: %q, replicas: %d}
sources:
  - {name: shop, postgres: env:SHOP_URL, tables: [public.*], %s}
observers: observers.yaml
actions: {allow_private: [127.0.0.0/8]}
http: {listen: 127.0.0.1:0}
%s`, s.natsURL(), replicas, o.Source, o.Config))
	t.Cleanup(s.stopAll)
	s.Start(servers...)
	if s.cluster != nil {
		s.waitForCluster()
	}
	return s
}

// Config is the path of the services' configuration.
func (s *System) Config() string { return s.config }

func (s *System) write(name, text string) string {
	path := filepath.Join(s.Dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// postgresAddress is host and port of the source database.
func (s *System) postgresAddress() string {
	u, err := url.Parse(s.Postgres.URL("postgres"))
	if err != nil {
		s.t.Fatal(err)
	}
	return u.Host
}

// Exec runs SQL on the source database.
func (s *System) Exec(sql string, args ...any) {
	s.t.Helper()
	if _, err := s.DB.Exec(context.Background(), sql, args...); err != nil {
		s.t.Fatalf("%.80s: %v", sql, err)
	}
}

// Setenv sets a variable of the services that are started from now on.
func (s *System) Setenv(name, value string) {
	if s.env == nil {
		s.env = map[string]string{}
	}
	s.env[name] = value
}

// StartWith starts a service with further arguments, and does not mind if it ends at once.
func (s *System) StartWith(name string, args ...string) *Process {
	s.t.Helper()
	p := s.spawn(name, args...)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.processes[name] = p
	return p
}

// Start starts services by name: nats, ingest, worker, jobrunner; ingest-2 is a second ingest.
func (s *System) Start(names ...string) {
	s.t.Helper()
	for _, name := range names {
		s.StartWith(name)
	}
}

func (s *System) spawn(name string, args ...string) *Process {
	s.t.Helper()
	kind, _, _ := strings.Cut(name, "-")
	if kind == "nats" {
		return start(s.t, s.Dir, name, natsServer(s.t), nil, s.natsArgs(name)...)
	}
	env := []string{"SHOP_URL=" + s.Postgres.URL("postgres"), "TRIBUTARY_STATE_DIR=" + filepath.Join(s.Dir, "state", name)}
	for name, value := range s.env {
		env = append(env, name+"="+value)
	}
	env = append(env, s.ways[name].environ(s)...)
	return start(s.t, s.Dir, name, Binary(s.t, kind), env, append([]string{"--config", s.config}, args...)...)
}

// Process gives a service that was started.
func (s *System) Process(name string) *Process {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.processes[name]
	if p == nil {
		s.t.Fatalf("%s was not started", name)
	}
	return p
}

// Kill ends services at once, as a crash would.
func (s *System) Kill(names ...string) {
	s.t.Helper()
	for _, name := range names {
		s.Process(name).Kill()
	}
}

// Stop ends services in order (SIGTERM), and fails the test if their exit status is not 0.
func (s *System) Stop(names ...string) {
	s.t.Helper()
	for _, name := range names {
		if err := s.Process(name).Stop(); err != nil {
			s.t.Errorf("%s ended with %v", name, err)
		}
	}
}

func (s *System) stopAll() {
	for _, p := range s.processes {
		p.Kill()
	}
	if s.t.Failed() {
		for _, p := range s.processes {
			s.t.Logf("--- the last lines of %s:\n%s", p.Name, p.Tail(40))
		}
	}
}

// Eventually waits until is tells true, and fails the test when that takes longer than most.
func Eventually(t testing.TB, most time.Duration, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(most)
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v in vain: %s", most, what)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

var builds sync.Map // name → func() (string, error)

// Binary builds one of the project's programs once, and gives its path.
func Binary(t testing.TB, name string) string {
	return built(t, name, "github.com/tributary-dev/tributary/cmd/"+name)
}

func natsServer(t testing.TB) string {
	return built(t, "nats-server", "github.com/nats-io/nats-server/v2")
}

// Built gives a program built from pkg, once per run; the go command's cache makes it quick.
func built(t testing.TB, name, pkg string) string {
	t.Helper()
	once, _ := builds.LoadOrStore(name, sync.OnceValues(func() (string, error) {
		dir, err := os.MkdirTemp("", "tributary-bin-")
		if err != nil {
			return "", err
		}
		path := filepath.Join(dir, name)
		out, err := exec.Command("go", "build", "-o", path, pkg).CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("build %s: %w\n%s", pkg, err, out)
		}
		return path, nil
	}))
	path, err := once.(func() (string, error))()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// Cleanup removes the programs that were built; for TestMain.
func Cleanup() {
	builds.Range(func(_, once any) bool {
		if path, err := once.(func() (string, error))(); err == nil {
			_ = os.RemoveAll(filepath.Dir(path))
		}
		return true
	})
}
