package pgcdc

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/ingest"
)

// resumeSnapshot goes on with a snapshot that was cut off. The exported snapshot went with the connection that made it, so
// what is left is read among the changes.
func (r *run) resumeSnapshot(ctx context.Context) error {
	c := cursor{Time: time.Now().UTC()}
	if stored := r.state.Position.Cursor; len(stored) > 0 {
		if err := json.Unmarshal(stored, &c); err != nil {
			return refused("the cursor of the snapshot of %s can't be read (%w): to start over: %s", r.opts.Name, err, r.resetCommand())
		}
	}
	r.opts.Log.Info("going on with the snapshot, among the changes", "rows", c.ReadRows, "table", c.Table)
	return r.leaveToWatermarks(ctx, c)
}

// leaveToWatermarks makes a reading of what a snapshot has left, and leaves r.state at the begin of the stream. Nothing
// that is stored is read again, but for rows that changed since.
func (r *run) leaveToWatermarks(ctx context.Context, c cursor) error {
	conn, err := r.openQuery(ctx)
	if err != nil {
		return err
	}
	defer closeConn(ctx, conn)
	rest, err := r.restOf(ctx, conn, c)
	if err != nil {
		return fmt.Errorf("list what is left of the snapshot: %w", err)
	}
	encoded, err := readingsCursor{Readings: []reading{rest}}.encode()
	if err != nil {
		return err
	}
	slot := r.out.position.EndLSN
	r.out.position.Phase, r.out.position.Cursor = ingest.PhaseStreaming, encoded
	r.out.mark(slot)
	if err := r.out.flush(ctx); err != nil {
		return err
	}
	r.state.Last, r.state.Through, r.state.Position = events.Sequence{Commit: uint64(slot - 1), Index: r.out.position.Index}, slot, r.out.position
	return nil
}

// restOf says what a cursor leaves of the tables that are there now.
func (r *run) restOf(ctx context.Context, conn *pgx.Conn, c cursor) (reading, error) {
	rest := reading{
		tally: c.tally, LSN: r.out.position.EndLSN, Time: c.Time, Table: c.Table, After: c.After, Rest: true, Snapshot: c.Seen, Left: []piece{},
	}
	rest.SecondsLeft = nil
	if c.Done > 0 {
		rest.Expect = float64(c.ReadRows) / c.Done
	}
	tables, err := r.snapshotTables(ctx, conn)
	if err != nil {
		return rest, err
	}
	open := map[uint32]piece{} // by its own OID
	begun := map[uint32]bool{} // tables
	for _, p := range c.Open {
		open[p.OID], begun[p.As] = p, true
	}
	if c.Piece > 0 {
		begun[c.Table] = true
	}
	var left []*snapshotTable
	for _, t := range tables {
		if t.OID >= c.Table {
			rest.Tables = append(rest.Tables, t.OID)
			left = append(left, t)
		}
	}
	if c.Table == math.MaxUint32 || len(left) == 0 {
		return rest, nil
	}
	pieces, err := listPieces(ctx, conn, left)
	if err != nil {
		return rest, err
	}
	for i := range pieces {
		p := &pieces[i]
		if !begun[p.As] {
			continue
		}
		known, isOpen := open[p.OID]
		switch {
		case isOpen:
			rest.Left = append(rest.Left, known)
		case p.As == c.Table && p.OID < c.Piece:
			rest.Left = append(rest.Left, piece{As: p.As, OID: p.OID, File: p.FileNow})
		default:
			rest.Left = append(rest.Left, piece{As: p.As, OID: p.OID, File: p.FileNow, Left: []span{{}}})
		}
	}
	return rest, nil
}
