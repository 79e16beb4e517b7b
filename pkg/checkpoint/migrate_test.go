package checkpoint_test

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tributary-dev/tributary/internal/pgtest"
	"github.com/tributary-dev/tributary/pkg/checkpoint"
)

// as gives the address for another role, which is made with no rights of its own.
func as(t *testing.T, address, role string) string {
	t.Helper()
	conn := connect(t, address)
	exec(t, conn, `DROP ROLE IF EXISTS `+role)
	exec(t, conn, `CREATE ROLE `+role+` LOGIN PASSWORD 'secret'`)
	t.Cleanup(func() {
		ctx := context.Background()
		owner, err := pgx.Connect(ctx, address)
		if err == nil {
			_, err = owner.Exec(ctx, `DROP OWNED BY `+role+`; DROP ROLE `+role)
			_ = owner.Close(ctx)
		}
		if err != nil {
			t.Errorf("drop role %s: %v", role, err)
		}
	})
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(role, "secret")
	return u.String()
}

const grants = `GRANT USAGE ON SCHEMA tributary TO weak; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA tributary TO weak`

func TestMigrate(t *testing.T) {
	t.Run("on an empty database, twice", func(t *testing.T) {
		s, _ := migrated(t)
		if err := s.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
		mustSave(t, s, first())
	})
	t.Run("where somebody made the schema already", func(t *testing.T) {
		address := pgtest.Database(t)
		exec(t, connect(t, address), `CREATE SCHEMA tributary`)
		s := open(t, address)
		if err := s.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
		mustSave(t, s, first())
	})
	t.Run("by many at a time", func(t *testing.T) {
		address := pgtest.Database(t)
		var wait sync.WaitGroup
		for range 6 {
			s := open(t, address)
			for range 2 {
				wait.Go(func() {
					if err := s.Migrate(t.Context()); err != nil {
						t.Error(err)
					}
				})
			}
		}
		wait.Wait()
		mustSave(t, open(t, address), first())
	})
	t.Run("by a role that may not create, after all is applied", func(t *testing.T) {
		_, address := migrated(t)
		weak := as(t, address, "weak")
		exec(t, connect(t, address), grants)
		s := open(t, weak)
		if err := s.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
		mustSave(t, s, first())
		if err := s.Prune(t.Context(), checkpoint.Keep{}); err != nil {
			t.Error(err)
		}
	})
	t.Run("by a role that may not create, before anything is applied", func(t *testing.T) {
		address := pgtest.Database(t)
		says(t, open(t, as(t, address, "weak")).Migrate(t.Context()), "permission denied for database", "GRANT CREATE ON DATABASE", "CREATE SCHEMA tributary AUTHORIZATION")
	})
	t.Run("by a role that may not create in the schema", func(t *testing.T) {
		address := pgtest.Database(t)
		exec(t, connect(t, address), `CREATE SCHEMA tributary`)
		says(t, open(t, as(t, address, "weak")).Migrate(t.Context()), "permission denied for schema")
	})
	t.Run("by a role that may not even read", func(t *testing.T) {
		_, address := migrated(t)
		s := open(t, as(t, address, "weak"))
		says(t, s.Migrate(t.Context()), "GRANT USAGE ON SCHEMA tributary")
		says(t, s.Save(t.Context(), first()), "GRANT USAGE ON SCHEMA tributary")
	})
}

func says(t *testing.T, err error, words ...string) {
	t.Helper()
	if !errors.Is(err, checkpoint.ErrRights) {
		t.Fatalf("got %v, want ErrRights", err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
}
