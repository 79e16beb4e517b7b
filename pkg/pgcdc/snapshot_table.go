package pgcdc

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/tributary-dev/tributary/pkg/events"
)

// snapshotTable is a table whose rows a snapshot reads.
type snapshotTable struct {
	OID         uint32
	File        uint32
	Partitioned bool // all its partitions are read through it

	relation *relation
	types    []string // of the columns, as casts have them
	filter   string   // of the publication; empty where there is none
}

// keyed tells whether a key names the table's rows; else their places do.
func (t *snapshotTable) keyed() bool { return len(t.relation.key) > 0 }

// publishedTable is what the catalog knows of one.
type publishedTable struct {
	OID          uint32
	Schema, Name string
	Partitioned  bool
	Identity     string
	File         *uint32
	Columns      []string // that are published; nil for all
	Filter       *string
	Primary      []string // columns of the primary key
	Identifying  []string // columns of the index that is the replica identity
}

// publishedSQL lists what the publication publishes under a condition, in the order of OIDs: a cursor relies on it.
func publishedSQL(version int, condition string) string {
	lists := "p.attnames::text[], p.rowfilter"
	if version < optionsVersion {
		lists = "NULL::text[], NULL::text"
	}
	return `
SELECT c.oid, n.nspname::text, c.relname::text, c.relkind = 'p', c.relreplident::text, pg_catalog.pg_relation_filenode(c.oid), ` + lists + `, ` + primaryKeySQL + `,
       ARRAY(SELECT a.attname::text
               FROM pg_catalog.pg_index i, unnest(i.indkey) WITH ORDINALITY AS k(attnum, place), pg_catalog.pg_attribute a
              WHERE i.indrelid = c.oid AND i.indisreplident AND k.place <= i.indnkeyatts AND a.attrelid = c.oid AND a.attnum = k.attnum)
  FROM pg_catalog.pg_publication_tables p
  JOIN pg_catalog.pg_namespace n ON n.nspname = p.schemaname
  JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename
 WHERE p.pubname = $1 AND ` + condition + `
 ORDER BY c.oid`
}

// snapshotTables gives what the publication and the patterns have in common.
func (r *run) snapshotTables(ctx context.Context, conn *pgx.Conn) ([]*snapshotTable, error) {
	matching, err := r.matching(ctx)
	if err != nil {
		return nil, err
	}
	named := map[uint32]bool{}
	for _, t := range matching {
		named[t.OID] = true
	}
	rows, err := conn.Query(ctx, publishedSQL(r.version, "true"), r.opts.Publication)
	if err != nil {
		return nil, err
	}
	published, err := pgx.CollectRows(rows, pgx.RowToStructByPos[publishedTable])
	if err != nil {
		return nil, err
	}
	var tables []*snapshotTable
	for i := range published {
		if !named[published[i].OID] {
			continue
		}
		t, err := r.describeTable(ctx, conn, &published[i])
		if err != nil {
			return nil, err
		}
		tables = append(tables, t)
	}
	return tables, nil
}

// columnsSQL lists columns as the stream has them: without generated ones, which no version before 18 sends, and which a
// later one lists if it does.
const columnsSQL = `
SELECT a.attname::text, a.atttypid, pg_catalog.format_type(a.atttypid, a.atttypmod)
  FROM pg_catalog.pg_attribute a
 WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
   AND ($2::text[] IS NULL OR a.attname = ANY ($2::text[]))
   AND (a.attgenerated = '' OR current_setting('server_version_num')::int >= 180000 AND $2::text[] IS NOT NULL)
 ORDER BY a.attnum`

// describeTable makes the relation that the stream would describe.
func (r *run) describeTable(ctx context.Context, conn *pgx.Conn, p *publishedTable) (*snapshotTable, error) {
	rows, err := conn.Query(ctx, columnsSQL, p.OID, p.Columns)
	if err != nil {
		return nil, err
	}
	type columnRow struct {
		Name string
		OID  uint32
		Type string
	}
	columns, err := pgx.CollectRows(rows, pgx.RowToStructByPos[columnRow])
	if err != nil {
		return nil, err
	}
	t := &snapshotTable{OID: p.OID, Partitioned: p.Partitioned, relation: newRelation(p.OID, p.Schema, p.Name, p.Identity[0])}
	if p.File != nil {
		t.File = *p.File
	}
	if p.Filter != nil {
		t.filter = *p.Filter
	}
	identifying := map[string]bool{}
	switch t.relation.identity {
	case identityIndex:
		for _, name := range p.Identifying {
			identifying[name] = true
		}
	case identityDefault:
		for _, name := range p.Primary {
			identifying[name] = true
		}
	}
	if err := r.catalog.Through(ctx, math.MaxUint64); err != nil { // as the values of a query are: those of now
		return nil, err
	}
	for _, c := range columns {
		typ, err := r.catalog.Type(ctx, c.OID)
		if err != nil {
			return nil, err
		}
		identity := identifying[c.Name] || t.relation.identity == identityFull
		t.relation.columns = append(t.relation.columns, newColumn(c.Name, typ, identity))
		t.types = append(t.types, c.Type)
	}
	t.relation.setKey(p.Primary)
	if err := r.maskTable(ctx, t.relation); err != nil {
		return nil, err
	}
	if t.Partitioned && len(t.relation.key) == 0 {
		return nil, refused("publication %s publishes via the partition root %s, which has no primary key, so its rows can't be told apart in a snapshot: "+
			"give it one, or set sources[].snapshot to false", r.opts.Publication, t.relation)
	}
	return t, nil
}

