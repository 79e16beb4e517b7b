package pgcdc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// ownSchema holds tables of our own, which are never read: each event of them would make another.
const ownSchema = "tributary"

// patterns say which tables are read: those that one of them matches, and none of those with a !.
type patterns []tablePattern

type tablePattern struct {
	schema, table string
	except        bool
}

func parsePatterns(texts []string) (patterns, error) {
	var p patterns
	some := false
	for _, text := range texts {
		name, except := strings.CutPrefix(text, "!")
		schema, table, ok := strings.Cut(name, ".")
		if !ok || schema == "" || table == "" {
			return nil, fmt.Errorf("%q is not schema.table, with * for any text within a part", text)
		}
		p = append(p, tablePattern{schema, table, except})
		some = some || !except
	}
	if !some {
		return nil, errors.New("at least one pattern without ! is needed, such as public.*")
	}
	return p, nil
}

// match tells whether the name of a table is read.
func (p patterns) match(schema, table string) bool {
	return p.matchAny([][2]string{{schema, table}})
}

// matchAny tells whether a table is read that has these names: its own, and those of the tables that it is a partition of.
func (p patterns) matchAny(names [][2]string) bool {
	matched := false
	for _, name := range names {
		schema := name[0]
		if schema == ownSchema || schema == "information_schema" || strings.HasPrefix(schema, "pg_") {
			continue
		}
		for _, pattern := range p {
			if !glob(pattern.schema, schema) || !glob(pattern.table, name[1]) {
				continue
			}
			if pattern.except {
				return false
			}
			matched = true
		}
	}
	return matched
}

// open tells whether tables may match that are still to be made.
func (p patterns) open() bool {
	return slices.ContainsFunc(p, func(t tablePattern) bool { return !t.except && strings.Contains(t.schema+t.table, "*") })
}

func (p patterns) String() string {
	texts := make([]string, len(p))
	for i, pattern := range p {
		texts[i] = pattern.schema + "." + pattern.table
		if pattern.except {
			texts[i] = "!" + texts[i]
		}
	}
	return strings.Join(texts, ", ")
}

// glob matches text with a pattern in which * stands for any text.
func glob(pattern, text string) bool {
	first, rest, star := strings.Cut(pattern, "*")
	if !star {
		return pattern == text
	}
	text, ok := strings.CutPrefix(text, first)
	for ok {
		if first, pattern, star = strings.Cut(rest, "*"); !star {
			return strings.HasSuffix(text, rest)
		}
		rest = pattern
		_, text, ok = strings.Cut(text, first)
	}
	return false
}

// table is one of the database that could be published.
type table struct {
	OID          uint32
	Schema, Name string
	Partitioned  bool
	Identity     string   // whether and how old rows are identified: d n f i
	Identifiable bool     // an old row can be identified in the stream
	Readable     bool     // we may SELECT from it
	Published    bool     // by our publication
	Ancestors    []string // schema, name, schema, name, … of what it is a partition of
}

// names are its own, and those of what it is a partition of.
func (t *table) names() [][2]string {
	names := [][2]string{{t.Schema, t.Name}}
	for i := 0; i+1 < len(t.Ancestors); i += 2 {
		names = append(names, [2]string{t.Ancestors[i], t.Ancestors[i+1]})
	}
	return names
}

func (t *table) quoted() string { return pgx.Identifier{t.Schema, t.Name}.Sanitize() }

func (t *table) String() string { return t.Schema + "." + t.Name }

// tablesSQL lists the tables that can be published, but for those of extensions. A primary key that is deferrable
// identifies nothing (RelationGetIndexList).
const tablesSQL = `
WITH listed AS MATERIALIZED (SELECT p.schemaname, p.tablename FROM pg_catalog.pg_publication_tables p WHERE p.pubname = $1),
     named AS MATERIALIZED (SELECT r.prrelid FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid WHERE p.pubname = $1)
SELECT c.oid, n.nspname::text, c.relname::text, c.relkind = 'p', c.relreplident::text,
       CASE c.relreplident
         WHEN 'f' THEN true
         WHEN 'd' THEN EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indimmediate AND i.indisvalid)
         WHEN 'i' THEN EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisreplident AND i.indisvalid)
         ELSE false
       END,
       pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'SELECT') AND NOT pg_catalog.row_security_active(c.oid),
       (n.nspname, c.relname) IN (SELECT schemaname, tablename FROM listed) OR c.oid IN (SELECT prrelid FROM named),
       ARRAY(SELECT part FROM pg_catalog.pg_partition_ancestors(c.oid) AS up(oid)
               JOIN pg_catalog.pg_class a ON a.oid = up.oid JOIN pg_catalog.pg_namespace s ON s.oid = a.relnamespace,
               LATERAL unnest(ARRAY[s.nspname::text, a.relname::text]) WITH ORDINALITY AS x(part, place)
              ORDER BY a.oid, place)
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p'
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e')
 ORDER BY c.oid`

// matching gives the tables that the patterns name, and the partitions of those, in the order of their OIDs.
func (r *run) matching(ctx context.Context) (tables []table, err error) {
	err = r.query.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, tablesSQL, r.opts.Publication)
		if err != nil {
			return err
		}
		tables, err = pgx.CollectRows(rows, pgx.RowToStructByPos[table])
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	matching := tables[:0]
	for _, t := range tables {
		if r.patterns.matchAny(t.names()) {
			matching = append(matching, t)
		}
	}
	return matching, nil
}

// names lists tables in a message, the first few of many.
func names(tables []table) string {
	const most = 10
	texts := make([]string, 0, most)
	for i := range tables {
		if i == most {
			texts = append(texts, fmt.Sprintf("and %d more", len(tables)-most))
			break
		}
		texts = append(texts, tables[i].String())
	}
	return strings.Join(texts, ", ")
}
