package pgcdc

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// guardEvery is how often the server is asked for a sign of life while the reader is held up, and else for new tables.
const guardEvery = time.Second

// heartbeat does what is due beside reading: it writes to the log of a database that is idle, and sees it come back
// through the stream; it adds new tables to the publication; and it watches the server while the reader is held up.
type heartbeat struct {
	*run
	data atomic.Uint64 // counts messages of the output plugin
	sent atomic.Int64  // the token of a heartbeat that has not come back, else 0

	seen   uint64 // of data, at the last beat
	mute   bool   // heartbeats can't be written, which was logged
	lost   bool   // the last one did not come back, which was logged
	frozen bool   // tables can't be added, which was logged
	tables string // what told the tables apart when they were last looked at
}

// loop runs until ctx ends, or the server is gone.
func (h *heartbeat) loop(ctx context.Context) error {
	tick := time.NewTicker(guardEvery)
	defer tick.Stop()
	var beats <-chan time.Time
	if h.opts.Heartbeat > 0 {
		ticker := time.NewTicker(h.opts.Heartbeat)
		defer ticker.Stop()
		beats = ticker.C
	}
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case now := <-tick.C:
			if err := h.guard(ctx, now); err != nil {
				return err
			}
			h.lookForTables(ctx)
		case now := <-beats:
			h.beat(ctx, now)
			h.refreshTables(ctx)
		}
	}
}

// guard ends the stream of a server that shuts down while the reader is held up. The server waits until all is received,
// which may be hours away, but it has ended our other connection by then, and takes no new one.
func (h *heartbeat) guard(ctx context.Context, now time.Time) error {
	if h.out.blockedFor(now) < guardEvery {
		return nil
	}
	alive := func(context.Context, *pgx.Conn) error { return nil }
	if err := h.query.do(ctx, alive); err != nil {
		return fmt.Errorf("look after the server while publishing waits: %w", err)
	}
	return nil
}

// beat writes a heartbeat where nothing came since the last one.
func (h *heartbeat) beat(ctx context.Context, now time.Time) {
	if token := h.sent.Load(); token != 0 && h.out.blockedFor(now) == 0 {
		if !h.lost {
			h.opts.Log.Warn("a heartbeat did not come back through the stream yet", "after", now.Sub(time.Unix(0, token)))
		}
		h.lost = true
		return
	}
	h.lost = false
	if data := h.data.Load(); data != h.seen {
		h.seen = data
		return
	}
	token := now.UnixNano()
	h.sent.Store(token)
	err := h.query.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "SELECT pg_logical_emit_message(false, $1, $2::text)", heartbeatPrefix, h.content(token))
		return err
	})
	if err != nil {
		h.sent.Store(0)
		if !h.mute && ctx.Err() == nil {
			h.opts.Log.Warn("write a heartbeat: an idle database will hold its slot back until it is written to", "err", err)
		}
	}
	h.mute = err != nil
}

// content names a heartbeat, for one of another source must not be taken for it.
func (h *heartbeat) content(token int64) string {
	return h.opts.Name + " " + strconv.FormatInt(token, 10)
}

// came is told of every heartbeat in the stream.
func (h *heartbeat) came(content []byte) {
	token := h.sent.Load()
	if token != 0 && string(content) == h.content(token) {
		took := time.Since(time.Unix(0, token))
		h.metrics.heartbeat.Set(took.Seconds())
		h.feed.RoundTrip(took)
		h.sent.CompareAndSwap(token, 0)
	}
}

// refreshTables adds the tables to the publication that were made since.
func (h *heartbeat) refreshTables(ctx context.Context) {
	err := h.addTables(ctx)
	if err != nil && !h.frozen && ctx.Err() == nil {
		h.opts.Log.Warn("add new tables to the publication", "publication", h.opts.Publication, "err", err)
	}
	h.frozen = err != nil
}

// lookForTables looks whether anything about tables changed since it last looked, and only then at what it was.
func (h *heartbeat) lookForTables(ctx context.Context) {
	const question = `SELECT concat_ws(' ', count(*), sum(oid::bigint), sum(xmin::text::bigint)) FROM pg_catalog.pg_class WHERE relkind IN ('r', 'p')`
	var tables string
	err := h.query.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, question).Scan(&tables)
	})
	if err != nil || tables == h.tables {
		return // a server that does not answer is seen by what reads it
	}
	h.tables = tables
	h.refreshTables(ctx)
}
