package pgcdc

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/tributary-dev/tributary/pkg/events"
)

// readings reads the rows of tables while their changes come, and puts them among the changes.
//
// A chunk of rows is read by one query (reading_chunk.go). Then a message is written to the log, in a transaction of its
// own; where the stream brings it is the chunk's place. Every transaction that the query saw has its place before, so no
// row is older than a change that came before it unless a transaction that the query did not see changed it: those rows
// are left out, since that change has brought what they are now. Which these are is known from the transactions' numbers
// and the snapshot of the query: a low mark would not do, as a commit comes through the stream before queries see it, with
// synchronous replication much before. The reader follows the rows that change from the begin of a reading on, or from the
// begin of the session; what was committed before that is waited for (awaitWriters).
//
// Rows are read in the order of their key, in which no change but that of a key moves them. Where there is no key, only
// rows are put that nobody changed since the table's begin, for those stay in their places; the others come as changes.
type readings struct {
	*run
	rows   *rowEvents
	report *report
	wake   chan struct{} // holds a token when there may be something to read
	token  string        // of the session, with which its chunks' begin
	paces  map[events.LSN]pace

	mu      sync.Mutex
	pending []reading     // to be read, the first one now; guarded by mu
	stop    func()        // ends the first one's query, where one is under way; guarded by mu
	ended   []Ended       // the last ones that were asked for; guarded by mu
	offered *chunk        // whose place did not come yet; guarded by mu
	seen    *visibility   // of the last query: no later one sees less; guarded by mu
	arrived chan struct{} // closed and replaced when something that was asked for is stored; guarded by mu

	changed map[uint32]*changes // by table; the reader's own
}

func newReadings(r *run, cursor readingsCursor) *readings {
	a := &readings{
		run: r, report: r.newReport(), wake: make(chan struct{}, 1), token: rand.Text(), paces: map[events.LSN]pace{},
		pending: cursor.Readings, ended: cursor.Ended, arrived: make(chan struct{}), changed: map[uint32]*changes{},
	}
	a.rows = r.newRowEvents()
	if len(a.pending) == 0 {
		a.report.nothing()
	}
	a.wakeUp()
	return a
}

func (a *readings) wakeUp() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// next gives the reading that is to go on.
func (a *readings) next() (reading, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.pending) == 0 {
		return reading{}, false
	}
	return a.pending[0], true
}

// stopBy says how the query of a reading is stopped from now on; nil: none is under way. It is false where the reading is not
// the first one any more.
func (a *readings) stopBy(of reading, stop func()) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stop = stop
	return len(a.pending) > 0 && a.pending[0].LSN == of.LSN
}

// offer makes a chunk known before its message is written.
func (a *readings) offer(c *chunk) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.offered = c
	if c.visible != nil {
		a.seen = c.visible
	}
}

// withdraw takes an offer back. It is false where the chunk's place has come already.
func (a *readings) withdraw(c *chunk) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.offered != c {
		return false
	}
	a.offered = nil
	return true
}

// saw notes what a query sees while no chunk is offered.
func (a *readings) saw(v *visibility) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seen = v
}

// following tells whether changes matter: only the reader calls it, and only the reader makes it true.
func (a *readings) following() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.pending) > 0
}

// came is told of each transaction that is nothing but a message with our prefix.
func (a *readings) came(ctx context.Context, t ownTransaction) error {
	var m additionMessage
	if json.Unmarshal(t.content, &m) != nil || m.Slot != a.opts.Slot {
		return nil
	}
	switch {
	case len(m.Added) > 0:
		return a.begin(ctx, t, reading{Tables: m.Added})
	case m.Asked != nil:
		return a.begin(ctx, t, reading{Tables: []uint32{m.Asked.OID}, Asked: m.Asked})
	case m.Cancel != nil:
		return a.cancel(ctx, t, m.Cancel)
	case m.Read != "":
		a.mu.Lock()
		c := a.offered
		if c == nil || c.token != m.Read {
			a.mu.Unlock()
			return nil // of an earlier session, whose rows are read again
		}
		a.offered = nil
		a.mu.Unlock()
		return a.place(ctx, t.commit, c)
	}
	return nil
}

// begin stores that tables are to be read.
func (a *readings) begin(ctx context.Context, t ownTransaction, r reading) error {
	r.LSN, r.Time = t.commit, t.committed
	a.mu.Lock()
	for i := range a.pending {
		if a.pending[i].LSN == r.LSN || r.Asked != nil && a.pending[i].Asked != nil && a.pending[i].Asked.ID == r.Asked.ID {
			a.mu.Unlock()
			return nil
		}
	}
	if r.Asked != nil && slices.ContainsFunc(a.ended, func(e Ended) bool { return e.ID == r.Asked.ID }) {
		a.mu.Unlock()
		return nil // it was asked for twice, since the first answer did not come
	}
	a.pending = append(a.pending, r)
	a.mu.Unlock()
	if err := a.store(ctx, t.commit+1); err != nil {
		return err
	}
	a.announce()
	a.wakeUp()
	return nil
}

// announce wakes who waits for what was asked for to be stored.
func (a *readings) announce() {
	a.mu.Lock()
	defer a.mu.Unlock()
	close(a.arrived)
	a.arrived = make(chan struct{})
}

// store puts a mark with the cursor behind what was put; every commit that begins before end came.
func (a *readings) store(ctx context.Context, end events.LSN) error {
	a.mu.Lock()
	encoded, err := readingsCursor{a.pending, a.ended}.encode()
	a.mu.Unlock()
	if err != nil {
		return err
	}
	a.out.position.Cursor = encoded
	a.out.mark(end)
	return a.out.flush(ctx)
}

