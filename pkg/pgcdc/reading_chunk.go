package pgcdc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/ingest"
)

const (
	liveRows     = 8000                   // of a chunk, which is one query
	liveBytes    = 4 << 20                // of their values
	lookEvery    = 100 * time.Millisecond // for the end of transactions that are waited for
	readAgain    = time.Second            // after trouble
	askedTimeout = 10 * time.Minute       // of one query with a condition that somebody asked for
	chunkTimeout = askedTimeout * 3 / 2   // of all queries for a chunk: no timeout of its own ends a backend that hangs
)

// chunk is some rows of a table, as one query saw them.
type chunk struct {
	reading reading
	table   *snapshotTable // nil: none is left to be read
	rows    []liveRow
	stale   []bool // of the rows: a change that came before them brought what they are now
	more    bool   // the table may have rows behind them
	file    uint32 // of a table without a key
	seen    string // of that: the view since which changed rows are left to the stream
	visible *visibility
	again   []again // not nil: the rows are these, of the reading's list, and not those that come next
	lost    bool    // some of them can't be found by their keys
	barred  bool    // nothing of the table can be read
	failed  error   // that what was asked for can't be read
	token   string
	placed  chan struct{} // closed when its place came, and its rows were put or are to be read again
}

// liveRow is a row as it was when it was read, among changes.
type liveRow struct {
	values  [][]byte // as the server writes them; nil for nulls
	ctid    []byte
	size    int
	skip    bool // it is not put: it is stored, or comes as a change
	changed bool // since the snapshot that the reading goes on with: named by the place where it is put
}

