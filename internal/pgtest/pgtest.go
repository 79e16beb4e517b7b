// Package pgtest gives tests a PostgreSQL database of their own.
//
// The databases lie on one server per test binary, which is started at the first call, is ready for logical replication, does
// not sync, and ends with the binary, however that ends. Where the variable DATABASE_URL names a server, that one is used
// instead. A package that calls Database has
//
//	func TestMain(m *testing.M) { pgtest.Main(m) }
package pgtest

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/tributary-dev/tributary/internal/postgres"
)

// patience bounds each thing that is asked of a server; the first start on a machine may have to fetch PostgreSQL.
const patience = 2 * time.Minute

// shared is the server of this test binary.
var shared struct {
	once   sync.Once
	server *postgres.Server
	dir    string
	url    string // of the database "postgres", or that of DATABASE_URL
	err    error
}

// Main runs the tests of a package, ends the shared server, and fails if goroutines are left. It does not return.
func Main(m *testing.M, options ...goleak.Option) {
	goleak.VerifyTestMain(run(func() int {
		defer stopShared()
		return m.Run()
	}), options...)
}

type run func() int

func (r run) Run() int { return r() }

// Database makes an empty database, which is dropped at the end of the test, its replication slots first, and gives its URL.
func Database(t testing.TB) string {
	t.Helper()
	shared.once.Do(startShared)
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return DatabaseOn(t, shared.url)
}

// DatabaseOn is Database on the server at address.
func DatabaseOn(t testing.TB, address string) string {
	t.Helper()
	own, err := url.Parse(address)
	if err != nil {
		t.Fatalf("DATABASE_URL is no URL: %v", err)
	}
	name := "test_" + strings.ToLower(rand.Text()[:12])
	if err := execute(address, "CREATE DATABASE "+name); err != nil {
		t.Fatalf("make database %s: %v", name, err)
	}
	t.Cleanup(func() {
		if err := drop(address, name); err != nil {
			t.Errorf("drop database %s: %v", name, err)
		}
	})
	own.Path = "/" + name
	return own.String()
}

// Server starts a server for this test alone, to stop, kill and resume; settings are of postgresql.conf. The server of
// DATABASE_URL is never taken for it.
func Server(t testing.TB, settings map[string]string) *postgres.Server {
	t.Helper()
	return start(t, filepath.Join(t.TempDir(), "data"), settings)
}

// start starts a server on a data directory until the test's end.
func start(t testing.TB, dir string, settings map[string]string) *postgres.Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	server, err := postgres.Start(ctx, postgres.Options{Dir: dir, Settings: settings, NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := server.Kill(ctx); err != nil {
			t.Errorf("end PostgreSQL: %v", err)
		}
	})
	return server
}

// Exec gives what runs SQL over one connection, which lasts until the test's end.
func Exec(t testing.TB, url string) func(sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return func(sql string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
}

func startShared() {
	if shared.url = os.Getenv("DATABASE_URL"); shared.url != "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	sweep()
	if shared.dir, shared.err = claimDir(); shared.err != nil {
		return
	}
	shared.server, shared.err = postgres.Start(ctx, postgres.Options{Dir: filepath.Join(shared.dir, "data"), NoSync: true})
	if shared.err == nil {
		shared.url = shared.server.URL("postgres")
	}
}

func stopShared() {
	if shared.server != nil {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		// Nobody will read the data again, so it may end as in a crash.
		if err := shared.server.Kill(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "end PostgreSQL:", err)
		}
	}
	if shared.dir != "" {
		if err := os.RemoveAll(shared.dir); err != nil {
			fmt.Fprintln(os.Stderr, "remove the data of PostgreSQL:", err)
		}
	}
}

// drop removes a database that may still be in use: the readers of its slots are ended, and the slots go first.
func drop(address, name string) error {
	const freeSlots = `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE database = $1 AND active_pid IS NOT NULL`
	const dropSlots = `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = $1 AND NOT active`
	const slotsLeft = `SELECT count(*) FROM pg_replication_slots WHERE database = $1`
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, address)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for left := 1; left > 0; {
		for _, statement := range []string{freeSlots, dropSlots} {
			if _, err := conn.Exec(ctx, statement, name); err != nil {
				return err
			}
		}
		if err := conn.QueryRow(ctx, slotsLeft, name).Scan(&left); err != nil {
			return err
		}
		if left > 0 {
			<-tick.C // a reader that was ended leaves its slot a moment later
		}
	}
	_, err = conn.Exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)")
	return err
}

func execute(address, statement string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, address)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, statement)
	return err
}