// place puts the rows of a chunk where its message came, and moves the cursor behind them, in one step.
func (a *readings) place(ctx context.Context, commit events.LSN, c *chunk) error {
	defer close(c.placed)
	if next, any := a.next(); !any || next.LSN != c.reading.LSN {
		return nil // it was cancelled meanwhile
	}
	good := a.compare(c)
	if good == 0 && len(c.rows) > 0 {
		return nil // the same rows are read again
	}
	if good < len(c.rows) {
		c.rows, c.more = c.rows[:good], true
	}
	if err := a.out.flush(ctx); err != nil {
		return err
	}
	a.rows.time = c.reading.Time
	index := uint32(0)
	for read := 0; ; {
		from := read
		var err error
		if read, err = a.fill(ctx, commit, c, from, &index); err != nil {
			return err
		}
		if err := a.store(ctx, commit+1); err != nil {
			return err
		}
		if read >= len(c.rows) {
			a.tell()
			return nil
		}
	}
}

// fill puts rows of a chunk from one on, as many as are stored in one step, moves the cursor behind them, and tells where
// to go on.
func (a *readings) fill(ctx context.Context, commit events.LSN, c *chunk, from int, index *uint32) (read int, err error) {
	put, bytes := uint64(0), uint64(0)
	b := a.out.batch
	for read = from; read < len(c.rows) && len(b.Items) < chunkRows && len(b.Buf) < chunkBytes; read++ {
		row := &c.rows[read]
		bytes += uint64(row.size)
		if c.stale[read] || row.skip {
			continue
		}
		a.rows.lsn = c.reading.LSN
		if row.changed {
			a.rows.lsn = commit
		}
		put++
		*index++
		if err := a.rows.put(ctx, a.out, c.table, row.values, row.ctid, events.Sequence{Commit: uint64(commit), Index: *index}); err != nil {
			return read, err
		}
	}
	if items := b.Items; len(items) > 0 && read == len(c.rows) {
		items[len(items)-1].Through = commit + 1
	}
	a.report.read(put, bytes)
	return read, a.advance(c, read, put, bytes)
}

// tell reports how far the first reading is.
func (a *readings) tell() {
	next, any := a.next()
	if any {
		a.report.at(next.kind(), &next.tally, time.Now())
	}
}

// advance moves the cursor behind the rows of a chunk that were read.
func (a *readings) advance(c *chunk, read int, put, bytes uint64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	first := &a.pending[0]
	first.count(put, bytes, c.reading.Expect, a.paces)
	if c.table != nil && c.again == nil && !first.reached(c.table.OID) {
		first.startOver()
		if err := a.noteUnseen(first, c); err != nil {
			return err
		}
	}
	switch {
	case c.table == nil:
		a.end(c)
	case c.barred:
		first.startOver()
		a.endPass(first, c.table)
	case c.again != nil:
		if read < len(c.rows) {
			return nil
		}
		if a.settle(first, c); c.lost {
			for _, e := range c.again {
				first.lostAll(e.XID)
			}
		}
		if first.Drain && len(first.Again) == 0 {
			a.endPass(first, c.table)
		}
	case read < len(c.rows) || c.more:
		last := &c.rows[read-1]
		var key [][]byte
		for _, i := range c.table.relation.key {
			key = append(key, last.values[i])
		}
		sealed, err := a.seal(c.table.relation, key)
		if err != nil {
			return err
		}
		if !c.table.keyed() {
			sealed, first.File, first.Seen = [][]byte{last.ctid}, c.file, c.seen
		}
		first.Table, first.After = c.table.OID, sealed
	default:
		if first.Table, first.Drain = c.table.OID, true; len(first.Again) == 0 {
			a.endPass(first, c.table)
		}
	}
	return nil
}

const endedKept = 16

// end takes the first reading off the list. The lock is held.
func (a *readings) end(c *chunk) {
	first := a.pending[0]
	a.pending = a.pending[1:]
	if first.Asked != nil {
		e := Ended{ID: first.Asked.ID, LSN: first.LSN, Table: first.Asked.Table, Rows: first.ReadRows, Time: time.Now().UTC()}
		if c.failed != nil {
			e.Error = c.failed.Error()
		}
		a.keepEnded(e)
	}
	if len(a.pending) == 0 {
		clear(a.changed)
		a.report.nothing()
	}
	a.opts.Log.Info("rows read", "kind", first.kind(), "rows", first.ReadRows, "bytes", first.ReadBytes)
}

// keepEnded remembers what came of a reading. The lock is held.
func (a *readings) keepEnded(e Ended) {
	a.ended = append(a.ended, e)
	if len(a.ended) > endedKept {
		a.ended = slices.Clone(a.ended[len(a.ended)-endedKept:])
	}
}

// count adds what was read to the tally, and estimates how long the rest takes.
func (r *reading) count(rows, bytes uint64, expect float64, paces map[events.LSN]pace) {
	const almost = 0.999 // an estimate can be too low
	now := time.Now()
	r.Expect = expect
	r.ReadRows += rows
	r.ReadBytes += bytes
	if r.Expect > 0 {
		r.Done = max(r.Done, min(almost, float64(r.ReadRows)/r.Expect))
	}
	p, known := paces[r.LSN]
	if !known {
		p = pace{began: now, from: r.Done}
		paces[r.LSN] = p
	}
	r.SecondsLeft = p.left(r.Done, now)
}
