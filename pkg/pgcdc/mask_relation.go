package pgcdc

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
)

// A mask goes by names, and names change. What must not happen is that a value is published because its column, or the
// table, has another name than the rule says. So:
//
//   - a rule that names one column, and finds none at the start, is refused: it is a typo, or the column was renamed;
//   - what a rule held for a table holds for it under any name it gets, and when it is detached (mask_memory.go);
//   - a column that a rule held for, and that is in the table no more, ends the reading: it was renamed, or dropped;
//   - of a table that was dropped since, nobody knows whose partition it was, so the rules of all tables hold for it.

// owned is a table under all names by which a rule may mean it: its own, those of the tables that it is a partition of or inherits
// from, and, of a root whose partitions' rows come under its name, those of its partitions.
type owned struct {
	names   [][2]string
	unknown bool // it was dropped, and may have had others
}

func (o owned) under(rule *columnRule) bool {
	return o.unknown || slices.ContainsFunc(o.names, func(name [2]string) bool {
		return rule.schema.match(name[0]) && rule.table.match(name[1])
	})
}

// masking applies the rules to the relations of one session. It is safe for concurrent use.
type masking struct {
	rules *columnRules // nil where there are none

	memory   Memory // nil where nothing outlives the session
	database string

	mu    sync.Mutex
	held  map[uint32][]bool   // by table: the rules that held for it once; guarded by mu
	fresh map[string][]uint32 // what of it is not in memory, by rule; guarded by mu
}

func newMasking(rules *columnRules) *masking {
	return &masking{rules: rules, held: map[uint32][]bool{}, fresh: map[string][]uint32{}}
}

// apply masks the columns of r. current lists the columns that the table has by now, nil where that is not known.
func (m *masking) apply(r *relation, table owned, current []string) error {
	if m.rules == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for n := range m.rules.rules {
		rule := &m.rules.rules[n]
		before := m.held[r.oid] != nil && m.held[r.oid][n]
		if !before && !table.under(rule) {
			continue
		}
		found := false
		for i := range r.columns {
			if c := &r.columns[i]; rule.column.match(c.name) {
				found = true
				c.strengthen(rule.method, m.rules)
			}
		}
		if !found && rule.exact() && (before || !table.unknown && current != nil && !slices.ContainsFunc(current, rule.column.match)) {
			return refused("sources[].%s names %s, and table %s has no such column any more: was it renamed? Name it as it is called now, "+
				"and write %q for the old name, which need not be there", rule.key, rule.text, r, rule.text+"?")
		}
		if found {
			m.note(r.oid, n, !table.unknown)
		}
	}
	return nil
}

// strengthen gives the column the method, unless it has a stronger one.
func (c *column) strengthen(to method, rules *columnRules) {
	switch {
	case to == methodExclude:
		c.hidden, c.mask = true, nil
	case !c.hidden && (c.mask == nil || c.mask.method < to):
		c.mask = rules.masks[to]
	}
}

// checkKey refuses masks after which different rows would have the same key, and be taken for one.
func (m *masking) checkKey(r *relation) error {
	for _, i := range r.key {
		c := &r.columns[i]
		if c.hidden || c.mask != nil && !c.mask.method.distinct() {
			return refuseKey(r.String(), c.name)
		}
	}
	return nil
}

func refuseKey(table, column string) error {
	return refused("sources[].mask or exclude hides column %s of %s, which is in its key: all its rows would be one; mask it by sha256 or hmac",
		column, table)
}

const relativesSQL = `
WITH RECURSIVE above AS (
       SELECT i.inhparent AS oid FROM pg_catalog.pg_inherits i WHERE i.inhrelid = $1
        UNION SELECT i.inhparent FROM pg_catalog.pg_inherits i JOIN above ON i.inhrelid = above.oid),
     all_of AS (SELECT oid FROM above UNION SELECT relid FROM pg_catalog.pg_partition_tree($1::oid::regclass))
SELECT n.nspname::text, c.relname::text
  FROM all_of JOIN pg_catalog.pg_class c ON c.oid = all_of.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace`

