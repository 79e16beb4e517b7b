package checkpoint

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
)

//go:embed migrations/*.sql
var migrations embed.FS

const (
	versionTable = "tributary.migrations"

	// migrationLock is the advisory lock that one migration at a time holds: "tributar" in ASCII.
	migrationLock int64 = 0x7472696275746172
)

// Migrate brings the tables of schema tributary up to date, and makes them where there are none. Any number may call it at
// the same time. Where all is up to date it takes no right but to read; where it is not, and the role may not create,
// it errs with ErrRights and changes nothing.
func (s *Store) Migrate(ctx context.Context) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return fmt.Errorf("read the migrations: %w", err)
	}
	db := stdlib.OpenDBFromPool(s.pool)
	defer func() { _ = db.Close() }() // the connections are the pool's
	provider, err := goose.NewProvider(goose.DialectPostgres, db, files, goose.WithTableName(versionTable),
		goose.WithDisableGlobalRegistry(true), goose.WithSlog(slog.New(slog.DiscardHandler)))
	if err != nil {
		return fmt.Errorf("read the migrations: %w", err)
	}
	sources := provider.ListSources()
	current, err := s.isCurrent(ctx, sources[len(sources)-1].Version)
	if err != nil {
		return fmt.Errorf("look at the tables of schema tributary: %w", explain(err))
	}
	if current {
		return nil
	}
	err = s.alone(ctx, func(ctx context.Context, conn *pgxpool.Conn) error {
		if err := makeSchema(ctx, conn); err != nil {
			return err
		}
		_, err := provider.Up(ctx)
		return err
	})
	if err != nil {
		return fmt.Errorf("make the tables of schema tributary: %w", explainMigration(err))
	}
	return nil
}

// isCurrent tells whether version, and with it all before, is applied.
func (s *Store) isCurrent(ctx context.Context, version int64) (current bool, err error) {
	err = s.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM `+versionTable+` WHERE version_id >= $1 AND is_applied)`, version).Scan(&current)
	if hasCode(err, codeUndefinedTable, codeUndefinedSchema) {
		return false, nil
	}
	return current, err
}

// alone does work while nobody else is in here. The lock ends with its connection, however that ends.
func (s *Store) alone(ctx context.Context, work func(ctx context.Context, conn *pgxpool.Conn) error) error {
	s.migrating.Lock() // two of this process would wait for each other's connections
	defer s.migrating.Unlock()
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	if _, err := conn.Exec(ctx, `SELECT pg_catalog.pg_advisory_lock($1)`, migrationLock); err != nil {
		return fmt.Errorf("wait for the lock: %w", err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.timeout)
		defer cancel()
		if _, err := conn.Exec(ctx, `SELECT pg_catalog.pg_advisory_unlock($1)`, migrationLock); err != nil {
			_ = conn.Conn().Close(ctx)
		}
	}()
	return work(ctx, conn)
}

func makeSchema(ctx context.Context, conn *pgxpool.Conn) error {
	var made bool
	if err := conn.QueryRow(ctx, `SELECT pg_catalog.to_regnamespace('tributary') IS NOT NULL`).Scan(&made); err != nil || made {
		return err // IF NOT EXISTS asks for the right to create also where there is nothing to create
	}
	_, err := conn.Exec(ctx, `CREATE SCHEMA tributary`)
	return err
}

func explainMigration(err error) error {
	if !hasCode(err, codeNoPrivilege) {
		return explain(err)
	}
	return fmt.Errorf("%w: %w: GRANT CREATE ON DATABASE to the role, or have one who may run: CREATE SCHEMA tributary AUTHORIZATION <role>", ErrRights, err)
}
