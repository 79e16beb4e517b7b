package pgcdc

import (
	"context"
	"fmt"
	"math"
	"strconv"

	"github.com/jackc/pgx/v5"
)

// judge tells what becomes of the rows of a table.
type judge struct {
	since     *visibility     // nil: every row is put
	now       *visibility     // of the query
	rewritten map[uint32]bool // pieces whose places say nothing any more
	keyed     bool
	again     bool // every row is put, named by its place
}

func (j *judge) row(row *liveRow, piece, xmin uint32, left bool) {
	if j.since == nil || j.again {
		row.changed = !j.keyed || j.again
		return
	}
	changed := j.since.changed(xmin, j.now)
	row.changed = changed || j.rewritten[piece] || !j.keyed
	if j.keyed {
		row.skip = !left && !changed
	} else {
		row.skip = !left || changed
	}
}

// judgeOf says which rows come next, and what becomes of them. Where a snapshot was cut off, rows that were changed since
// are read again, wherever they are now: a change may have left out large values, and rows that it moved are not found where
// they were. In a table without a key they come as changes alone.
func (r *liveReader) judgeOf(ctx context.Context, c *chunk, seen string) (*judge, liveQuery, error) {
	next, t := &c.reading, c.table
	j := &judge{now: c.visible, keyed: t.keyed(), rewritten: map[uint32]bool{}}
	q := liveQuery{limit: liveRows}
	if next.Asked != nil {
		q.where = next.Asked.Where
	}
	begun := next.begun(t.OID)
	files, err := r.files(ctx, t, begun)
	if err != nil {
		return nil, q, err
	}
	for i := range begun {
		j.rewritten[begun[i].OID] = files[begun[i].OID] != begun[i].File
	}
	since := ""
	switch {
	case t.keyed() && len(begun) > 0:
		since = next.Snapshot
	case !t.keyed() && next.Table == t.OID && next.Seen != "" && next.File == files[t.OID]:
		since = next.Seen
	case !t.keyed() && len(begun) > 0 && !j.rewritten[t.OID]:
		since = next.Snapshot
	case !t.keyed():
		since = seen
		if next.Table == t.OID && next.After != nil || len(begun) > 0 {
			r.opts.Log.Warn("the table was rewritten, and has no key: its rows are read again from the first", "table", t.relation.String())
			next.After = nil
		}
	}
	if t.keyed() && next.Table == t.OID && next.Pass != 0 {
		begun, j.again = nil, true
		q.left, q.since = "false", strconv.FormatUint(uint64(next.Pass), 10)
	}
	if !t.keyed() {
		c.file, c.seen = files[t.OID], since
		if j.rewritten[t.OID] {
			begun = nil
		}
	}
	if since != "" {
		if j.since, err = parseVisibility(since); err != nil {
			return nil, q, err
		}
	}
	if len(begun) > 0 && j.since != nil {
		q.left, q.since = leftCondition(begun, j.rewritten), strconv.FormatUint(j.since.min&math.MaxUint32, 10)
	}
	if next.Table == t.OID {
		next.After = r.unseal(t.relation, next.After)
	}
	places := max(1, len(t.relation.key))
	q.after = next.Table == t.OID && len(next.After) == places // else another table, or another key than before: from the first row
	if !q.after {
		next.After = nil
	}
	return j, q, nil
}

// files gives the files of a table, or of some pieces of it.
func (r *liveReader) files(ctx context.Context, t *snapshotTable, pieces []piece) (map[uint32]uint32, error) {
	files := map[uint32]uint32{}
	if t.keyed() && len(pieces) == 0 {
		return files, nil
	}
	oids := []uint32{t.OID}
	for i := range pieces {
		oids = append(oids, pieces[i].OID)
	}
	rows, err := r.conn.Query(ctx, `SELECT o, coalesce(pg_catalog.pg_relation_filenode(o), 0) FROM unnest($1::oid[]) AS t(o)`, oids)
	if err != nil {
		return nil, err
	}
	var oid, file uint32
	_, err = pgx.ForEachRow(rows, []any{&oid, &file}, func() error {
		files[oid] = file
		return nil
	})
	return files, err
}

// fetch reads the rows of a chunk.
func (r *liveReader) fetch(ctx context.Context, c *chunk, q liveQuery, params [][]byte, j *judge) error {
	settings := ""
	if !c.table.keyed() {
		settings = "SET LOCAL enable_indexscan = off; SET LOCAL enable_bitmapscan = off; "
	}
	if q.where != "" {
		settings += fmt.Sprintf("SET LOCAL statement_timeout = %d; ", askedTimeout.Milliseconds())
	}
	if settings != "" {
		if _, err := r.conn.Exec(ctx, settings); err != nil {
			return err
		}
	}
	result := r.conn.PgConn().ExecParams(ctx, c.table.query(q), params, nil, nil, nil)
	size, bad := 0, error(nil)
	var last place
	for size < liveBytes && result.NextRow() {
		row, err := j.take(result.Values())
		if at, ok := parsePlace(row.ctid); err == nil && !j.keyed && (!ok || !last.before(at)) {
			err = fmt.Errorf("the rows do not come in the order of their places: %s", row.ctid)
		} else {
			last = at
		}
		if err != nil {
			bad = err
			break
		}
		size += row.size
		c.rows = append(c.rows, row)
		c.more = size >= liveBytes
	}
	c.more = c.more || len(c.rows) == liveRows
	if _, err := result.Close(); err != nil {
		return err
	}
	if bad != nil {
		return bad
	}
	return r.limit.wait(ctx, size)
}

// take copies a row.
func (j *judge) take(values [][]byte) (row liveRow, err error) {
	for _, value := range values {
		row.size += len(value)
	}
	buf := make([]byte, 0, row.size)
	all := make([][]byte, len(values))
	for i, value := range values {
		if value != nil {
			start := len(buf)
			buf = append(buf, value...)
			all[i] = buf[start:len(buf):len(buf)]
		}
	}
	columns := len(all) - liveColumns
	own := all[columns:]
	row.values, row.ctid = all[:columns], own[liveCTID]
	piece, err := strconv.ParseUint(string(own[livePiece]), 10, 32)
	if err != nil {
		return row, fmt.Errorf("read the place of a row: %w", err)
	}
	xmin, err := strconv.ParseUint(string(own[liveXmin]), 10, 32)
	if err != nil {
		return row, fmt.Errorf("read the transaction of a row: %w", err)
	}
	j.row(&row, uint32(piece), uint32(xmin), string(own[liveLeft]) == liveLeftTrue)
	return row, nil
}
