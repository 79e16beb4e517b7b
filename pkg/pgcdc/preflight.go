package pgcdc

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tributary-dev/tributary/pkg/events"
)

const (
	oldestVersion   = 140000 // pgoutput sends logical messages from here on
	optionsVersion  = 150000 // CREATE_REPLICATION_SLOT takes a list of options, publications have column lists
	failoverVersion = 170000
)

// system is the database cluster at the other end.
type system struct {
	id       string
	timeline int32
	flushed  events.LSN // the end of its log
	standby  bool
	history  []branch // of its timelines
}

// identify asks both connections who is there, and refuses what can't work at all: the first contact.
func (r *run) identify(ctx context.Context) (*system, error) {
	var level string
	s := new(system)
	err := r.query.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		const question = `SELECT current_setting('server_version_num')::int, current_setting('wal_level'), pg_is_in_recovery()`
		return conn.QueryRow(ctx, question).Scan(&r.version, &level, &s.standby)
	})
	if err != nil {
		return nil, fmt.Errorf("ask for the server's version: %w", err)
	}
	if r.version < oldestVersion {
		return nil, refused("%s is PostgreSQL %d: at least %d is needed", r.connector.place(), r.version/10000, oldestVersion/10000)
	}
	if level != "logical" {
		return nil, refused("wal_level of %s is %s: ALTER SYSTEM SET wal_level = 'logical', and restart PostgreSQL", r.connector.place(), level)
	}
	if err := r.checkSenders(ctx); err != nil {
		return nil, err
	}
	conn, err := r.openReplication(ctx)
	if err != nil {
		return nil, err
	}
	defer closeConn(ctx, conn)
	if err := s.read(ctx, conn); err != nil {
		return nil, fmt.Errorf("identify %s: %w", r.connector.place(), err)
	}
	return s, nil
}

func (r *run) checkSenders(ctx context.Context) error {
	var senders int
	err := r.query.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, `SELECT current_setting('max_wal_senders')::int`).Scan(&senders)
	})
	if err == nil && senders == 0 {
		return refused("max_wal_senders of %s is 0: ALTER SYSTEM SET max_wal_senders = 10, and restart PostgreSQL", r.connector.place())
	}
	return err
}

// prepare checks what a first start needs, and makes the publication.
func (r *run) prepare(ctx context.Context, system *system) error {
	if err := r.checkSlotFree(ctx); err != nil {
		return err
	}
	tables, err := r.matching(ctx)
	if err != nil {
		return err
	}
	if len(tables) == 0 && !r.patterns.open() {
		return refused("no table of %s matches sources[].tables (%s)", r.connector.place(), r.patterns)
	}
	if len(tables) == 0 {
		r.opts.Log.Warn("no table matches yet", "tables", r.patterns.String())
	}
	if err := r.ensurePublication(ctx, tables); err != nil {
		return err
	}
	if !r.opts.Snapshot {
		return nil
	}
	var unreadable []table
	for _, t := range tables {
		if !t.Readable && !t.Partitioned {
			unreadable = append(unreadable, t)
		}
	}
	if len(unreadable) > 0 {
		user := quoteIdent(r.connector.config.User)
		return refused("role %s may not read %s for the snapshot: GRANT USAGE on the schema and SELECT on the tables to it (and BYPASSRLS where they have row security), or set sources[].snapshot to false",
			user, names(unreadable))
	}
	return nil
}

// checkSlotFree refuses a first start with a slot that is there: nobody knows which changes it has given away.
func (r *run) checkSlotFree(ctx context.Context) error {
	var exists bool
	var used, most int
	err := r.query.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		const question = `SELECT count(*) FILTER (WHERE slot_name = $1) > 0, count(*), current_setting('max_replication_slots')::int FROM pg_replication_slots`
		return conn.QueryRow(ctx, question, r.opts.Slot).Scan(&exists, &used, &most)
	})
	switch {
	case err != nil:
		return fmt.Errorf("list replication slots: %w", err)
	case exists:
		return refused("slot %s exists already, but no position of source %s is known: drop it (SELECT pg_drop_replication_slot(%s)), or name another in sources[].slot",
			r.opts.Slot, r.opts.Name, quoteLiteral(r.opts.Slot))
	case used >= most:
		return refused("all %d replication slots of %s are in use: drop one that nobody reads, or ALTER SYSTEM SET max_replication_slots = %d, and restart PostgreSQL",
			most, r.connector.place(), max(2*most, 10))
	default:
		return nil
	}
}

// unidentified gives those of tables whose UPDATEs and DELETEs PostgreSQL refuses once they are published.
func unidentified(tables []table) []table {
	var found []table
	for _, t := range tables {
		if !t.Partitioned && !t.Identifiable {
			found = append(found, t)
		}
	}
	return found
}

func refuseUnidentified(tables []table) error {
	return refused("published, %s would refuse every UPDATE and DELETE, for want of a primary key or replica identity: "+
		"ALTER TABLE %s REPLICA IDENTITY FULL (or give it a primary key), or leave it out of sources[].tables", names(tables), tables[0].quoted())
}

// explainRights refuses what only somebody else may do.
func explainRights(err error, statement string) error {
	var answer *pgconn.PgError
	if errors.As(err, &answer) && (answer.Code == codeNoPrivilege || answer.Code == codeReadOnly) {
		return refused("%s: have it run by somebody who may, on the primary: %s", answer.Message, statement)
	}
	return err
}
