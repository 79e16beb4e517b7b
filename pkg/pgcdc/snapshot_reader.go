package pgcdc

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// piecesSQL lists what holds the rows of tables: themselves, or their partitions. The catalog's rows are as of the
// snapshot, pg_relation_filenode and the sizes as of now; a size that is read after the snapshot was made covers all that
// it sees.
const piecesSQL = `
SELECT t.top, k.oid, n.nspname::text, k.relname::text, k.relfilenode, coalesce(pg_catalog.pg_relation_filenode(k.oid), 0),
       coalesce(pg_catalog.pg_relation_size(k.oid) / current_setting('block_size')::bigint, 0), coalesce(pg_catalog.pg_table_size(k.oid), 0)
  FROM unnest($1::oid[]) AS t(top)
  JOIN pg_catalog.pg_class c ON c.oid = t.top,
       LATERAL (SELECT c.oid AS part WHERE c.relkind = 'r'
                UNION ALL SELECT p.relid FROM pg_catalog.pg_partition_tree(c.oid) p WHERE c.relkind = 'p' AND p.isleaf) parts
  JOIN pg_catalog.pg_class k ON k.oid = parts.part
  JOIN pg_catalog.pg_namespace n ON n.oid = k.relnamespace
 WHERE k.relkind = 'r'
 ORDER BY t.top, k.oid`

type pieceRow struct {
	As, OID       uint32
	Schema, Name  string
	File, FileNow uint32
	Blocks, Bytes int64
}

func (p *pieceRow) quoted() string { return pgx.Identifier{p.Schema, p.Name}.Sanitize() }

func listPieces(ctx context.Context, conn *pgx.Conn, tables []*snapshotTable) ([]pieceRow, error) {
	var tops []uint32
	for _, t := range tables {
		tops = append(tops, t.OID)
	}
	rows, err := conn.Query(ctx, piecesSQL, tops)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[pieceRow])
}

const chunkSize = 32 << 20 // bytes of a table's file that one connection reads at a time

// makePlan finds what is to be read. It locks the tables against being rewritten, which would make them look empty to the
// snapshot; one that was rewritten since the snapshot was made is left to watermarks.
func (s *snapshot) makePlan(ctx context.Context, conn *pgx.Conn) error {
	var blockSize int
	err := conn.QueryRow(ctx, `SELECT pg_catalog.pg_current_snapshot()::text, current_setting('block_size')::int`).Scan(&s.cursor.Seen, &blockSize)
	if err != nil {
		return err
	}
	tables, err := s.snapshotTables(ctx, conn)
	if err != nil {
		return err
	}
	named := map[uint32]*snapshotTable{}
	for _, t := range tables {
		named[t.OID] = t
	}
	pieces, err := listPieces(ctx, conn, tables)
	if err != nil {
		return err
	}
	if err := lockPieces(ctx, conn, pieces); err != nil {
		return err
	}
	if pieces, err = listPieces(ctx, conn, tables); err != nil {
		return err
	}
	size := s.opts.snapshotChunk
	if size == 0 {
		size = chunkSize
	}
	s.plan = &plan{chunkBlocks: uint32(max(1, size/blockSize))}
	for i := range pieces {
		p := &pieces[i]
		if p.File != p.FileNow {
			s.opts.Log.Info("the table was rewritten since the slot was made: its rows are read among the changes", "table", p.Schema+"."+p.Name)
		}
		s.plan.pieces = append(s.plan.pieces, &planned{
			piece: piece{As: p.As, OID: p.OID, File: p.File}, table: named[p.As], name: p.quoted(), blocks: uint32(p.Blocks), bytes: p.Bytes,
			past: p.File != p.FileNow,
		})
	}
	s.opts.Log.Info("reading a snapshot", "tables", len(tables), "bytes", s.plan.bytes(), "connections", max(1, s.opts.SnapshotParallel))
	return nil
}

func lockPieces(ctx context.Context, conn *pgx.Conn, pieces []pieceRow) error {
	const atOnce = 500
	for len(pieces) > 0 {
		var names []string
		for i := range pieces[:min(atOnce, len(pieces))] {
			names = append(names, "ONLY "+pieces[i].quoted())
		}
		if _, err := conn.Exec(ctx, "LOCK TABLE "+strings.Join(names, ", ")+" IN ACCESS SHARE MODE"); err != nil {
			return err
		}
		pieces = pieces[len(names):]
	}
	return nil
}

// chunkReader reads chunks over one connection.
type chunkReader struct {
	*snapshot
	conn   *pgx.Conn
	rows   *rowEvents
	out    *output                   // its own: only the position is everybody's
	tables map[uint32]*snapshotTable // its own copies
	held   rowBuffer
	row    [][]byte
}

