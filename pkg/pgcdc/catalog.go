package pgcdc

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tributary-dev/tributary/pkg/events"
)

// Catalog resolves types by OID. The built-in ones are known; enums, composites, domains, extensions' types and arrays
// of those are asked of the server once, and kept until they are forgotten. It is safe for concurrent use; the queries
// run one at a time.
type Catalog struct {
	query   func(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	reading chan struct{} // holds a token while one caller asks the server

	mu     sync.RWMutex
	types  map[uint32]known // guarded by mu
	resets uint64           // guarded by mu; counts Forget and Reset, so that what was read before is not kept after

	asOf   events.LSN        // of the last Through; guarded by mu
	shapes map[uint32]string // what the composites' attributes were then, by relation; guarded by mu
}

type known struct {
	typ *Type
	at  time.Time // when the server was asked
}

// NewCatalog makes a catalog that asks through query, which is pgx.Conn's or a pool's Query.
func NewCatalog(query func(ctx context.Context, sql string, args ...any) (pgx.Rows, error)) *Catalog {
	return &Catalog{query: query, reading: make(chan struct{}, 1), types: map[uint32]known{}, shapes: map[uint32]string{}}
}

// Type gives the type with this OID. One that the server does not have (any more) is no error: its values are written
// as text, with ok false. Errors are those of the connection.
func (c *Catalog) Type(ctx context.Context, oid uint32) (*Type, error) {
	if t, ok := builtinTypes[oid]; ok {
		return t, nil
	}
	if k, ok := c.lookup(oid); ok {
		return k.typ, nil
	}
	select {
	case c.reading <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("read type %d: %w", oid, context.Cause(ctx))
	}
	defer func() { <-c.reading }()
	c.mu.RLock()
	resets := c.resets
	c.mu.RUnlock()
	r := catalogReader{catalog: c, found: map[uint32]*Type{}}
	t, err := r.read(ctx, oid, maxTypeDepth)
	if err != nil {
		return nil, fmt.Errorf("read type %d: %w", oid, err)
	}
	c.keep(r.found, resets)
	return t, nil
}

// Refresh gives the type as it is now, for a value of t that could not be written: a composite may have been altered
// since t was read. It is t itself where DDL can't change it or it was read just now, so that values which nobody can
// write do not cost a query each.
func (c *Catalog) Refresh(ctx context.Context, t *Type) (*Type, error) {
	const atMostEvery = 100 * time.Millisecond
	if !t.mutable {
		return t, nil
	}
	if k, ok := c.lookup(t.OID); ok {
		if k.typ != t {
			return k.typ, nil
		}
		if time.Since(k.at) < atMostEvery {
			return t, nil
		}
	}
	c.Forget(t.OID)
	return c.Type(ctx, t.OID)
}

// Forget makes the next Type ask the server for this type again, for all that it is made of, and for all that is made
// of it.
func (c *Catalog) Forget(oid uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.resets++
	var parts map[uint32]bool
	if k, ok := c.types[oid]; ok {
		parts = map[uint32]bool{}
		k.typ.addParts(parts)
	}
	for other, k := range c.types {
		if parts[other] || k.typ.holds(oid) {
			delete(c.types, other)
		}
	}
}

// Reset forgets all types that were asked of the server.
func (c *Catalog) Reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.resets++
	clear(c.types)
}

func (c *Catalog) lookup(oid uint32) (known, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	k, ok := c.types[oid]
	return k, ok
}

func (c *Catalog) keep(found map[uint32]*Type, resets uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.resets != resets {
		return
	}
	now := time.Now()
	for oid, t := range found {
		c.types[oid] = known{t, now}
	}
}

// holds tells whether t is or is made of the type with this OID. A domain is made of its base type.
func (t *Type) holds(oid uint32) bool {
	if t.OID == oid || t.elem != nil && t.elem.holds(oid) || t.base != nil && t.base.holds(oid) {
		return true
	}
	for _, f := range t.fields {
		if f.typ.holds(oid) {
			return true
		}
	}
	return false
}

// addParts adds the OIDs of t and of all that it is made of.
func (t *Type) addParts(parts map[uint32]bool) {
	parts[t.OID] = true
	if t.elem != nil {
		t.elem.addParts(parts)
	}
	if t.base != nil {
		t.base.addParts(parts)
	}
	for _, f := range t.fields {
		f.typ.addParts(parts)
	}
}

// maxTypeDepth bounds how deep types are made of types, should the catalog change between two queries in such a way
// that they seem to hold themselves.
const maxTypeDepth = 100

// catalogReader reads one type with all that it is made of.
type catalogReader struct {
	catalog *Catalog
	found   map[uint32]*Type // to be kept
}