// clone gives a copy that shares nothing that changes.
func (t *snapshotTable) clone() *snapshotTable {
	own, relation := *t, *t.relation
	relation.columns = slices.Clone(relation.columns)
	relation.subjects = map[events.Op][]string{}
	own.relation = &relation
	return &own
}

func (t *snapshotTable) columns() string {
	columns := make([]string, len(t.relation.columns))
	for i := range t.relation.columns {
		columns[i] = quoteIdent(t.relation.columns[i].name) + ", "
	}
	return strings.Join(columns, "")
}

// chunkQuery reads some blocks of a piece of the table; the rows' places are the last column.
func (t *snapshotTable) chunkQuery(piece string, s span) string {
	query := "SELECT " + t.columns() + "ctid FROM ONLY " + piece + " WHERE " + s.condition()
	if t.filter != "" {
		query += " AND (" + t.filter + ")"
	}
	return query
}

// liveColumns are the last ones of a liveQuery.
const (
	liveCTID     = iota // the row's place
	livePiece           // the OID of the table that holds it
	liveXmin            // the transaction that wrote it as it is
	liveLeft            // whether it is where rows are left
	liveColumns         // how many
	onlyLive     = "ctid, tableoid, xmin, "
	liveLeftTrue = "t"
)

// liveQuery says which rows of a table are read as they are now.
type liveQuery struct {
	after bool   // behind a row, whose key columns or place are the parameters
	left  string // a condition of what is left; empty for all
	since string // with left: rows that this transaction or a later one wrote are read as well
	where string // what was asked for; empty for all
	keys  int    // not 0: the rows with these keys alone, which are the parameters
	limit int
}

// query reads rows in the order of their key, or of their places where there is none.
func (t *snapshotTable) query(q liveQuery) string {
	r := t.relation
	var conditions []string
	for _, condition := range []string{t.filter, q.where} {
		if condition != "" {
			conditions = append(conditions, "("+condition+"\n)")
		}
	}
	left := "true"
	if q.left != "" {
		left = q.left
		conditions = append(conditions, "("+left+" OR pg_catalog.age(xmin) <= pg_catalog.age('"+q.since+"'::xid))")
	}
	var keys, bounds []string
	for n, i := range r.key {
		keys = append(keys, quoteIdent(r.columns[i].name))
		bounds = append(bounds, fmt.Sprintf("$%d::%s", n+1, t.types[i]))
	}
	order := ""
	switch {
	case q.keys > 0:
		conditions = append(conditions, "("+strings.Join(keys, ", ")+") IN ("+t.keyList(q.keys)+")")
	case len(keys) > 0:
		order = " ORDER BY " + strings.Join(keys, ", ")
		if q.after {
			conditions = append(conditions, "("+strings.Join(keys, ", ")+") > ("+strings.Join(bounds, ", ")+")")
		}
	case q.after:
		conditions = append(conditions, "ctid > $1::tid")
	default:
		conditions = append(conditions, "ctid >= '(0,0)'")
	}
	from := " FROM ONLY "
	if t.Partitioned {
		from = " FROM "
	}
	query := "SELECT " + t.columns() + onlyLive + "(" + left + ")" + from + quoteIdent(r.schema) + "." + quoteIdent(r.table)
	if len(conditions) > 0 {
		query += " WHERE " + strings.Join(conditions, " AND ")
	}
	return query + order + " LIMIT " + strconv.Itoa(q.limit)
}

// keyList gives parameters for the keys of rows.
func (t *snapshotTable) keyList(rows int) string {
	list := make([]string, rows)
	for n := range list {
		var parts []string
		for k, i := range t.relation.key {
			parts = append(parts, fmt.Sprintf("$%d::%s", n*len(t.relation.key)+k+1, t.types[i]))
		}
		list[n] = "(" + strings.Join(parts, ", ") + ")"
	}
	return strings.Join(list, ", ")
}

// place is where a row lies: a ctid.
type place struct{ block, item uint64 }

func (p place) before(q place) bool {
	return p.block < q.block || p.block == q.block && p.item < q.item
}

func parsePlace(ctid []byte) (place, bool) {
	inner, open := bytes.CutPrefix(ctid, []byte("("))
	inner, shut := bytes.CutSuffix(inner, []byte(")"))
	block, item, comma := strings.Cut(string(inner), ",")
	b, errBlock := strconv.ParseUint(block, 10, 32)
	i, errItem := strconv.ParseUint(item, 10, 16)
	return place{b, i}, open && shut && comma && errBlock == nil && errItem == nil
}
