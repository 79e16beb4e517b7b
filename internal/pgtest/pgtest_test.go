package pgtest_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tributary-dev/tributary/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func TestDatabasesAreApart(t *testing.T) {
	first, second := pgtest.Database(t), pgtest.Database(t)
	for _, address := range []string{first, second} {
		conn, err := pgx.Connect(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background())
		if _, err := conn.Exec(t.Context(), "CREATE TABLE mine (id int)"); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestDatabaseIsDroppedWithItsSlotsAndReaders(t *testing.T) {
	var address string
	t.Run("a test that leaves all open", func(t *testing.T) {
		address = pgtest.Database(t)
		conn, err := pgconn.Connect(t.Context(), address+"&replication=database")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close(context.Background()) })
		if err := conn.Exec(t.Context(), "CREATE_REPLICATION_SLOT left_behind LOGICAL pgoutput").Close(); err != nil {
			t.Fatal(err)
		}
	})
	if _, err := pgx.Connect(t.Context(), address); err == nil {
		t.Error("the database is still there")
	}
}

func TestServerIsPrivate(t *testing.T) {
	server := pgtest.Server(t, map[string]string{"max_replication_slots": "3"})
	address := pgtest.DatabaseOn(t, server.URL("postgres"))
	conn, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	var slots string
	if err := conn.QueryRow(t.Context(), "SHOW max_replication_slots").Scan(&slots); err != nil || slots != "3" {
		t.Errorf("got %q, %v, want 3", slots, err)
	}
}
