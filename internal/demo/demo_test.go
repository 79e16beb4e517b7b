package demo_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tributary-dev/tributary/internal/demo"
	"github.com/tributary-dev/tributary/internal/pgtest"
	"github.com/tributary-dev/tributary/pkg/observers"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func TestRulesAreValid(t *testing.T) {
	set, err := observers.Parse("rules", demo.Observers("http://127.0.0.1:8080"))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(set.Observers()); n != 3 {
		t.Errorf("%d observers, want 3", n)
	}
}

func TestOpenRefusesADatabaseThatIsNotEmpty(t *testing.T) {
	for name, sql := range map[string]string{
		"a table":                   `CREATE TABLE t (id int)`,
		"a table in another schema": `CREATE SCHEMA s; CREATE TABLE s.t (id int)`,
		"a view":                    `CREATE VIEW v AS SELECT 1`,
	} {
		t.Run(name, func(t *testing.T) {
			url := pgtest.Database(t)
			conn := connect(t, url)
			if _, err := conn.Exec(t.Context(), sql); err != nil {
				t.Fatal(err)
			}
			if _, err := demo.Open(t.Context(), url); !errors.Is(err, demo.ErrNotEmpty) {
				t.Errorf("got %v, want ErrNotEmpty", err)
			}
		})
	}
}

func TestShopSellsWhileItsSlotIsReadAndLeavesNothing(t *testing.T) {
	url := pgtest.Database(t)
	shop, err := demo.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	before := shop.Rows()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := shop.Run(ctx, "nobodys"); err != nil {
		t.Error(err)
	}
	if n := shop.Rows(); n != before || n == 0 {
		t.Errorf("%d rows after nobody read, %d at first", n, before)
	}
	if err := shop.Close(t.Context()); err != nil {
		t.Error(err)
	}
	again, err := demo.Open(t.Context(), url)
	if err != nil {
		t.Fatalf("it is not empty after Close: %v", err)
	}
	if err := again.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestReceiversTakeTurnAwayAndBreak(t *testing.T) {
	receivers, err := demo.Listen()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- receivers.Run(ctx) }()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for i, call := range []struct {
		path, key string
		status    int
	}{
		{"/warehouse", "1", 200}, {"/carrier", "1", 503}, {"/carrier", "1", 200}, {"/carrier", "2", 200}, {"/carrier", "3", 200},
		{"/carrier", "4", 503}, {"/carrier", "4", 200}, {"/accounting", "5", 500}, {"/accounting", "5", 500},
	} {
		body := `{"time":"` + time.Now().UTC().Format(time.RFC3339Nano) + `"}`
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, receivers.URL()+call.path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Idempotency-Key", call.key)
		answer, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		if answer.StatusCode != call.status {
			t.Errorf("call %d, %s %s: got %d, want %d", i, call.path, call.key, answer.StatusCode, call.status)
		}
	}
	got := receivers.Figures()
	if got.Half <= 0 || got.Half > 5*time.Second {
		t.Errorf("half came within %v", got.Half)
	}
	got.Half = 0
	if want := (demo.Figures{Taken: 5, Refused: 2, Broken: 2, Again: 2}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
