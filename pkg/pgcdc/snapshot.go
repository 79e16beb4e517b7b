package pgcdc

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/ingest"
)

const (
	chunkRows  = ingest.MaxBatchItems - 1 // with its mark a chunk is stored whole or not at all
	chunkBytes = 1 << 20
)

// cursor says how far a snapshot has come. It is stored in one step with the last row that it covers.
type cursor struct {
	Time  time.Time `json:"time"`            // of all its events
	Rows  uint32    `json:"rows"`            // so far, of all tables
	Table uint32    `json:"table,omitempty"` // the one that is being read; those with lower OIDs are done
	File  uint32    `json:"file,omitempty"`  // the table's file, where its rows are known by their place in it
	After [][]byte  `json:"after,omitempty"` // PostgreSQL's texts of the last row's key columns, or of its ctid; none at the table's begin
}

// resumeSnapshot reads what a snapshot that was cut off has not read. The exported snapshot went with the connection that
// made it, so the rows are read as they are now, and may have changed since the slot was made. The stream then brings
// these changes, in order, each with the row as it was after it; so the last event of a row is its last state, whichever
// was read here. A row that was deleted or moved away meanwhile is missing here, but not there.
func (r *run) resumeSnapshot(ctx context.Context) error {
	c := cursor{Time: time.Now().UTC()}
	if stored := r.state.Position.Cursor; len(stored) > 0 {
		if err := json.Unmarshal(stored, &c); err != nil {
			return refused("the cursor of the snapshot of %s can't be read (%w): to start over: %s", r.opts.Name, err, r.resetCommand())
		}
	}
	r.opts.Log.Info("going on with the snapshot", "rows", c.Rows, "table", c.Table)
	return r.snapshot(ctx, c, "")
}

// snapshot reads all rows behind c, as of the exported snapshot, or as they are now where there is none, and leaves
// r.state at the begin of the stream.
func (r *run) snapshot(ctx context.Context, c cursor, exported string) error {
	conn, err := r.connector.open(ctx)
	if err != nil {
		return fmt.Errorf("connect for the snapshot: %w", err)
	}
	defer closeConn(ctx, conn)
	if err := r.beginSnapshot(ctx, conn, exported); err != nil {
		return fmt.Errorf("begin the snapshot: %w", err)
	}
	tables, err := r.snapshotTables(ctx, conn)
	if err != nil {
		return fmt.Errorf("list the tables of the snapshot: %w", err)
	}
	s := &snapshot{
		run: r, rows: r.newRowEvents(), conn: conn.PgConn(), cursor: c, slot: r.out.position.EndLSN,
	}
	s.rows.lsn, s.rows.time = s.slot, c.Time
	for _, t := range tables {
		if t.OID < c.Table {
			continue
		}
		if err := s.read(ctx, t); err != nil {
			return fmt.Errorf("read the rows of %s: %w", t.relation, err)
		}
	}
	r.out.position.Phase, r.out.position.Cursor = ingest.PhaseStreaming, nil
	r.out.mark(s.slot)
	if err := r.out.flush(ctx); err != nil {
		return err
	}
	r.opts.Log.Info("snapshot done", "rows", s.cursor.Rows)
	r.state.Last, r.state.Through, r.state.Position = s.at(), s.slot, r.out.position
	return nil
}

func (r *run) beginSnapshot(ctx context.Context, conn *pgx.Conn, exported string) error {
	statements := []string{"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"}
	if exported != "" {
		statements = append(statements, "SET TRANSACTION SNAPSHOT "+quoteLiteral(exported))
	}
	statements = append(statements,
		"SET LOCAL enable_sort = off",                   // a key's order comes from its index, not from a copy of the table
		"SET LOCAL max_parallel_workers_per_gather = 0", // the rows of a table without a key come in their places' order,
		"SET LOCAL synchronize_seqscans = off",          // from the first
		"SET LOCAL row_security = off")                  // an error is better than rows that are missing
	for _, statement := range statements {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return err
		}
	}
	return r.unbound(ctx, conn.PgConn())
}

