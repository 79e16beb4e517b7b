package pgcdc

import (
	"context"
	"encoding/binary"

	"github.com/tributary-dev/tributary/pkg/events"
)

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
	moved   bool // nor did a change that gave the row this key
}

const sweepKeys = 4096

// compare marks the rows that changed in transactions which the chunk's query did not see, and tells how many of the rows,
// from the first on, are good to be put. Another query is needed from a row on whose unseen change left values out, and from one on
// that looks like a changed one in a table whose rows can't be told apart.
func (a *readings) compare(c *chunk) (good int) {
	c.stale = make([]bool, len(c.rows))
	if c.table == nil || a.changed[c.table.OID] == nil {
		return len(c.rows)
	}
	changed := a.changed[c.table.OID]
	changed.forget(c.visible)
	truncated := changed.truncated != 0 && !c.visible.sees(changed.truncated)
	keyed := c.table.keyed()
	if truncated && !keyed {
		return 0
	}
	var key []byte
	for n := range c.rows {
		key = key[:0]
		if keyed {
			key = c.appendKey(key, n)
		} else {
			for _, value := range c.rows[n].values {
				key = appendPart(key, value)
			}
		}
		t, unseen := changed.keys[string(key)]
		if unseen && (t.partial || !keyed) {
			return n
		}
		c.stale[n] = truncated || unseen
	}
	return len(c.rows)
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
func (a *readings) of(oid uint32) *changes {
	c := a.changed[oid]
	if c == nil {
		c = &changes{keys: map[string]touch{}, sweep: sweepKeys}
		a.changed[oid] = c
	}
	return c
}

// touched is told of each change of a row before it is put, with the row after it, and the old one where it came; of a
// delete with the old one alone.
func (a *readings) touched(ctx context.Context, op events.Op, rel *relation, xid uint32, row, old []field) error {
	a.mu.Lock()
	seen, following := a.seen, len(a.pending) > 0
	a.mu.Unlock()
	if !following {
		return nil
	}
	if old != nil && len(rel.key) > 0 && lacking(rel, row, old) {
		if before, key := fieldsKey(rel, old, nil), fieldsKey(rel, row, old); before != key {
			if err := a.moved(ctx, rel, before, key, xid); err != nil {
				return err
			}
		}
	}
	if seen != nil && seen.sees(xid) {
		return nil
	}
	c := a.of(rel.oid)
	if len(rel.key) == 0 {
		if op == events.OpDelete {
			old = row
		}
		if old != nil { // a row that was inserted is in no chunk whose query did not see that
			c.keys[wholeRow(old)] = touch{xid: xid}
		}
	} else {
		c.touch(rel, xid, row, old)
	}
	if len(c.keys) >= c.sweep && seen != nil {
		c.forget(seen)
	}
	return nil
}

// lacking tells whether a change leaves out values of columns that events have.
func lacking(rel *relation, row, old []field) bool {
	for i := range row {
		if row[i].kind == fieldUnchanged && (old == nil || old[i].kind == fieldUnchanged || old[i].kind == fieldNull) && !rel.columns[i].hidden {
			return true
		}
	}
	return false
}

// touch notes the change of a row that has a key.
func (c *changes) touch(rel *relation, xid uint32, row, old []field) {
	t := touch{xid: xid, partial: lacking(rel, row, old)}
	key, before := fieldsKey(rel, row, old), ""
	if t.moved = t.partial && c.keys[key].moved; old != nil {
		before = fieldsKey(rel, old, nil)
	}
	if old != nil && before != key {
		t.moved = t.partial
		c.keys[before] = touch{xid: xid}
	}
	c.keys[key] = t
}

// emptied is told of each TRUNCATE.
func (a *readings) emptied(rel *relation, xid uint32) {
	if a.following() {
		a.of(rel.oid).truncated = xid
	}
}

// wholeRow names a row by all that it holds.
func wholeRow(row []field) string {
	var key []byte
	for i := range row {
		key = appendPart(key, row[i].text)
	}
	return string(key)
}

// fieldsKey names a row of the stream by its key columns.
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

// appendKey appends the name of a row of a chunk by its key columns, which is that of fieldsKey.
func (c *chunk) appendKey(dst []byte, row int) []byte {
	for _, i := range c.table.relation.key {
		dst = appendPart(dst, c.rows[row].values[i])
	}
	return dst
}

// appendPart appends a text behind its length, so that no two lists of texts are the same.
func appendPart(dst, text []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(text))), text...)
}
