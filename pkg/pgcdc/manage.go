package pgcdc

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// SlotExists tells whether a database's server has a slot of this name.
func SlotExists(ctx context.Context, url, slot string) (bool, error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return false, fmt.Errorf("look for slot %s: %w", slot, err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	var exists bool
	if err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1)`, slot).Scan(&exists); err != nil {
		return false, fmt.Errorf("look for slot %s: %w", slot, err)
	}
	return exists, nil
}

// Leave drops a slot and a publication, if they are there, for who reads a database only for a while. Nobody may read
// from the slot any more; a walsender that has not noticed its client's end yet is ended.
func Leave(ctx context.Context, url, slot, publication string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return fmt.Errorf("drop slot %s: %w", slot, err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	const end = `SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE slot_name = $1 AND active`
	const drop = `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1`
	for _, sql := range []string{end, drop} {
		if _, err := conn.Exec(ctx, sql, slot); err != nil {
			return fmt.Errorf("drop slot %s: %w", slot, err)
		}
	}
	if _, err := conn.Exec(ctx, `DROP PUBLICATION IF EXISTS `+pgx.Identifier{publication}.Sanitize()); err != nil {
		return fmt.Errorf("drop publication %s: %w", publication, err)
	}
	return nil
}

// PublishAll makes a publication of all tables, those of the future included, unless one of this name is there. It
// takes a superuser, and from then on PostgreSQL refuses UPDATE and DELETE on tables without a replica identity.
func PublishAll(ctx context.Context, url, publication string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return fmt.Errorf("make publication %s: %w", publication, err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	_, err = conn.Exec(ctx, `CREATE PUBLICATION `+pgx.Identifier{publication}.Sanitize()+` FOR ALL TABLES`)
	if err != nil && !hasCode(err, codeDuplicateObject) {
		return fmt.Errorf("make publication %s: %w", publication, err)
	}
	return nil
}
