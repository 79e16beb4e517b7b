package pgcdc

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tributary-dev/tributary/pkg/ingest"
)

const (
	addedRows = 900                    // of a chunk: with its mark it is stored in one step
	lookEvery = 100 * time.Millisecond // for the end of transactions that are waited for
	readAgain = time.Second            // after trouble
)

// chunk is some rows of a new table, as one query saw them.
type chunk struct {
	addition addition
	table    *snapshotTable // nil: none is left to be read
	rows     [][][]byte     // values as the server writes them
	more     bool           // the table may have rows behind them
	visible  *visibility
	token    string
	placed   chan struct{} // closed when its place came, and its rows were put or are to be read again
}

// loop reads what is to be read, until ctx ends.
func (a *additions) loop(ctx context.Context) error {
	troubled := false
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-a.wake:
		}
		for {
			err := a.readAll(ctx)
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if !troubled {
				a.opts.Log.Warn("read the rows of new tables; it will go on", "err", err)
			}
			troubled = true
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(readAgain):
			}
		}
		troubled = false
	}
}

func (a *additions) readAll(ctx context.Context) error {
	if _, any := a.next(); !any {
		return nil
	}
	conn, err := a.connector.open(ctx)
	if err != nil {
		return err
	}
	defer closeConn(ctx, conn)
	r := &addedReader{additions: a, conn: conn, waited: map[uint32]bool{}}
	for {
		next, any := a.next()
		if !any {
			return nil
		}
		c, err := r.read(ctx, next)
		if err != nil {
			return err
		}
		if c == nil {
			continue // the table was changed meanwhile: look again
		}
		if err := r.send(ctx, c); err != nil {
			return err
		}
	}
}

// addedReader is the state of one connection.
type addedReader struct {
	*additions
	conn   *pgx.Conn
	waited map[uint32]bool // for the writers of these tables
	chunks int
}

// read reads the next chunk of an addition; nil where the table was dropped or renamed meanwhile.
func (r *addedReader) read(ctx context.Context, next addition) (*chunk, error) {
	p, err := r.table(ctx, next)
	if err != nil || p == nil {
		return &chunk{addition: next}, err
	}
	if !r.waited[p.OID] {
		if err := r.awaitWriters(ctx, p.OID); err != nil {
			return nil, err
		}
		r.waited[p.OID] = true
	}
	if err := r.beginSnapshot(ctx, r.conn, ""); err != nil {
		return nil, err
	}
	c, err := r.readLocked(ctx, next, p)
	if err != nil {
		_, _ = r.conn.Exec(ctx, "ROLLBACK")
		if hasCode(err, codeUndefinedTable) || hasCode(err, codeNoSchema) {
			return nil, nil
		}
		if hasCode(err, codeNoPrivilege) || errors.Is(err, ingest.ErrRefused) {
			r.opts.Log.Warn("the rows that a new table holds can't be read; its changes are", "table", p.Schema+"."+p.Name, "err", err)
			empty := &snapshotTable{OID: p.OID, relation: newRelation(p.OID, p.Schema, p.Name, p.Identity[0])}
			return &chunk{addition: next, table: empty}, nil
		}
		return nil, err
	}
	_, err = r.conn.Exec(ctx, "COMMIT")
	return c, err
}

// table gives the next table of an addition that is published now; nil for none.
func (r *addedReader) table(ctx context.Context, next addition) (*publishedTable, error) {
	const named = `c.oid >= $3 AND (c.oid = ANY ($2::oid[])
	OR EXISTS (SELECT FROM pg_catalog.pg_partition_ancestors(c.oid) AS up(oid) WHERE up.oid = ANY ($2::oid[])))`
	rows, err := r.conn.Query(ctx, publishedSQL(r.version, named)+" LIMIT 1", r.opts.Publication, next.Tables, next.Table)
	if err != nil {
		return nil, err
	}
	p, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[publishedTable])
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	return &p, err
}

