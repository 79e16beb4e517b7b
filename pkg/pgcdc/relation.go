package pgcdc

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/tributary-dev/tributary/pkg/events"
)

// Replica identities, as pg_class and the wire have them.
const (
	identityDefault = 'd'
	identityNothing = 'n'
	identityFull    = 'f'
	identityIndex   = 'i'
)

// maxKeyPath bounds a partition key; a longer one is hashed. It depends on the key alone, so that all events of a row
// have the same.
const maxKeyPath = 4 << 10

// column is one of a relation.
type column struct {
	name     string
	label    []byte // the name as a JSON string, and a colon
	typ      *Type
	before   *Type // what typ was before it was altered; nil where that is not known
	identity bool  // the old row's value is sent where the replica identity is not full

	mask   *mask // nil publishes values as they are
	hidden bool  // it is in no event
}

func newColumn(name string, typ *Type, identity bool) column {
	return column{name: name, label: append(events.AppendString(nil, name), ':'), typ: typ, identity: identity}
}

// relation is a table as it was when the changes that follow were made.
type relation struct {
	oid           uint32
	schema, table string
	identity      byte
	published     bool // it matches the configured patterns
	partial       bool // its identity is full, and those of its partitions, which count, are not: what is not sent of old rows is null
	columns       []column
	mutable       bool       // the types of some of its columns can be altered without it
	asOf          events.LSN // how new their types are
	key           []int      // the columns that name a row, in order; empty where the table is the key
	entity        []byte     // the partition key of the table itself

	subjects map[events.Op][]string // by partition; filled when needed
}

func newRelation(oid uint32, schema, table string, identity byte) *relation {
	return &relation{
		oid: oid, schema: schema, table: table, identity: identity,
		entity: events.AppendEntityKey(nil, schema, table), subjects: map[events.Op][]string{},
	}
}

// setKey chooses the columns that name a row: the primary key, in its definition order, unless the replica identity is
// another index: a delete then says nothing of the primary key, and has to have the key of the inserts before it.
func (r *relation) setKey(primary []string) {
	key, whole := r.find(primary), true
	for _, i := range key {
		whole = whole && r.columns[i].identity
	}
	if len(key) == 0 || !whole {
		key = key[:0]
		for i := range r.columns {
			if r.columns[i].identity && r.identity != identityFull {
				key = append(key, i)
			}
		}
	}
	r.key = key
}

// then gives the primary key's columns by the names that they had then, where they were renamed since and nothing else about the
// columns is another than now.
func (r *relation) then(facts tableFacts) []string {
	if r.find(facts.primary) != nil || len(facts.columns) != len(r.columns) {
		return facts.primary
	}
	names := map[string]string{}
	for i, now := range facts.columns {
		if before := r.columns[i].name; slices.Contains(facts.primary, now) {
			names[now] = before
		} else if before != now {
			return facts.primary
		}
	}
	then := make([]string, 0, len(facts.primary))
	for _, now := range facts.primary {
		then = append(then, names[now])
	}
	return then
}

// find gives the places of the named columns; none if one is missing: the catalog may be ahead of the stream.
func (r *relation) find(names []string) []int {
	places := make([]int, 0, len(names))
	for _, name := range names {
		for i := range r.columns {
			if r.columns[i].name == name {
				places = append(places, i)
			}
		}
	}
	if len(places) != len(names) {
		return nil
	}
	return places
}

// subject gives the subject of the relation's events with op in a partition.
func (r *relation) subject(source string, op events.Op, partition int) string {
	known := r.subjects[op]
	for len(known) <= partition {
		known = append(known, "")
		r.subjects[op] = known
	}
	if known[partition] == "" {
		known[partition] = events.Address{Partition: partition, Source: source, Schema: r.schema, Table: r.table, Op: op}.Subject()
	}
	return known[partition]
}

// String names the relation in errors.
func (r *relation) String() string { return r.schema + "." + r.table }

// wireRelation is the Relation message.
type wireRelation struct {
	oid           uint32
	schema, table string
	identity      byte
	columns       []wireColumn
}

type wireColumn struct {
	name     string
	typ      uint32
	identity bool
}

