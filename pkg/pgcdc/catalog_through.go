package pgcdc

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/tributary-dev/tributary/pkg/events"
)

// The text of a composite value has no names in it, and nothing on the wire tells when a composite type was altered. So a
// value is given the names that the type had at its change:
//
//   - before a change is written, the catalog is read as of its commit or later (Through). One reading does for all changes
//     that committed before it, so a reader that is behind hardly asks, and one that keeps up asks once for a transaction;
//   - the catalog may be ahead of the change. Then a later transaction than the change's own has altered the type (since), and the
//     names are those of the reading before; where there was none, after a restart, the value is passed as PostgreSQL's text,
//     and counted.
//
// Which of two transactions is the later one is told by their numbers, so one that began before the ALTER, and wrote such a
// value after it, is taken for earlier.

// asOfQuery comes before the other one: what is not visible to that yet is used by nobody who has committed before this.
const asOfQuery = `SELECT (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END)::text`

const shapesQuery = `
SELECT attrelid, string_agg(concat_ws(' ', attnum, attname, atttypid, attisdropped, xmin), ',' ORDER BY attnum)
  FROM pg_catalog.pg_attribute
 WHERE attrelid = ANY ($1::oid[]) AND attnum > 0
 GROUP BY attrelid`

// Through makes what Type gives of composite types as new as commit: what was altered since it was read is forgotten.
func (c *Catalog) Through(ctx context.Context, commit events.LSN) error {
	c.mu.RLock()
	enough := c.asOf >= commit
	c.mu.RUnlock()
	if enough {
		return nil
	}
	asOf, err := c.readAsOf(ctx)
	if err != nil {
		return fmt.Errorf("read how far the log is: %w", err)
	}
	shapes, err := c.readShapes(ctx)
	if err != nil {
		return fmt.Errorf("read composite types: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for relation, shape := range shapes {
		if c.shapes[relation] != shape {
			c.forgetRelation(relation)
		}
		c.shapes[relation] = shape
	}
	c.asOf = max(c.asOf, asOf)
	return nil
}

func (c *Catalog) readAsOf(ctx context.Context) (events.LSN, error) {
	rows, err := c.query(ctx, asOfQuery)
	if err != nil {
		return 0, err
	}
	text, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[string])
	if err != nil {
		return 0, err
	}
	return events.ParseLSN(text)
}

// readShapes describes the composite types that are known, in a text that changes with them.
func (c *Catalog) readShapes(ctx context.Context) (map[uint32]string, error) {
	relations := map[uint32]bool{}
	c.mu.RLock()
	for _, k := range c.types {
		k.typ.addRelations(relations)
	}
	c.mu.RUnlock()
	oids := make([]uint32, 0, len(relations))
	for oid := range relations {
		oids = append(oids, oid)
	}
	rows, err := c.query(ctx, shapesQuery, oids)
	if err != nil {
		return nil, err
	}
	shapes := map[uint32]string{}
	var oid uint32
	var shape string
	_, err = pgx.ForEachRow(rows, []any{&oid, &shape}, func() error { shapes[oid] = shape; return nil })
	return shapes, err
}

// forgetRelation drops all that holds the composite type with these attributes. The lock is held.
func (c *Catalog) forgetRelation(relation uint32) {
	c.resets++
	for oid, k := range c.types {
		held := map[uint32]bool{}
		if k.typ.addRelations(held); held[relation] {
			delete(c.types, oid)
		}
	}
}

// addRelations adds the pg_class OIDs of all composites in t.
func (t *Type) addRelations(to map[uint32]bool) {
	if t.relation != 0 {
		to[t.relation] = true
	}
	if t.elem != nil {
		t.elem.addRelations(to)
	}
	if t.base != nil {
		t.base.addRelations(to)
	}
	for _, f := range t.fields {
		f.typ.addRelations(to)
	}
}

// later tells which of two transactions has the higher number. No two that are compared lie 2^31 apart.
func later(xid, than uint32) bool { return int32(xid-than) > 0 }

// laterOf gives the later one of two, where 0 is none.
func laterOf(a, b uint32) uint32 {
	if a == 0 || b != 0 && later(b, a) {
		return b
	}
	return a
}

// renew takes the types of a relation's columns as they are at commit or later, and keeps those before for what came before.
func (r *relation) renew(ctx context.Context, catalog *Catalog, commit events.LSN) error {
	if err := catalog.Through(ctx, commit); err != nil {
		return err
	}
	for i := range r.columns {
		c := &r.columns[i]
		if !c.typ.mutable {
			continue
		}
		now, err := catalog.Type(ctx, c.typ.OID)
		if err != nil {
			return err
		}
		if now != c.typ {
			if now.since != c.typ.since {
				c.before = c.typ
			}
			c.typ = now
		}
	}
	r.asOf = catalog.AsOf()
	return nil
}

// AsOf is what Through has come to.
func (c *Catalog) AsOf() events.LSN {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.asOf
}

// at gives the type as it was at a change of this transaction; nil where nobody knows.
func (c *column) at(xid uint32) *Type {
	for _, t := range []*Type{c.typ, c.before} {
		if t == nil || !later(t.since, xid) || t.since == 0 {
			return t
		}
	}
	return nil
}
