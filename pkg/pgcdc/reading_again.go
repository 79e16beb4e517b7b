package pgcdc

import (
	"bytes"
	"context"
	"encoding/binary"
	"slices"
)

// The event of a change says nothing of large values that the change left alone, unless the replica identity is full. Who
// reads the events knows them from before, but not where the change gave the row another key, and took it from the part of
// a table that is still to be read to the part that was read already: no chunk would have it. Such rows are read by their
// new keys, as chunks of their own. Which they are is stored before the event that moves them is, so that no restart
// forgets one; what a chunk finds is put, and taken off the list, in one step. A list that would be too long ends with a
// transaction's number: whatever was written since is read in one more pass over the table.

const (
	againMost  = 256      // rows on the list
	againBytes = 16 << 10 // of their keys: each position has the list
)

// again is a row that is to be read by its key.
type again struct {
	Key [][]byte `json:"k"` // PostgreSQL's texts of the key columns
	XID uint32   `json:"x"` // the transaction that gave it this key: a query that does not see that does not settle it
}

// reached tells whether rows of a table were read, so that others may come behind them.
func (r *reading) reached(table uint32) bool {
	return r.Table == table && (r.After != nil || r.Pass != 0 || r.Drain)
}

// lost notes that a row has a new key which may lie behind what was read, and tells whether that is new.
func (r *reading) lost(key [][]byte, xid uint32) bool {
	size := 0
	for i := range r.Again {
		for _, part := range r.Again[i].Key {
			size += len(part)
		}
	}
	if len(r.Again) < againMost && size < againBytes {
		r.Again = append(slices.Clone(r.Again), again{key, xid})
		return true
	}
	return r.lostAll(xid)
}

// lostAll is lost for all rows that a transaction or a later one wrote.
func (r *reading) lostAll(xid uint32) bool {
	if r.Since != 0 && int32(xid-r.Since) >= 0 {
		return false
	}
	r.Since = xid
	return true
}

// startOver forgets what was noted of a table.
func (r *reading) startOver() { r.Again, r.Since, r.Pass, r.Drain = nil, 0, 0, false }

// moved is told of a change that gave a row another key and left large values out, before its event is put.
func (a *readings) moved(ctx context.Context, rel *relation, before, key string, xid uint32) error {
	noted, err := a.noteMoved(rel, before, key, xid)
	if err != nil || !noted {
		return err
	}
	return a.store(ctx, 0)
}

func (a *readings) noteMoved(rel *relation, before, key string, xid uint32) (noted bool, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.pending) == 0 || !a.pending[0].reached(rel.oid) {
		return false, nil // what is to be read is read by its new key
	}
	first := &a.pending[0]
	if first.Drain { // all rows but those on the list were read
		at := slices.IndexFunc(first.Again, func(e again) bool { return a.isKey(e, before) })
		if at < 0 {
			return false, nil
		}
		first.Again = slices.Delete(slices.Clone(first.Again), at, at+1)
	}
	sealed, err := a.seal(rel, keyParts(key))
	if err != nil {
		return false, err
	}
	return first.lost(sealed, xid), nil
}

func (a *readings) isKey(e again, key string) bool {
	parts, ok := a.open(e.Key)
	return ok && joinParts(parts) == key
}

// noteUnseen puts the rows on the list that moved before the first chunk of their table came to its place, and that its
// query did not see where they are now. The lock is held.
func (a *readings) noteUnseen(first *reading, c *chunk) error {
	changed := a.changed[c.table.OID]
	if changed == nil || !c.table.keyed() {
		return nil
	}
	for key, t := range changed.keys {
		if !t.moved || c.visible != nil && c.visible.sees(t.xid) {
			continue
		}
		sealed, err := a.seal(c.table.relation, keyParts(key))
		if err != nil {
			return err
		}
		first.lost(sealed, t.xid)
	}
	return nil
}

// settle takes the rows off the list that a chunk has read. Where it has not all, only those are that it has. The lock is held.
func (a *readings) settle(first *reading, c *chunk) {
	read := map[string]bool{}
	for i := range c.rows {
		read[string(c.appendKey(nil, i))] = true
	}
	first.Again = slices.DeleteFunc(slices.Clone(first.Again), func(e again) bool {
		asked := slices.ContainsFunc(c.again, func(other again) bool {
			return other.XID == e.XID && slices.EqualFunc(other.Key, e.Key, bytes.Equal)
		})
		if !asked || !c.more {
			return asked
		}
		parts, ok := a.open(e.Key)
		return ok && read[joinParts(parts)]
	})
}

// endPass is called at a table's end, when nothing is on the list: the table is done, or read once more. The lock is held.
func (a *readings) endPass(first *reading, t *snapshotTable) {
	first.Table, first.After, first.File, first.Seen = t.OID, nil, 0, ""
	if since := first.Since; since != 0 {
		first.startOver()
		first.Pass = since
		a.opts.Log.Info("many rows got other keys while the table was read: what was written since is read once more", "table", t.relation.String())
		return
	}
	first.startOver()
	first.Table++
	if first.Rest {
		first.Tables = slices.DeleteFunc(slices.Clone(first.Tables), func(oid uint32) bool { return oid < first.Table })
		first.Left = slices.DeleteFunc(slices.Clone(first.Left), func(p piece) bool { return p.As < first.Table })
	}
	delete(a.changed, t.OID)
	a.opts.Log.Info("table read", "table", t.relation.String())
}

// readAgain reads rows of the list, as far as a query sees that they are on it; a chunk without any where it sees none.
func (r *liveReader) readAgain(ctx context.Context, c *chunk) error {
	var keys [][]byte
	t := c.table
	for _, e := range c.reading.Again {
		if !c.visible.sees(e.XID) {
			continue
		}
		parts, ok := r.open(e.Key)
		if !ok || len(parts) != len(t.relation.key) { // sealed by another key, or under a key of other columns
			c.lost = true
		} else {
			keys = append(keys, parts...)
		}
		c.again = append(c.again, e)
	}
	if len(c.again) == 0 || len(keys) == 0 {
		return nil
	}
	if _, err := r.conn.Exec(ctx, "SET LOCAL enable_seqscan = off"); err != nil {
		return err
	}
	q := liveQuery{limit: liveRows, keys: len(keys) / len(t.relation.key)}
	if c.reading.Asked != nil {
		q.where = c.reading.Asked.Where
	}
	return r.fetch(ctx, c, q, keys, &judge{now: c.visible, again: true, keyed: true})
}

// keyParts is the reverse of joinParts.
func keyParts(key string) (parts [][]byte) {
	rest := []byte(key)
	for len(rest) > 0 {
		size, n := binary.Uvarint(rest)
		parts = append(parts, rest[n:n+int(size):n+int(size)])
		rest = rest[n+int(size):]
	}
	return parts
}

func joinParts(parts [][]byte) string {
	var key []byte
	for _, part := range parts {
		key = appendPart(key, part)
	}
	return string(key)
}