// typeRow is what pg_type has of a type. Element is 0 but for true arrays, as get_element_type has it; Cast is empty
// where json.c finds no cast to json, which it does not seek for the built-in types.
type typeRow struct {
	Schema, Name, Kind string
	Base, Relation     uint32
	Element            uint32
	Delimiter, Cast    string
}

const (
	typeQuery = `
SELECT n.nspname::text, t.typname::text, t.typtype::text, t.typbasetype, t.typrelid,
       CASE WHEN t.typsubscript = 'pg_catalog.array_subscript_handler'::pg_catalog.regproc THEN t.typelem ELSE 0 END::pg_catalog.oid,
       COALESCE(e.typdelim::text, ','),
       COALESCE((SELECT CASE WHEN p.prosrc = 'hstore_to_json' AND l.lanname = 'c' THEN 'hstore' ELSE 'other' END
                   FROM pg_catalog.pg_cast k
                   JOIN pg_catalog.pg_proc p ON p.oid = k.castfunc
                   JOIN pg_catalog.pg_language l ON l.oid = p.prolang
                  WHERE k.castsource = t.oid AND k.casttarget = 114 AND t.oid >= 16384), '')
  FROM pg_catalog.pg_type t
  JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
  LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem
 WHERE t.oid = $1`

	fieldsQuery = `
SELECT attname::text, atttypid, attisdropped, xmin::text::bigint, pg_catalog.txid_current_snapshot()::text
  FROM pg_catalog.pg_attribute
 WHERE attrelid = $1 AND attnum > 0
 ORDER BY attnum`
)

func (r *catalogReader) read(ctx context.Context, oid uint32, depth int) (*Type, error) {
	if t, ok := builtinTypes[oid]; ok {
		return t, nil
	}
	if t, ok := r.found[oid]; ok {
		return t, nil
	}
	if k, ok := r.catalog.lookup(oid); ok {
		return k.typ, nil
	}
	t := &Type{OID: oid, Name: fmt.Sprintf("oid %d", oid), kind: kindUnknown}
	if depth == 0 {
		return t, nil
	}
	rows, err := r.catalog.query(ctx, typeQuery, oid)
	if err != nil {
		return nil, err
	}
	row, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[typeRow])
	if errors.Is(err, pgx.ErrNoRows) {
		return t, nil // not kept: it may come, if the server is a standby that lags
	}
	if err != nil {
		return nil, err
	}
	if t.Name = row.Name; row.Schema != "pg_catalog" {
		t.Name = row.Schema + "." + row.Name
	}
	if err := r.resolve(ctx, t, &row, depth); err != nil {
		return nil, err
	}
	r.found[oid] = t
	return t, nil
}

// resolve follows json.c's json_categorize_type.
func (r *catalogReader) resolve(ctx context.Context, t *Type, row *typeRow, depth int) (err error) {
	switch {
	case row.Kind == "d":
		var base *Type
		if base, err = r.read(ctx, row.Base, depth-1); err != nil {
			return err
		}
		oid, name := t.OID, t.Name
		*t = *base
		t.OID, t.Name, t.base = oid, name, base
	case row.Kind == "p": // anyarray and the like, whose values name their own type
	case row.Element != 0:
		t.kind, t.delim = kindArray, row.Delimiter[0]
		if t.elem, err = r.read(ctx, row.Element, depth-1); err != nil {
			return err
		}
		t.mutable, t.since = t.elem.mutable, t.elem.since
	case row.Kind == "c":
		t.kind, t.mutable, t.relation = kindComposite, true, row.Relation
		err = r.readFields(ctx, t, depth)
	case row.Cast == "hstore":
		t.kind = kindHstore
	case row.Cast == "":
		t.kind = kindText
	default:
		// A cast to json whose output we don't know: kindUnknown.
	}
	return err
}

// readFields reads the attributes of a composite.
func (r *catalogReader) readFields(ctx context.Context, t *Type, depth int) error {
	type attribute struct {
		Name    string
		Type    uint32
		Dropped bool
		Changed int64
		Now     string
	}
	rows, err := r.catalog.query(ctx, fieldsQuery, t.relation)
	if err != nil {
		return err
	}
	attributes, err := pgx.CollectRows(rows, pgx.RowToStructByPos[attribute])
	if err != nil {
		return err
	}
	for _, a := range attributes {
		now, err := parseVisibility(a.Now)
		if err != nil {
			return err
		}
		if changed := uint32(a.Changed); later(uint32(now.max), changed) { // else so long ago that the numbers have come round
			t.since = laterOf(t.since, changed)
		}
		if a.Dropped {
			continue
		}
		label := append(events.AppendString(nil, a.Name), ':')
		field, err := r.read(ctx, a.Type, depth-1)
		if err != nil {
			return err
		}
		t.fields = append(t.fields, member{label, field})
		t.since = laterOf(t.since, field.since)
	}
	return nil
}
