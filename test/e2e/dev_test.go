package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/internal/pgtest"
	"github.com/tributary-dev/tributary/internal/stall"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/test/harness"
)

// dev is one run of tributary dev, with a temporary folder of its own for all that is temporary.
type dev struct {
	*harness.Process
	t   *testing.T
	tmp string
}

func startDev(t *testing.T, args ...string) dev {
	t.Helper()
	tmp := t.TempDir()
	args = append([]string{"dev", "--nats-port", "0"}, args...)
	return dev{harness.Run(t, "tributary", []string{"TMPDIR=" + tmp}, args...), t, tmp}
}

var addresses = regexp.MustCompile(`(?:nats|postgres)://\S+`)

// address waits until the run says where something is: nats or postgres.
func (d dev) address(scheme string) string {
	d.t.Helper()
	found := ""
	harness.Eventually(d.t, time.Minute, "dev says where "+scheme+" is", func() bool {
		for _, address := range addresses.FindAllString(d.Log(), -1) {
			if strings.HasPrefix(address, scheme+":") {
				found = address
			}
		}
		return found != "" || !d.Running()
	})
	if found == "" {
		d.t.Fatal("dev has ended")
	}
	return found
}

// exec runs SQL on a database.
func execute(t *testing.T, url, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

// count asks a database for a number.
func count(t *testing.T, url, sql string) (n int) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if err := conn.QueryRow(t.Context(), sql).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// stored waits until EVENTS holds n events of the source dev.
func (d dev) stored(n int) {
	d.t.Helper()
	nc, err := nats.Connect(d.address("nats"))
	if err != nil {
		d.t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		d.t.Fatal(err)
	}
	last := 0
	harness.Eventually(d.t, time.Minute, fmt.Sprintf("EVENTS holds %d events", n), func() bool {
		stream, err := js.Stream(d.t.Context(), events.StreamEvents)
		if err != nil {
			return false
		}
		info, err := stream.Info(d.t.Context(), jetstream.WithSubjectFilter(events.EventsOfSource("dev")))
		if err != nil {
			return false
		}
		last = 0
		for _, messages := range info.State.Subjects {
			last += int(messages)
		}
		return last >= n
	})
	if last != n {
		d.t.Errorf("EVENTS holds %d events, want %d", last, n)
	}
}

// end ends the run with a signal, and fails the test unless all is gone with it.
func (d dev) end(signal os.Signal) {
	d.t.Helper()
	d.Signal(signal)
	if status := d.ExitCode(20 * time.Second); status != 0 {
		d.t.Errorf("%v: exit status %d", signal, status)
	}
	left, err := os.ReadDir(d.tmp)
	if err != nil {
		d.t.Fatal(err)
	}
	for _, entry := range left {
		d.t.Errorf("%s is left in the temporary folder", entry.Name())
	}
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		d.t.Fatal(err)
	}
	for _, path := range commands {
		if text, err := os.ReadFile(path); err == nil && strings.Contains(string(text), d.tmp) {
			d.t.Errorf("a process is left: %q", text)
		}
	}
}

// This runs as whoever runs the tests: where that is root, PostgreSQL would refuse to start.
func TestDevEndsInOrderAndLeavesNothing(t *testing.T) {
	for name, signal := range map[string]os.Signal{"by SIGINT": syscall.SIGINT, "by SIGTERM": syscall.SIGTERM} {
		t.Run(name, func(t *testing.T) {
			d := startDev(t)
			database := d.address("postgres")
			execute(t, database, `CREATE TABLE orders (id bigint PRIMARY KEY); INSERT INTO orders SELECT generate_series(1, 10)`)
			d.stored(10)
			d.end(signal)
		})
	}
}

func TestDevEndsInOrderWhileItStarts(t *testing.T) {
	d := startDev(t)
	harness.Eventually(t, time.Minute, "it has begun", func() bool {
		left, err := os.ReadDir(d.tmp)
		return err == nil && len(left) > 0
	})
	d.end(syscall.SIGINT)
}

