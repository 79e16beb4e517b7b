package pgcdc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"

	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/ingest"
)

const (
	chunkRows  = ingest.MaxBatchItems - 1 // with its mark a batch is stored whole or not at all
	chunkBytes = 1 << 20
)

// cursor says which rows of the exported snapshot are stored. It is stored in one step with the rows that it covers, and
// good as long as the files are those of the snapshot, also when the snapshot itself is gone (leaveToWatermarks).
type cursor struct {
	tally
	Time  time.Time `json:"time"`            // of all its events
	Seen  string    `json:"seen,omitempty"`  // the snapshot, as pg_current_snapshot has it
	Table uint32    `json:"table,omitempty"` // all tables with lower OIDs are stored, as they are published
	Piece uint32    `json:"piece,omitempty"` // and of this one all partitions with lower OIDs than this
	Open  []piece   `json:"open,omitempty"`  // what of those from there on is not untouched

	After [][]byte `json:"after,omitempty"` // as an earlier version wrote it: the last row's key; what Table has behind it is left
}

// errHurry ends the reading of the exported snapshot while rows are left.
var errHurry = errors.New("the snapshot keeps too much of the log")

// snapshot reads the rows as of the exported snapshot, over several connections, and puts them before all that the slot
// brings. It leaves r.state at the begin of the stream.
type snapshot struct {
	*run
	plan   *plan
	slot   events.LSN
	cursor cursor          // as of the last batch that was made; it belongs to who has the turn
	stored cursor          // as of the last one that was handed over; as cursor
	behind ingest.Position // of that; as cursor
	pace   pace
	report *report

	mu    sync.Mutex
	index uint32        // of the last place that was given out; guarded by mu
	tail  chan struct{} // closed when the batch of the last turn was put; guarded by mu
}

// snapshot reads all rows, and goes on with watermarks where it has to be quick.
func (r *run) snapshot(ctx context.Context, exported string) error {
	s := &snapshot{
		run: r, slot: r.out.position.EndLSN, cursor: cursor{Time: time.Now().UTC()}, report: r.newReport(),
		tail: make(chan struct{}),
	}
	close(s.tail)
	conns, err := s.connect(ctx, exported)
	defer func() {
		for _, conn := range conns {
			closeConn(ctx, conn)
		}
	}()
	if err != nil {
		return err
	}
	if err := s.makePlan(ctx, conns[0]); err != nil {
		return fmt.Errorf("list the tables of the snapshot: %w", err)
	}
	s.pace.began = time.Now()
	if err := s.mark(ctx, r.out, 0, 0, 0); err != nil { // from here on it goes on where it was cut off
		return err
	}
	err = s.readAll(ctx, conns)
	if err != nil && !errors.Is(err, errHurry) {
		return err
	}
	if err == nil {
		s.fill(&s.stored)
	}
	if r.out.position = s.behind; s.stored.Table != math.MaxUint32 {
		r.opts.Log.Info("the rest of the snapshot is read among the changes", "rows", s.stored.ReadRows)
		return r.leaveToWatermarks(ctx, s.stored)
	}
	r.out.position.Phase, r.out.position.Cursor = ingest.PhaseStreaming, nil
	r.out.mark(s.slot)
	if err := r.out.flush(ctx); err != nil {
		return err
	}
	s.report.nothing()
	r.opts.Log.Info("snapshot done", "rows", s.stored.ReadRows, "bytes", s.stored.ReadBytes, "took", time.Since(s.pace.began).Round(time.Millisecond))
	r.state.Last, r.state.Through, r.state.Position = s.at(r.out.position.Index), s.slot, r.out.position
	return nil
}

func (r *run) newReport() *report {
	return &report{log: r.opts.Log, metrics: r.metrics, logged: time.Now()}
}

// connect opens the connections that read, on one and the same snapshot: as many as the server lets in, at least one.
func (s *snapshot) connect(ctx context.Context, exported string) ([]*pgx.Conn, error) {
	var conns []*pgx.Conn
	for range max(1, s.opts.SnapshotParallel) {
		conn, err := s.connector.open(ctx)
		switch {
		case err == nil:
			conns = append(conns, conn)
		case len(conns) == 0:
			return nil, fmt.Errorf("connect for the snapshot: %w", err)
		default:
			s.opts.Log.Warn("the snapshot is read over fewer connections than sources[].snapshot_parallel", "connections", len(conns), "err", err)
			return conns, nil
		}
		if err := s.beginSnapshot(ctx, conn, exported); err != nil {
			return conns, fmt.Errorf("begin the snapshot: %w", err)
		}
	}
	return conns, nil
}