// mask masks the columns of a relation by what the catalog says of it.
func (d *describer) mask(ctx context.Context, r *relation, facts tableFacts) error {
	if d.masking.rules == nil {
		return nil
	}
	table := owned{names: [][2]string{{r.schema, r.table}}, unknown: !facts.found}
	if facts.found {
		err := d.query.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
			rows, err := conn.Query(ctx, relativesSQL, r.oid)
			if err != nil {
				return err
			}
			var schema, name string
			_, err = pgx.ForEachRow(rows, []any{&schema, &name}, func() error {
				table.names = append(table.names, [2]string{schema, name})
				return nil
			})
			return err
		})
		if err != nil {
			return fmt.Errorf("list the relatives of table %s: %w", r, err)
		}
	}
	if err := d.masking.apply(r, table, facts.columns); err != nil {
		return err
	}
	if err := d.masking.checkKey(r); err != nil {
		return err
	}
	return d.masking.keep(ctx)
}

// maskTable masks the columns of a table whose rows are read by a query.
func (r *run) maskTable(ctx context.Context, rel *relation) error {
	if r.rules == nil {
		return nil
	}
	d := &describer{query: r.query, masking: r.masking}
	facts, err := d.facts(ctx, rel.oid)
	if err != nil {
		return fmt.Errorf("describe table %s: %w", rel, err)
	}
	return d.mask(ctx, rel, facts)
}

const maskedSQL = `
SELECT a.attrelid, a.attname::text,
       EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = a.attrelid AND i.indisprimary AND a.attnum = ANY (i.indkey::int2[]))
  FROM pg_catalog.pg_attribute a
 WHERE a.attrelid = ANY ($1::oid[]) AND a.attnum > 0 AND NOT a.attisdropped`

// checkRules looks at a start whether the rules name what is there, and gives those that hold, by table.
func (r *run) checkRules(ctx context.Context) (holds map[uint32][]bool, err error) {
	if r.rules == nil {
		return nil, nil
	}
	tables, err := r.matching(ctx)
	if err != nil {
		return nil, err
	}
	byOID, oids := map[uint32]*table{}, []uint32{}
	for i := range tables {
		byOID[tables[i].OID] = &tables[i]
		oids = append(oids, tables[i].OID)
	}
	used := make([]bool, len(r.rules.rules))
	holds = map[uint32][]bool{}
	err = r.query.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, maskedSQL, oids)
		if err != nil {
			return err
		}
		var oid uint32
		var name string
		var key bool
		_, err = pgx.ForEachRow(rows, []any{&oid, &name, &key}, func() error {
			if holds[oid] == nil {
				holds[oid] = make([]bool, len(used))
			}
			return r.rules.use(byOID[oid], name, key, holds[oid])
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("check the masks of columns: %w", err)
	}
	for _, held := range holds {
		for n := range held {
			used[n] = used[n] || held[n]
		}
	}
	var missing []string
	for n, rule := range r.rules.rules {
		switch {
		case used[n] || rule.optional:
		case rule.exact():
			missing = append(missing, rule.text)
		default:
			r.opts.Log.Warn("a rule matches no column yet", "rule", rule.text, "key", "sources[]."+rule.key)
		}
	}
	if len(missing) > 0 {
		return nil, refused("sources[].mask or exclude names what no table of %s has that sources[].tables names: %s: correct it, for such a column would be published as it is; "+
			"or write %q where it need not be there (yet)", r.connector.place(), strings.Join(missing, ", "), missing[0]+"?")
	}
	return holds, nil
}

// use notes which rules match a column, and refuses those that a key can't bear.
func (c *columnRules) use(t *table, name string, key bool, used []bool) error {
	table := owned{names: t.names()}
	for n := range c.rules {
		rule := &c.rules[n]
		if !rule.column.match(name) || !table.under(rule) {
			continue
		}
		used[n] = true
		if key && !rule.method.distinct() {
			return refuseKey(t.String(), name)
		}
	}
	return nil
}