func parseRelation(p *payload) (*wireRelation, error) {
	w := &wireRelation{oid: p.uint32()}
	if w.schema = string(p.text()); w.schema == "" {
		w.schema = "pg_catalog"
	}
	w.table = string(p.text())
	w.identity = p.byte()
	for range p.uint16() {
		c := wireColumn{identity: p.byte()&1 != 0, name: string(p.text()), typ: p.uint32()}
		p.uint32() // the type's modifier
		if p.short {
			break
		}
		w.columns = append(w.columns, c)
	}
	return w, p.done('R')
}

// tableFacts are what the catalog knows of a relation, and the wire does not.
type tableFacts struct {
	found     bool     // the table is still there
	primary   []string // columns of the primary key, in its definition order
	columns   []string // in their order
	partial   bool     // it is partitioned, and the old rows of some partitions are not sent whole
	ancestors [][2]string
}

// describer completes relations from the catalog as it is now. That may be ahead of the stream: a primary key that was
// made or dropped since is seen too early. The wire has no better to tell.
type describer struct {
	query    *querier
	catalog  *Catalog
	patterns patterns
	masking  *masking
}

// describe makes a relation of the Relation message.
func (d *describer) describe(ctx context.Context, w *wireRelation, again bool) (*relation, error) {
	facts, err := d.facts(ctx, w.oid)
	if err != nil {
		return nil, fmt.Errorf("describe table %s.%s: %w", w.schema, w.table, err)
	}
	r := newRelation(w.oid, w.schema, w.table, w.identity)
	for _, c := range w.columns {
		const firstNormal = 16384 // types below are built in
		if again && c.typ >= firstNormal {
			d.catalog.Forget(c.typ) // whatever changed the table may have changed the types with it
		}
		typ, err := d.catalog.Type(ctx, c.typ)
		if err != nil {
			return nil, fmt.Errorf("describe column %s of %s: %w", c.name, r, err)
		}
		r.columns = append(r.columns, newColumn(c.name, typ, c.identity))
		r.mutable = r.mutable || typ.mutable
	}
	if r.partial = w.identity == identityFull && facts.partial; r.partial {
		for i := range r.columns {
			r.columns[i].identity = slices.Contains(facts.primary, r.columns[i].name)
		}
	}
	r.setKey(r.then(facts))
	names := append([][2]string{{w.schema, w.table}}, facts.ancestors...)
	if r.published = d.patterns.matchAny(names); !r.published {
		return r, nil
	}
	return r, d.mask(ctx, r, facts)
}

// primaryKeySQL gives the names of the primary key's columns of the table in c, in the key's definition order.
const primaryKeySQL = `ARRAY(
	SELECT a.attname::text
	  FROM pg_catalog.pg_index i, unnest(i.indkey) WITH ORDINALITY AS k(attnum, place), pg_catalog.pg_attribute a
	 WHERE i.indrelid = c.oid AND i.indisprimary AND k.place <= i.indnkeyatts AND a.attrelid = c.oid AND a.attnum = k.attnum
	 ORDER BY k.place)`

// ancestorsSQL gives a property of each table that the one in c is a partition of, at any level, itself included.
func ancestorsSQL(property string) string {
	return `ARRAY(
	SELECT ` + property + `::text
	  FROM pg_catalog.pg_partition_ancestors(c.oid) AS up(oid)
	  JOIN pg_catalog.pg_class a ON a.oid = up.oid JOIN pg_catalog.pg_namespace s ON s.oid = a.relnamespace
	 ORDER BY a.oid)`
}

var factsSQL = `
SELECT ` + primaryKeySQL + `, ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
       EXISTS (SELECT FROM pg_catalog.pg_partition_tree(c.oid) AS t JOIN pg_catalog.pg_class l ON l.oid = t.relid
                WHERE c.relkind = 'p' AND t.isleaf AND l.relreplident <> 'f'), ` + ancestorsSQL("s.nspname") + `, ` + ancestorsSQL("a.relname") + `
  FROM pg_catalog.pg_class c WHERE c.oid = $1`

// facts gives nothing of a table that was dropped since.
func (d *describer) facts(ctx context.Context, oid uint32) (facts tableFacts, err error) {
	err = d.query.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		var schemas, tables []string
		err := conn.QueryRow(ctx, factsSQL, oid).Scan(&facts.primary, &facts.columns, &facts.partial, &schemas, &tables)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		facts.found = err == nil
		for i := range schemas {
			facts.ancestors = append(facts.ancestors, [2]string{schemas[i], tables[i]})
		}
		return err
	})
	return facts, err
}
