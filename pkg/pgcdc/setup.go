package pgcdc

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/ingest"
)

// setUp makes the slot, reads the rows that are there, and goes on with what the slot brings. That it is about to be
// made is stored first: a slot that is found after a crash in between is then known to be ours, and is made again.
func (r *run) setUp(ctx context.Context, system *system) error {
	position := &r.out.position
	if position.Phase == "" {
		*position = ingest.Position{Incarnation: max(position.Incarnation, r.state.Mirrored.Incarnation) + 1}
	}
	position.SystemID, position.Timeline, position.Slot, position.Phase = system.id, system.timeline, r.opts.Slot, ingest.PhaseSetup
	r.out.mark(0)
	if err := r.out.sync(ctx); err != nil {
		return err
	}
	conn, err := r.openReplication(ctx)
	if err != nil {
		return err
	}
	defer closeConn(ctx, conn)
	if err := r.unbound(ctx, conn); err != nil {
		return err
	}
	r.opts.Log.Info("making the slot, behind all transactions that are open", "slot", r.opts.Slot)
	slot, err := r.createSlot(ctx, conn)
	if err != nil {
		return err
	}
	// Everything in the stream commits at slot.start or later, so what the snapshot reads has its place before it.
	position.CommitLSN, position.Index, position.Phase = slot.start-1, 0, ingest.PhaseStreaming
	if r.opts.Snapshot {
		position.Phase = ingest.PhaseSnapshot
	}
	r.out.mark(slot.start)
	if err := r.out.sync(ctx); err != nil {
		return err
	}
	r.state = ingest.State{
		Position: *position, Last: events.Sequence{Commit: uint64(position.CommitLSN)}, Through: slot.start,
	}
	if r.opts.Snapshot {
		if err := r.snapshot(ctx, slot.snapshot); err != nil {
			return err
		}
	}
	closeConn(ctx, conn) // it only kept the exported snapshot
	return r.stream(ctx)
}

// setUpAgain begins a set-up anew that was cut off before it had stored a row.
func (r *run) setUpAgain(ctx context.Context, system *system) error {
	if err := r.dropOwnSlot(ctx); err != nil {
		return err
	}
	if err := r.prepare(ctx, system); err != nil {
		return err
	}
	return r.setUp(ctx, system)
}

// newSlot is what was made.
type newSlot struct {
	start    events.LSN // the slot brings what commits from here on
	snapshot string     // of all that committed before; lives until the connection's next command
}

func (r *run) createSlot(ctx context.Context, conn *pgconn.PgConn) (*newSlot, error) {
	statement := "CREATE_REPLICATION_SLOT " + quoteIdent(r.opts.Slot) + " LOGICAL pgoutput"
	switch {
	case r.version < optionsVersion && r.opts.Snapshot:
		statement += " EXPORT_SNAPSHOT"
	case r.version < optionsVersion:
		statement += " NOEXPORT_SNAPSHOT"
	default:
		option := "SNAPSHOT 'nothing'"
		if r.opts.Snapshot {
			option = "SNAPSHOT 'export'"
		}
		if r.version >= failoverVersion {
			option += ", FAILOVER"
		}
		statement += " (" + option + ")"
	}
	row, err := command(ctx, conn, statement, 3)
	switch {
	case hasCode(err, codeTooManyOfThem):
		return nil, refused("%w: drop a slot that nobody reads, or raise max_replication_slots", err)
	case err != nil:
		return nil, fmt.Errorf("make slot %s: %w", r.opts.Slot, err)
	}
	start, err := events.ParseLSN(string(row[1]))
	if err != nil {
		return nil, fmt.Errorf("make slot %s: %w", r.opts.Slot, err)
	}
	return &newSlot{start: start, snapshot: string(row[2])}, nil
}

// dropOwnSlot removes the slot of a set-up that was cut off, or of the incarnation before.
func (r *run) dropOwnSlot(ctx context.Context) error {
	s, err := r.readSlot(ctx)
	if err != nil || s == nil {
		return err
	}
	if s.pid != nil {
		if err := r.endPredecessor(ctx, *s.pid); err != nil {
			return err
		}
	}
	err = r.query.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "SELECT pg_drop_replication_slot($1)", r.opts.Slot)
		return err
	})
	if err != nil {
		return fmt.Errorf("drop slot %s to set it up anew: %w", r.opts.Slot, err)
	}
	return nil
}