func (s *snapshot) newChunkReader(conn *pgx.Conn) *chunkReader {
	c := &chunkReader{snapshot: s, conn: conn, rows: s.newRowEvents(), out: newOutput(s.Source, s.feed, s.out.position), tables: map[uint32]*snapshotTable{}}
	c.rows.lsn, c.rows.time = s.slot, s.cursor.Time
	return c
}

func (c *chunkReader) run(ctx context.Context) error {
	for chunk := c.plan.take(); chunk != nil; chunk = c.plan.take() {
		if err := c.read(ctx, chunk); err != nil {
			if errors.Is(err, context.Canceled) {
				return err
			}
			return fmt.Errorf("read the rows of %s: %w", chunk.piece.name, err)
		}
	}
	return nil
}

// table gives the reader's own copy of a table: what is known of columns and subjects may change while rows are written.
func (c *chunkReader) table(t *snapshotTable) *snapshotTable {
	own := c.tables[t.OID]
	if own == nil {
		clear(c.tables) // tables come one after another
		own = t.clone()
		c.tables[t.OID] = own
	}
	return own
}

// read puts the rows of a chunk, as they come from the server.
func (c *chunkReader) read(ctx context.Context, chunk *blockChunk) error {
	t := c.table(chunk.piece.table)
	reading, watch := watchSilence(ctx, c.opts.snapshotSilence)
	defer watch.end()
	reader := c.conn.PgConn().ExecParams(reading, t.chunkQuery(chunk.piece.name, chunk.left), nil, nil, nil, nil)
	c.held.reset()
	last := place{}
	for reader.NextRow() {
		watch.came()
		values := reader.Values()
		at, ok := parsePlace(values[len(values)-1])
		if !ok || !last.before(at) {
			return fmt.Errorf("the rows do not come in the order of their places: %s", values[len(values)-1])
		}
		last = at
		c.held.add(values)
		if c.held.rows() < chunkRows && len(c.held.buf) < chunkBytes {
			continue
		}
		if err := watch.aside(func() error { return c.put(ctx, t, chunk) }); err != nil {
			return err // the connection is given up with it
		}
	}
	if _, err := reader.Close(); err != nil {
		return becauseOf(reading, err)
	}
	if err := c.put(ctx, t, chunk); err != nil {
		return err
	}
	c.plan.finish(chunk)
	return nil
}

// put puts the rows that are held, with the cursor behind them, when all before them were.
func (c *chunkReader) put(ctx context.Context, t *snapshotTable, chunk *blockChunk) error {
	rows := c.held.rows()
	if rows == 0 {
		return nil
	}
	if err := c.limit.wait(ctx, len(c.held.buf)); err != nil {
		return err
	}
	turn, err := c.line(rows)
	if err != nil {
		return err
	}
	marked, bytes := 0, uint64(0)
	for n := range rows {
		var size int
		c.row, size = c.held.row(n, c.row)
		bytes += uint64(size)
		if err := c.rows.put(ctx, c.out, t, c.row[:len(c.row)-1], c.row[len(c.row)-1], c.at(turn.first+uint32(n))); err != nil {
			return err
		}
		if n < rows-1 && len(c.out.batch.Buf) < chunkBytes {
			continue
		}
		if err := turn.await(ctx); err != nil {
			return err
		}
		at, _ := parsePlace(c.row[len(c.row)-1])
		c.plan.advance(chunk, at)
		if err := c.mark(ctx, c.out, turn.first+uint32(n), uint64(n+1-marked), bytes); err != nil {
			return err
		}
		marked, bytes = n+1, 0
	}
	close(turn.put)
	c.held.reset()
	return nil
}

// rowBuffer keeps rows while places for them are taken.
type rowBuffer struct {
	buf  []byte
	ends []int // of the values in buf, row by row; for a null the complement of where it would end
	wide int   // values in a row
}

func (h *rowBuffer) reset() { h.buf, h.ends = h.buf[:0], h.ends[:0] }

func (h *rowBuffer) add(values [][]byte) {
	h.wide = len(values)
	for _, value := range values {
		h.buf = append(h.buf, value...)
		end := len(h.buf)
		if value == nil {
			end = ^end
		}
		h.ends = append(h.ends, end)
	}
}

func (h *rowBuffer) rows() int {
	if h.wide == 0 {
		return 0
	}
	return len(h.ends) / h.wide
}

// row gives the nth row's values in dst's memory, and their bytes.
func (h *rowBuffer) row(n int, dst [][]byte) (row [][]byte, size int) {
	row = dst[:0]
	begin := 0
	if n > 0 {
		begin = max(h.ends[n*h.wide-1], ^h.ends[n*h.wide-1])
	}
	start := begin
	for _, end := range h.ends[n*h.wide : (n+1)*h.wide] {
		if end < 0 {
			row = append(row, nil)
			continue
		}
		row = append(row, h.buf[start:end:end])
		start = end
	}
	return row, start - begin
}
