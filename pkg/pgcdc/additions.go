package pgcdc

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"sync"

	"github.com/tributary-dev/tributary/pkg/events"
)

// additions reads the rows that tables held when they were added to the publication, and puts them among the changes.
//
// A chunk of rows is read by one query (added_rows.go). Then a message is written to the log, in a transaction of its own;
// where the stream brings it is the chunk's place. Every transaction that the query saw has its place before, so no row is
// older than a change that came before it unless a transaction that the query did not see changed it: those rows are left
// out, since that change has brought what they are now. Which these are is known from the transactions' numbers and the
// snapshot of the query: a low mark would not do, as a commit comes through the stream before queries see it, with
// synchronous replication much before. The reader follows the keys that change from the addition on, or from the begin of
// the session; what was committed before that is waited for (awaitWriters).
type additions struct {
	*run
	rows  *rowEvents
	wake  chan struct{} // holds a token when there may be something to read
	token string        // of the session, with which its chunks' begin

	mu      sync.Mutex
	pending []addition  // to be read, the first one now; guarded by mu
	offered *chunk      // whose place did not come yet; guarded by mu
	seen    *visibility // of the last query: no later one sees less; guarded by mu

	changed map[uint32]*changes // by table; the reader's own
}

// changes are those of one table that a query may not have seen.
type changes struct {
	keys      map[string]touch
	truncated uint32 // the transaction; 0 for none
	sweep     int    // how many keys make it worth to look for those that were seen
}

// touch is the last change of a row.
type touch struct {
	xid     uint32
	partial bool // it did not bring the row's large values
}

const sweepKeys = 4096

func newAdditions(r *run, pending []addition) *additions {
	a := &additions{run: r, wake: make(chan struct{}, 1), token: rand.Text(), pending: pending, changed: map[uint32]*changes{}}
	a.rows = r.newRowEvents()
	a.wakeUp()
	return a
}

func (a *additions) wakeUp() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// next gives the addition to be read.
func (a *additions) next() (addition, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.pending) == 0 {
		return addition{}, false
	}
	return a.pending[0], true
}

// offer makes a chunk known before its message is written.
func (a *additions) offer(c *chunk) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.offered = c
	if c.visible != nil {
		a.seen = c.visible
	}
}

// withdraw takes an offer back. It is false where the chunk's place has come already.
func (a *additions) withdraw(c *chunk) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.offered != c {
		return false
	}
	a.offered = nil
	return true
}

// saw notes what a query sees while no chunk is offered.
func (a *additions) saw(v *visibility) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seen = v
}

// following tells whether changes matter: only the reader calls it, and only the reader makes it true.
func (a *additions) following() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.pending) > 0
}