// loop reads what is to be read, until ctx ends.
func (a *readings) loop(ctx context.Context) error {
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
				a.opts.Log.Warn("read the rows of tables; it will go on", "err", err)
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

func (a *readings) readAll(ctx context.Context) error {
	if _, any := a.next(); !any {
		return nil
	}
	conn, err := a.connector.open(ctx)
	if err != nil {
		return err
	}
	defer closeConn(ctx, conn)
	r := &liveReader{readings: a, conn: conn, waited: map[uint32]bool{}, expect: map[events.LSN]float64{}}
	for {
		next, any := a.next()
		if !any {
			return nil
		}
		c, err := r.readWanted(ctx, next)
		if errors.Is(err, errNotWanted) { // the connection went with its query
			a.wakeUp()
			return nil
		}
		if err != nil {
			return err
		}
		if c == nil {
			continue // the table was changed meanwhile: look again
		}
		if c.reading.Drain && c.again == nil && c.table != nil && !c.barred && c.reading.reached(c.table.OID) {
			if err := r.soon(ctx); err != nil { // what is left is not seen yet
				return err
			}
			continue
		}
		if err := r.send(ctx, c); err != nil {
			return err
		}
	}
}

var (
	errNotWanted = errors.New("the reading was cancelled")
	errStuck     = fmt.Errorf("%w: a query took longer than %s", errSilent, chunkTimeout)
)

// liveReader is the state of one connection.
type liveReader struct {
	*readings
	conn   *pgx.Conn
	waited map[uint32]bool        // for the writers of these tables
	expect map[events.LSN]float64 // rows of these readings
	chunks int
}

// readWanted is read, whose query it ends, in the server too, when the reading is cancelled.
func (r *liveReader) readWanted(ctx context.Context, next reading) (*chunk, error) {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	defer r.stopBy(next, nil)
	if !r.stopBy(next, func() { end(errNotWanted) }) {
		return nil, errNotWanted
	}
	c, err := r.read(ctx, next)
	if err != nil {
		return nil, becauseOf(ctx, err)
	}
	return c, nil
}

// read reads the next chunk of a reading; nil where the table was dropped or renamed meanwhile.
func (r *liveReader) read(ctx context.Context, next reading) (*chunk, error) {
	p, err := r.table(ctx, next)
	if err != nil || p == nil {
		return &chunk{reading: next}, err
	}
	if err := r.estimate(ctx, &next); err != nil {
		return nil, err
	}
	if !r.waited[p.OID] {
		if err := r.awaitWriters(ctx, p.OID); err != nil {
			return nil, err
		}
		r.waited[p.OID] = true
	}
	ctx, late := context.WithTimeoutCause(ctx, chunkTimeout, errStuck) // writers take what time they need
	defer late()
	c, err := r.readTable(ctx, next, p)
	if err != nil {
		return nil, becauseOf(ctx, err)
	}
	return c, nil
}

// readTable reads a chunk of a table whose writers from before have ended.
func (r *liveReader) readTable(ctx context.Context, next reading, p *publishedTable) (*chunk, error) {
	if err := r.beginSnapshot(ctx, r.conn, ""); err != nil {
		return nil, err
	}
	c, err := r.readLocked(ctx, next, p)
	if err != nil {
		_, _ = r.conn.Exec(ctx, "ROLLBACK")
		if next.Asked != nil && isOfQuery(err) {
			return &chunk{reading: next, failed: fmt.Errorf("read the rows of %s.%s: %w", p.Schema, p.Name, err)}, nil
		}
		if hasCode(err, codeUndefinedTable) || hasCode(err, codeNoSchema) {
			return nil, nil
		}
		if hasCode(err, codeNoPrivilege) || errors.Is(err, ingest.ErrRefused) {
			r.opts.Log.Warn("the rows that a table holds can't be read; its changes are", "table", p.Schema+"."+p.Name, "err", err)
			empty := &snapshotTable{OID: p.OID, relation: newRelation(p.OID, p.Schema, p.Name, p.Identity[0])}
			return &chunk{reading: next, table: empty, barred: true}, nil
		}
		return nil, err
	}
	_, err = r.conn.Exec(ctx, "COMMIT")
	return c, err
}

// isOfQuery tells whether an error lies in what was asked for, so that asking again would not help.
func isOfQuery(err error) bool {
	var answer *pgconn.PgError
	if !errors.As(err, &answer) {
		return errors.Is(err, ingest.ErrRefused)
	}
	if answer.Code == codeCanceled {
		return true
	}
	switch answer.Code[:min(2, len(answer.Code))] {
	case "08", "40", "53", "55", "57", "58", "XX": // connections, conflicts, resources, operators
		return false
	default:
		return true
	}
}

// estimate says how many rows a reading has, by PostgreSQL's statistics.
func (r *liveReader) estimate(ctx context.Context, next *reading) error {
	const rows = `SELECT coalesce(sum(CASE WHEN k.reltuples > 0 THEN k.reltuples ELSE pg_catalog.pg_relation_size(k.oid) / 100.0 END), 0)::float8 FROM pg_catalog.pg_class k
		WHERE k.relkind = 'r' AND (k.oid = ANY ($1::oid[])
		      OR EXISTS (SELECT FROM pg_catalog.pg_partition_ancestors(k.oid) AS up(oid) WHERE up.oid = ANY ($1::oid[])))`
	if next.Expect > 0 {
		return nil
	}
	if _, known := r.expect[next.LSN]; !known {
		var expect float64
		if err := r.conn.QueryRow(ctx, rows, next.Tables).Scan(&expect); err != nil {
			return err
		}
		r.expect[next.LSN] = expect
	}
	next.Expect = r.expect[next.LSN]
	return nil
}

// table gives the next table of a reading that is published now; nil for none.
func (r *liveReader) table(ctx context.Context, next reading) (*publishedTable, error) {
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
func (r *liveReader) readLocked(ctx context.Context, next reading, p *publishedTable) (*chunk, error) {
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
	c := &chunk{reading: next, table: t, visible: visible, placed: make(chan struct{})}
	if next.reached(t.OID) && len(next.Again) > 0 {
		if err := r.readAgain(ctx, c); err != nil || len(c.again) > 0 || next.Drain {
			return c, err
		}
	}
	j, q, err := r.judgeOf(ctx, c, seen)
	if err != nil {
		return nil, err
	}
	var after [][]byte
	if q.after {
		after = c.reading.After
	}
	return c, r.fetch(ctx, c, q, after, j)
}

// awaitWriters waits for the end of all transactions that have written to a table. What they did before its addition does
// not come through the stream, and a query sees it only when they have ended. A transaction that is prepared holds its
// locks under another name than before.
func (r *liveReader) awaitWriters(ctx context.Context, oid uint32) error {
	const writers = `
SELECT DISTINCT l.virtualtransaction FROM pg_catalog.pg_locks l
 WHERE l.locktype = 'relation' AND l.granted AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database())
   AND (l.relation = $1 OR l.relation IN (SELECT relid FROM pg_catalog.pg_partition_tree($1::oid::regclass)))
   AND l.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')`
	const prepared = writers + ` AND l.pid IS NULL`
	for _, which := range []string{writers, prepared} {
		waiting, err := r.texts(ctx, which, oid)
		for err == nil && len(waiting) > 0 {
			if err := r.soon(ctx); err != nil {
				return err
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

// soon waits until it is time to look again.
func (r *liveReader) soon(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(lookEvery):
		return nil
	}
}

func (r *liveReader) texts(ctx context.Context, sql string, args ...any) ([]string, error) {
	rows, err := r.conn.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// look lets go what the reader of the stream follows, and every query to come will see.
func (r *liveReader) look(ctx context.Context) error {
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
func (r *liveReader) send(ctx context.Context, c *chunk) error {
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
