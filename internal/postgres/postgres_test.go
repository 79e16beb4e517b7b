package postgres_test

import (
	"bufio"
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/tributary-dev/tributary/internal/postgres"
)

// holderDir makes this test binary a process that starts a server there and waits to be killed.
const holderDir = "TRIBUTARY_TEST_HOLDER_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(holderDir); dir != "" {
		server, err := postgres.Start(context.Background(), postgres.Options{Dir: dir, NoSync: true})
		if err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		fmt.Println(server.URL("postgres"))
		select {}
	}
	goleak.VerifyTestMain(m)
}

func start(t *testing.T, o postgres.Options) *postgres.Server {
	t.Helper()
	o.NoSync = true
	server, err := postgres.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return server
}

func ask(t *testing.T, address, query string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	var answer string
	if err := conn.QueryRow(t.Context(), query).Scan(&answer); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return answer
}

func TestStartMakesAServerForLogicalReplication(t *testing.T) {
	server := start(t, postgres.Options{Dir: filepath.Join(t.TempDir(), "data"), Settings: map[string]string{"max_wal_senders": "7"}})
	for query, want := range map[string]string{
		"SHOW wal_level":             "logical",
		"SHOW server_encoding":       "UTF8",
		"SHOW listen_addresses":      "127.0.0.1",
		"SHOW max_replication_slots": "50",
		"SHOW max_wal_senders":       "7",
		"SELECT current_user::text":  "postgres",
		"SELECT split_part(current_setting('server_version'), ' ', 1)": server.Version(),
	} {
		if got := ask(t, server.URL("postgres"), query); got != want {
			t.Errorf("%s: got %q, want %q", query, got, want)
		}
	}
}

func TestDataStaysOverStopKillAndStart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	// Nothing is synced in tests, but a commit that was answered has to be in the file when the server is killed.
	server := start(t, postgres.Options{Dir: dir, Settings: map[string]string{"synchronous_commit": "on"}})
	address := server.URL("postgres")
	conn, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	// What a commit does not wait for may be lost in a kill, and these servers wait for none.
	for _, statement := range []string{"SET synchronous_commit = on", "CREATE TABLE kept AS SELECT 'yes' AS answer"} {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	// Left open: Stop does not wait for its clients.
	defer conn.Close(context.Background())
	for name, end := range map[string]func(context.Context) error{"stop": server.Stop, "kill": server.Kill} {
		ended := server.Done()
		if err := end(t.Context()); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		<-ended
		if _, err := pgx.Connect(t.Context(), address); err == nil {
			t.Fatalf("%s: the server still answers", name)
		}
		if err := server.Resume(t.Context()); err != nil {
			t.Fatalf("resume after %s: %v", name, err)
		}
		if got := ask(t, address, "SELECT answer FROM kept"); got != "yes" {
			t.Fatalf("after %s: got %q", name, got)
		}
	}
	if err := server.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, start(t, postgres.Options{Dir: dir}).URL("postgres"), "SELECT answer FROM kept"); got != "yes" {
		t.Fatalf("started again from its folder: got %q", got)
	}
}

func TestServerEndsWithAProcessThatIsKilled(t *testing.T) {
	holder := exec.Command(os.Args[0])
	holder.Env = append(os.Environ(), holderDir+"="+filepath.Join(t.TempDir(), "data"))
	out, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = holder.Process.Kill()
		_ = holder.Wait()
	}()
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	address = strings.TrimSpace(address)
	if _, err := url.Parse(address); err != nil || !strings.HasPrefix(address, "postgres://") {
		t.Fatalf("the holder says %q", address)
	}
	conn, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if err := holder.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	// The backend of this connection ends with its server, and cuts the connection.
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := conn.Exec(ctx, "SELECT pg_sleep(60)"); err == nil || ctx.Err() != nil {
		t.Fatalf("the server outlives its process: %v", err)
	}
	for ctx.Err() == nil {
		conn, err := pgx.Connect(ctx, address)
		if err != nil {
			return
		}
		_ = conn.Close(ctx)
	}
	t.Fatal("the server outlives its process")
}

func TestStartRefuses(t *testing.T) {
	strange := t.TempDir()
	if err := os.WriteFile(filepath.Join(strange, "letter.txt"), []byte("dear"), 0o600); err != nil {
		t.Fatal(err)
	}
	older := t.TempDir()
	if err := os.WriteFile(filepath.Join(older, "PG_VERSION"), []byte("9\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		options postgres.Options
		want    string
	}{
		"no folder":                              {postgres.Options{}, "Options.Dir is empty"},
		"a folder with other files":              {postgres.Options{Dir: strange}, "none of them is PG_VERSION"},
		"a folder of another version":            {postgres.Options{Dir: older}, "made by version 9"},
		"a setting that PostgreSQL doesn't know": {postgres.Options{Dir: filepath.Join(t.TempDir(), "data"), NoSync: true, Settings: map[string]string{"wal_levle": "logical"}}, "wal_levle"},
	} {
		t.Run(name, func(t *testing.T) {
			server, err := postgres.Start(t.Context(), c.options)
			if err == nil {
				_ = server.Stop(context.Background())
				t.Fatal("started")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
}