// readLocked reads a chunk within an open transaction. The lock, which only changes of the table's own shape wait for,
// comes before the transaction sees anything: a table that was rewritten since would look empty.
func (r *addedReader) readLocked(ctx context.Context, next addition, p *publishedTable) (*chunk, error) {
	only := "ONLY "
	if p.Partitioned {
		only = ""
	}
	if _, err := r.conn.Exec(ctx, "LOCK TABLE "+only+pgx.Identifier{p.Schema, p.Name}.Sanitize()+" IN ACCESS SHARE MODE"); err != nil {
		return nil, err
	}
	var seen string
	if err := r.conn.QueryRow(ctx, "SELECT pg_catalog.pg_current_snapshot()::text").Scan(&seen); err != nil {
		return nil, err
	}
	visible, err := parseVisibility(seen)
	if err != nil {
		return nil, err
	}
	now, err := r.table(ctx, next)
	if err != nil || now == nil || now.OID != p.OID || now.Schema != p.Schema || now.Name != p.Name {
		return nil, err
	}
	t, err := r.describeTable(ctx, r.conn, now)
	if err != nil {
		return nil, err
	}
	c := &chunk{addition: next, table: t, visible: visible, placed: make(chan struct{})}
	after := r.unseal(t.relation, next.After)
	if next.Table != t.OID || len(after) != len(t.relation.key) {
		after = nil // another table, or another key than before: from the first row
	}
	result := r.conn.PgConn().ExecParams(ctx, t.query(after != nil)+" LIMIT "+strconv.Itoa(addedRows), after, nil, nil, nil)
	for size := 0; size < chunkBytes && result.NextRow(); {
		var row [][]byte
		for _, value := range result.Values() {
			size += len(value)
			if value != nil {
				value = append([]byte{}, value...)
			}
			row = append(row, value)
		}
		c.rows = append(c.rows, row)
		c.more = size >= chunkBytes
	}
	c.more = c.more || len(c.rows) == addedRows
	_, err = result.Close()
	return c, err
}

// awaitWriters waits for the end of all transactions that have written to a table. What they did before its addition does
// not come through the stream, and a query sees it only when they have ended. A transaction that is prepared holds its
// locks under another name than before.
func (r *addedReader) awaitWriters(ctx context.Context, oid uint32) error {
	const writers = `
SELECT DISTINCT l.virtualtransaction FROM pg_catalog.pg_locks l
 WHERE l.locktype = 'relation' AND l.granted AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database())
   AND (l.relation = $1 OR l.relation IN (SELECT relid FROM pg_catalog.pg_partition_tree($1::oid::regclass)))
   AND l.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')`
	const prepared = writers + ` AND l.pid IS NULL`
	for _, which := range []string{writers, prepared} {
		waiting, err := r.texts(ctx, which, oid)
		for err == nil && len(waiting) > 0 {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(lookEvery):
			}
			if err = r.look(ctx); err == nil {
				waiting, err = r.texts(ctx, writers+` AND l.virtualtransaction = ANY ($2::text[])`, oid, waiting)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *addedReader) texts(ctx context.Context, sql string, args ...any) ([]string, error) {
	rows, err := r.conn.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// look lets go what the reader of the stream follows, and every query to come will see.
func (r *addedReader) look(ctx context.Context) error {
	var text string
	if err := r.conn.QueryRow(ctx, "SELECT pg_catalog.pg_current_snapshot()::text").Scan(&text); err != nil {
		return err
	}
	visible, err := parseVisibility(text)
	if err == nil {
		r.saw(visible)
	}
	return err
}

// send writes the message of a chunk, and waits until it came and the chunk was put in its place.
func (r *addedReader) send(ctx context.Context, c *chunk) error {
	if c.placed == nil {
		c.placed = make(chan struct{})
	}
	r.chunks++
	c.token = r.token + "." + strconv.Itoa(r.chunks)
	content, err := json.Marshal(additionMessage{Slot: r.opts.Slot, Read: c.token})
	if err != nil {
		return err
	}
	r.offer(c)
	_, err = r.conn.Exec(ctx, "SELECT pg_logical_emit_message(true, $1, $2::text)", additionPrefix, string(content))
	if err != nil && r.withdraw(c) {
		return err
	}
	select { // also where it was written, and only the answer did not come
	case <-c.placed:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