func TestDevGoesOnInTheSameFolder(t *testing.T) {
	dir := t.TempDir()
	rules := filepath.Join(t.TempDir(), "observers.yaml")
	if err := os.WriteFile(rules, []byte("observers:\n  - {name: all, actions: [{name: note, type: log, message: \"order ${key.id}\"}]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	first := startDev(t, "--dir", dir, "--observers", rules)
	execute(t, first.address("postgres"), `CREATE TABLE orders (id bigint PRIMARY KEY); INSERT INTO orders SELECT generate_series(1, 10)`)
	effects := func(d dev) int { return strings.Count(d.Log(), `msg="order `) }
	first.stored(10)
	harness.Eventually(t, time.Minute, "the rows have their effects", func() bool { return effects(first) == 10 })
	first.end(syscall.SIGTERM)

	second := startDev(t, "--dir", dir, "--observers", rules)
	execute(t, second.address("postgres"), `INSERT INTO orders SELECT generate_series(11, 15)`)
	second.stored(15)
	harness.Eventually(t, time.Minute, "the new rows have their effects", func() bool { return effects(second) >= 5 })
	second.end(syscall.SIGTERM)
	if n := effects(second); n != 5 {
		t.Errorf("the second run had %d effects, want 5: those of the first are done", n)
	}
}

func TestDevLeavesNoSlotInAnotherDatabase(t *testing.T) {
	url := pgtest.Server(t, nil).URL("postgres")
	execute(t, url, `CREATE TABLE orders (id bigint PRIMARY KEY); INSERT INTO orders SELECT generate_series(1, 10)`)
	d := startDev(t, "--postgres", url)
	d.stored(10)
	d.end(syscall.SIGINT)
	if n := count(t, url, `SELECT count(*) FROM pg_replication_slots WHERE database = current_database()`); n != 0 {
		t.Errorf("%d slots are left", n)
	}
	if n := count(t, url, `SELECT count(*) FROM pg_publication`); n != 0 {
		t.Errorf("%d publications are left", n)
	}
	if n := count(t, url, `SELECT count(*) FROM pg_namespace WHERE nspname NOT LIKE 'pg\_%' AND nspname NOT IN ('public', 'information_schema')`); n != 0 {
		t.Errorf("%d schemas are left", n)
	}
}

func TestDevSaysThatThePortIsTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	d := startDev(t, "--nats-port", fmt.Sprint(taken.Addr().(*net.TCPAddr).Port))
	if status := d.ExitCode(20 * time.Second); status != 1 {
		t.Errorf("exit status %d, want 1", status)
	}
	if said := d.Log(); !strings.Contains(said, "the port is taken") || !strings.Contains(said, "--nats-port") || strings.Count(said, "\n") != 1 {
		t.Errorf("it said:\n%s", said)
	}
}

func TestDemoShowsAllThatThereIs(t *testing.T) {
	started := stall.Begin(t)
	d := startDev(t, "--demo")
	for _, line := range []string{
		"the first webhooks are delivered", "the carrier has turned an order away", "the carrier has taken at the next attempt",
		"its order is a dead letter", "can be searched",
	} {
		harness.Eventually(t, time.Minute, line, func() bool { return strings.Contains(d.Log(), line) })
	}
	started.Within(10*time.Second, "all of it was seen")
	address := d.address("nats")
	commands := regexp.MustCompile(`(?m)^  [a-z ]+ {2,}.* {2,}\S*tributary (\S+(?: \S+)*)$`).FindAllStringSubmatch(d.Log(), -1)
	if len(commands) < 6 {
		t.Errorf("these commands are named: %q", commands)
	}
	for _, command := range commands[max(0, len(commands)-6):] {
		p := harness.Run(t, "tributary", nil, append(strings.Fields(command[1]), "--nats.url", address)...)
		if status := p.ExitCode(20 * time.Second); status != 0 {
			t.Errorf("tributary %s: exit status %d:\n%s", command[1], status, p.Log())
		}
	}
	d.end(syscall.SIGINT)
	if said := d.Log(); !regexp.MustCompile(`In \d+ s, \d+ changed rows became \d+ events and \d+ webhooks`).MatchString(said) {
		t.Errorf("it does not sum up:\n%s", said)
	}
}

func TestDemoLeavesAnEmptyDatabaseEmpty(t *testing.T) {
	url := pgtest.Server(t, nil).URL("postgres")
	d := startDev(t, "--demo", "--postgres", url)
	harness.Eventually(t, time.Minute, "a webhook is delivered", func() bool { return strings.Contains(d.Log(), "the first webhooks are delivered") })
	d.end(syscall.SIGINT)
	for what, sql := range map[string]string{
		"tables":       `SELECT count(*) FROM pg_tables WHERE schemaname = 'public'`,
		"publications": `SELECT count(*) FROM pg_publication`,
		"slots":        `SELECT count(*) FROM pg_replication_slots WHERE database = current_database()`,
	} {
		if n := count(t, url, sql); n != 0 {
			t.Errorf("%d %s are left", n, what)
		}
	}
}

func TestDemoRefusesWhatIsNotItsOwn(t *testing.T) {
	url := pgtest.Server(t, nil).URL("postgres")
	execute(t, url, `CREATE SCHEMA accounting; CREATE TABLE accounting.bills (id bigint PRIMARY KEY)`)
	for name, c := range map[string]struct {
		args   []string
		status int
		says   string
	}{
		"a database with tables": {[]string{"--postgres", url}, 1, "the database has tables in it, such as accounting.bills"},
		"a folder to keep":       {[]string{"--dir", t.TempDir()}, 2, "leave out --dir"},
		"rules":                  {[]string{"--observers", "observers.yaml"}, 2, "leave out --dir"},
	} {
		d := startDev(t, append([]string{"--demo"}, c.args...)...)
		if status := d.ExitCode(20 * time.Second); status != c.status || !strings.Contains(d.Log(), c.says) {
			t.Errorf("%s: exit status %d, want %d with %q:\n%s", name, status, c.status, c.says, d.Log())
		}
	}
	if n := count(t, url, `SELECT count(*) FROM pg_replication_slots WHERE database = current_database()`); n != 0 {
		t.Errorf("%d slots are left in the database that was refused", n)
	}
}