// beginSnapshot begins a transaction that reads rows: as of an exported snapshot in the order of their places, or, where
// none is named, as they are now.
func (r *run) beginSnapshot(ctx context.Context, conn *pgx.Conn, exported string) error {
	statements := []string{"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"}
	if exported != "" {
		statements = append(statements, "SET TRANSACTION SNAPSHOT "+quoteLiteral(exported),
			"SET LOCAL enable_seqscan = off", "SET LOCAL enable_indexscan = off", "SET LOCAL enable_bitmapscan = off",
			"SET LOCAL enable_tidscan = on") // rows come by their places, from the blocks that were asked for
	}
	statements = append(statements,
		"SET LOCAL enable_sort = off",                   // a key's order comes from its index, not from a copy of the table
		"SET LOCAL max_parallel_workers_per_gather = 0", // the rows of a table without a key come in their places' order,
		"SET LOCAL synchronize_seqscans = off",          // from the first
		"SET LOCAL row_security = off")                  // an error is better than rows that are missing
	if _, err := conn.Exec(ctx, strings.Join(statements, "; ")); err != nil {
		return err
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

// readAll reads what the plan has, and watches meanwhile what the slot keeps.
func (s *snapshot) readAll(ctx context.Context, conns []*pgx.Conn) error {
	group, ctx := errgroup.WithContext(ctx)
	watched, stop := context.WithCancel(ctx)
	defer stop()
	group.Go(func() error { return s.watchSlot(watched) })
	group.Go(func() error {
		defer stop()
		all := make([]*chunkReader, len(conns)) // before one of them moves the position
		for i, conn := range conns {
			all[i] = s.newChunkReader(conn)
		}
		readers, ctx := errgroup.WithContext(ctx)
		for _, reader := range all {
			readers.Go(func() error { return reader.run(ctx) })
		}
		return readers.Wait()
	})
	return group.Wait()
}

// at is the place of a row: before all that the slot brings.
func (s *snapshot) at(index uint32) events.Sequence {
	return events.Sequence{Commit: uint64(s.slot - 1), Index: index}
}

// turn is the right to put a batch: batches are put in the order of their places, and made side by side.
type turn struct {
	first  uint32 // the index of its first row
	before <-chan struct{}
	put    chan<- struct{}
}

// line gives out the next places.
func (s *snapshot) line(rows int) (turn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if uint32(rows) > math.MaxUint32-s.index {
		return turn{}, refused("the snapshot of %s has more than %d rows: set sources[].snapshot to false, or name fewer tables", s.opts.Name, uint32(math.MaxUint32))
	}
	put := make(chan struct{})
	t := turn{first: s.index + 1, before: s.tail, put: put}
	s.index += uint32(rows)
	s.tail = put
	return t, nil
}

// await returns when all batches before were put.
func (t *turn) await(ctx context.Context) error {
	select {
	case <-t.before:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// fill completes a cursor with what is left now. It is for who has the turn.
func (s *snapshot) fill(c *cursor) {
	c.Table, c.Piece, c.Open = s.plan.left()
	c.Done = s.plan.done()
	c.SecondsLeft = s.pace.left(c.Done, time.Now())
}

// mark puts the cursor behind the rows of a batch, whose last place is index. It is for who has the turn.
func (s *snapshot) mark(ctx context.Context, out *output, index uint32, rows, bytes uint64) error {
	s.cursor.ReadRows += rows
	s.cursor.ReadBytes += bytes
	s.fill(&s.cursor)
	encoded, err := json.Marshal(s.cursor)
	if err != nil {
		return fmt.Errorf("encode the cursor: %w", err)
	}
	position := &s.out.position
	position.CommitLSN, position.Index, position.XID, position.Cursor = s.slot-1, index, 0, encoded
	out.position = *position
	out.mark(s.slot)
	s.report.read(rows, bytes)
	s.report.at("the snapshot", &s.cursor.tally, time.Now())
	if err := out.flush(ctx); err != nil {
		return err
	}
	s.stored, s.behind = s.cursor, *position
	return nil
}

const lookAtSlotEvery = 5 * time.Second

// watchSlot ends the reading when the slot is about to be lost for what it keeps: what is left is then read among the
// changes, whose log can be let go.
func (s *snapshot) watchSlot(ctx context.Context) error {
	tick := time.NewTicker(lookAtSlotEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		var there Standing
		err := s.query.do(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
			there, err = stand(ctx, conn, s.opts.Slot)
			return err
		})
		if err != nil {
			continue // who reads will notice
		}
		if there.inDanger() {
			s.opts.Log.Warn("the slot keeps almost as much of the log as max_slot_wal_keep_size allows", "bytes", there.Retained(), "left", there.SafeBytes)
			return errHurry
		}
	}
}

// inDanger tells whether the slot will soon be lost if nobody reads from it.
func (s Standing) inDanger() bool {
	const part = 10
	return s.WALStatus == "unreserved" || s.SafeBytes >= 0 && s.Exists && s.SafeBytes < s.Retained()/part
}