// came is told of each transaction that is nothing but a message with our prefix.
func (a *additions) came(ctx context.Context, t ownTransaction) error {
	var m additionMessage
	if json.Unmarshal(t.content, &m) != nil || m.Slot != a.opts.Slot {
		return nil
	}
	switch {
	case len(m.Added) > 0:
		return a.added(ctx, t, m.Added)
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

// added stores that tables are to be read.
func (a *additions) added(ctx context.Context, t ownTransaction, tables []uint32) error {
	a.mu.Lock()
	for i := range a.pending {
		if a.pending[i].LSN == t.commit {
			a.mu.Unlock()
			return nil
		}
	}
	a.pending = append(a.pending, addition{LSN: t.commit, Time: t.committed, Tables: tables})
	a.mu.Unlock()
	if err := a.store(ctx, t.commit); err != nil {
		return err
	}
	a.wakeUp()
	return nil
}

// store puts a mark with the cursor behind what was put.
func (a *additions) store(ctx context.Context, commit events.LSN) error {
	a.mu.Lock()
	encoded, err := encodeAdditions(a.pending)
	a.mu.Unlock()
	if err != nil {
		return err
	}
	a.out.position.Cursor = encoded
	a.out.mark(commit + 1)
	return a.out.flush(ctx)
}

// place puts the rows of a chunk where its message came, and moves the cursor behind them, in one step.
func (a *additions) place(ctx context.Context, commit events.LSN, c *chunk) error {
	defer close(c.placed)
	stale, good := a.compare(c)
	if good == 0 && len(c.rows) > 0 {
		return nil // the same rows are read again
	}
	if good < len(c.rows) {
		c.rows, c.more = c.rows[:good], true
	}
	if err := a.out.flush(ctx); err != nil {
		return err
	}
	before := a.out.position
	read, put := 0, uint32(0)
	a.rows.lsn, a.rows.time = c.addition.LSN, c.addition.Time
	for ; read < len(c.rows) && len(a.out.batch.Buf) < chunkBytes; read++ {
		if stale[read] {
			continue
		}
		put++
		if err := a.rows.put(ctx, a.out, c.table, c.rows[read], events.Sequence{Commit: uint64(commit), Index: put}); err != nil {
			return err
		}
	}
	b := a.out.batch
	if c.table != nil && !c.table.keyed() && (c.more || read < len(c.rows)) {
		b.Items, b.Buf, a.out.position, put = b.Items[:0], b.Buf[:0], before, 0
		a.opts.Log.Warn("a new table has no key, and more rows than are stored in one step: what it held before is not read",
			"table", c.table.relation.String())
	}
	a.metrics.snapshotRows.Add(float64(put))
	if last := len(b.Items) - 1; last >= 0 { // a filter may have held all of them back
		b.Items[last].Through = commit + 1
	}
	if err := a.advance(c, read); err != nil {
		return err
	}
	return a.store(ctx, commit)
}

// advance moves the cursor behind the rows of a chunk that were read.
func (a *additions) advance(c *chunk, read int) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	first := &a.pending[0]
	switch {
	case c.table == nil:
		a.pending = a.pending[1:]
		if len(a.pending) == 0 {
			clear(a.changed)
		}
	case c.table.keyed() && (read < len(c.rows) || c.more):
		var key [][]byte
		for _, i := range c.table.relation.key {
			key = append(key, c.rows[read-1][i])
		}
		sealed, err := a.seal(c.table.relation, key)
		if err != nil {
			return err
		}
		first.Table, first.After = c.table.OID, sealed
	default:
		first.Table, first.After = c.table.OID+1, nil
		delete(a.changed, c.table.OID)
		a.opts.Log.Info("table read", "table", c.table.relation.String())
	}
	return nil
}

// compare tells which rows changed in transactions that the chunk's query did not see, and how many of the rows, from the
// first on, are good to be put. Another query is needed from a row on whose unseen change left values out, and for a whole
// table whose rows can't be told apart.
func (a *additions) compare(c *chunk) (stale []bool, good int) {
	stale, good = make([]bool, len(c.rows)), len(c.rows)
	if c.table == nil || a.changed[c.table.OID] == nil {
		return stale, good
	}
	changed := a.changed[c.table.OID]
	changed.forget(c.visible)
	truncated := changed.truncated != 0 && !c.visible.sees(changed.truncated)
	if !c.table.keyed() {
		if truncated || len(changed.keys) > 0 {
			good = 0
		}
		return stale, good
	}
	var key []byte
	for n, row := range c.rows {
		key = key[:0]
		for _, i := range c.table.relation.key {
			key = appendPart(key, row[i])
		}
		t, unseen := changed.keys[string(key)]
		if unseen && t.partial {
			return stale, n
		}
		stale[n] = truncated || unseen
	}
	return stale, good
}

// forget drops what every later query sees.
func (c *changes) forget(v *visibility) {
	for key, t := range c.keys {
		if v.sees(t.xid) {
			delete(c.keys, key)
		}
	}
	c.sweep = max(sweepKeys, 2*len(c.keys))
}

// of gives the changes of a table.
func (a *additions) of(oid uint32) *changes {
	c := a.changed[oid]
	if c == nil {
		c = &changes{keys: map[string]touch{}, sweep: sweepKeys}
		a.changed[oid] = c
	}
	return c
}

// touched is told of each change of a row, with the row after it, and the old one where it came.
func (a *additions) touched(rel *relation, xid uint32, row, old []field) {
	a.mu.Lock()
	seen, following := a.seen, len(a.pending) > 0
	a.mu.Unlock()
	if !following || seen != nil && seen.sees(xid) {
		return
	}
	c := a.of(rel.oid)
	t := touch{xid: xid}
	for i := range row {
		t.partial = t.partial || row[i].kind == fieldUnchanged && (old == nil || old[i].kind == fieldUnchanged)
	}
	c.keys[fieldsKey(rel, row, old)] = t
	if old != nil {
		if before := fieldsKey(rel, old, nil); before != fieldsKey(rel, row, old) {
			c.keys[before] = touch{xid: xid}
		}
	}
	if len(c.keys) >= c.sweep && seen != nil {
		c.forget(seen)
	}
}

// emptied is told of each TRUNCATE.
func (a *additions) emptied(rel *relation, xid uint32) {
	if a.following() {
		a.of(rel.oid).truncated = xid
	}
}

// fieldsKey names a row of the stream by its key columns; by nothing in a table that has none.
func fieldsKey(rel *relation, row, old []field) string {
	var key []byte
	for _, i := range rel.key {
		f := &row[i]
		if f.kind == fieldUnchanged && old != nil {
			f = &old[i]
		}
		key = appendPart(key, f.text)
	}
	return string(key)
}

// appendPart appends a text behind its length, so that no two lists of texts are the same.
func appendPart(dst, text []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(text))), text...)
}