// unbound lifts the bound on the time of a transaction, which older servers do not have.
func (r *run) unbound(ctx context.Context, conn *pgconn.PgConn) error {
	const timeoutVersion = 170000
	if r.version < timeoutVersion {
		return nil
	}
	if _, err := conn.Exec(ctx, "SET transaction_timeout = 0").ReadAll(); err != nil {
		return fmt.Errorf("set transaction_timeout: %w", err)
	}
	return nil
}

// snapshot is the reader's state.
type snapshot struct {
	*run
	rows   *rowEvents
	conn   *pgconn.PgConn
	cursor cursor
	slot   events.LSN
	table  *relation // that is being read
	place  place     // of the last row, in a table without a key
}

// at is the place of the last row: before all that the slot brings.
func (s *snapshot) at() events.Sequence {
	return events.Sequence{Commit: uint64(s.slot - 1), Index: s.cursor.Rows}
}

// read reads the rows of a table behind the cursor, as they come from the server, so that no table is ever in memory.
func (s *snapshot) read(ctx context.Context, t *snapshotTable) error {
	s.table = t.relation
	if s.cursor.Table != t.OID {
		s.cursor.Table, s.cursor.After = t.OID, nil
	} else if !t.keyed() && s.cursor.File != t.File && s.cursor.After != nil {
		s.opts.Log.Warn("the table was rewritten, and has no key: its rows are read again from the first", "table", t.relation.String())
		s.cursor.After = nil
	}
	s.cursor.After = s.unseal(t.relation, s.cursor.After)
	if after := len(s.cursor.After); after > 0 && after != max(1, len(t.relation.key)) {
		s.opts.Log.Warn("the table has another key than before: its rows are read again from the first", "table", t.relation.String())
		s.cursor.After = nil
	}
	s.cursor.File, s.place = t.File, place{}
	reader := s.conn.ExecParams(ctx, t.query(s.cursor.After != nil), s.cursor.After, nil, nil, nil)
	before := s.cursor.Rows
	for reader.NextRow() {
		if err := s.add(ctx, t, reader.Values()); err != nil {
			return err // the connection is given up with it
		}
	}
	if _, err := reader.Close(); err != nil {
		return err
	}
	s.opts.Log.Info("table read", "table", t.relation.String(), "rows", s.cursor.Rows-before)
	return nil
}

// add puts one row into the batch, and the batch with its mark into the feed when it is large.
func (s *snapshot) add(ctx context.Context, t *snapshotTable, values [][]byte) error {
	if s.cursor.Rows == math.MaxUint32 {
		return refused("the snapshot of %s has more than %d rows: set sources[].snapshot to false, or name fewer tables", s.opts.Name, s.cursor.Rows)
	}
	s.cursor.Rows++
	s.metrics.snapshotRows.Inc()
	if err := s.follow(t, values); err != nil {
		return err
	}
	if s.state.Stored(s.at()) {
		return nil
	}
	if err := s.rows.put(ctx, s.out, t, values, s.at()); err != nil {
		return err
	}
	if b := s.out.batch; len(b.Items) < chunkRows && len(b.Buf) < chunkBytes {
		return nil
	}
	return s.mark(ctx)
}

// follow moves the cursor behind a row.
func (s *snapshot) follow(t *snapshotTable, values [][]byte) error {
	if !t.keyed() {
		ctid := values[len(values)-1]
		at, ok := parsePlace(ctid)
		if !ok || !s.place.before(at) {
			return fmt.Errorf("the rows do not come in the order of their places: %s", ctid)
		}
		s.place = at
		s.keep(0, ctid)
		return nil
	}
	for n, i := range t.relation.key {
		s.keep(n, values[i])
	}
	return nil
}

// keep copies the nth value of the cursor.
func (s *snapshot) keep(n int, value []byte) {
	for len(s.cursor.After) <= n {
		s.cursor.After = append(s.cursor.After, nil)
	}
	s.cursor.After[n] = append(s.cursor.After[n][:0], value...)
}

// mark hands over the rows with the cursor behind them.
func (s *snapshot) mark(ctx context.Context) error {
	stored := s.cursor
	var err error
	if stored.After, err = s.seal(s.table, stored.After); err != nil {
		return err
	}
	encoded, err := json.Marshal(stored)
	if err != nil {
		return fmt.Errorf("encode the cursor: %w", err)
	}
	s.out.position.Cursor = encoded
	s.out.mark(s.slot)
	return s.out.flush(ctx)
}
