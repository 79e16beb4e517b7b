package conformance

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tributary-dev/tributary/internal/pgtest"
)

// extensions are those whose types the walk takes in where the server has them.
var extensions = []string{"hstore", "citext", "ltree", "cube", "seg", "isn", "intarray", "lo", "pg_trgm", "earthdistance", "uuid-ossp"}

// moreEdges are those of extensions' types, and the types that take no literal.
var moreEdges = map[string][]string{
	"pg_node_tree": nil, "pg_ndistinct": nil, "pg_dependencies": nil, "pg_mcv_list": nil, "pg_brin_bloom_summary": nil,
	"pg_brin_minmax_multi_summary": nil, "gtsvector": nil,
	"hstore": {"", `a=>1, "b\"\\ "=>"\"=>", c=>NULL, d=>"NULL", é=>t`}, "ghstore": nil,
	"span": {"[2026-01-01,)"}, "spans": {"{[2026-01-01,)}"}, // of madeTypes
	"citext": {"A\"b"}, "ltree": {"Top.Science"}, "lquery": {"*.Science{1}"}, "ltxtquery": {"a & b"}, "ltree_gist": nil,
	"cube": {"(1,2),(3,4)"}, "seg": {"1.5 .. 2"}, "query_int": {"1&(2|3)"}, "intbig_gkey": nil, "lo": {"42"}, "gtrgm": nil, "earth": {"(1,2,3)"},
	"ean13": {"978-0-393-04002-9"}, "isbn": {"978-0-393-04002-9"}, "isbn13": {"978-0-393-04002-9"}, "ismn": {"9790060115615"},
	"ismn13": {"9790060115615"}, "issn": {"1436-4522"}, "issn13": {"9771436452008"}, "upc": {"220356483481"},
}

// checkedDomains are values of domains that refuse others of their base type.
var checkedDomains = map[string]string{"cardinal_number": "1", "yes_or_no": "'YES'", "positive": "1", "small": "1", "earth": "cube(ARRAY[6378168, 0, 0])"}

// pgType is a row of pg_type.
type pgType struct {
	OID           uint32
	Name, Kind    string
	SQL           string   // its name in SQL
	Element, Base uint32   // of an array, of a domain
	Label         string   // of an enum
	Fields        []uint32 // the types of a composite's
}

// walk is pg_type by OID.
type walk map[uint32]*pgType

func readTypes(t *testing.T, s *session) walk {
	t.Helper()
	rows, err := s.sql.Query(t.Context(), `
		SELECT t.oid, t.typname::text, t.typtype::text, format('%I.%I', n.nspname, t.typname),
		       CASE WHEN t.typsubscript = 'array_subscript_handler'::regproc THEN t.typelem ELSE 0 END::oid, t.typbasetype,
		       coalesce((SELECT enumlabel::text FROM pg_enum WHERE enumtypid = t.oid ORDER BY enumsortorder LIMIT 1), ''),
		       ARRAY(SELECT atttypid FROM pg_attribute WHERE attrelid = t.typrelid AND t.typrelid <> 0 AND attnum > 0 AND NOT attisdropped ORDER BY attnum)
		  FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace ORDER BY t.oid`)
	if err != nil {
		t.Fatal(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[pgType])
	if err != nil {
		t.Fatal(err)
	}
	w := walk{}
	for i := range list {
		w[list[i].OID] = &list[i]
	}
	return w
}

// column tells whether a column can have the type: not a pseudo-type, nor what holds one.
func (w walk) column(oid uint32) bool {
	typ := w[oid]
	if typ.Kind == "p" || typ.Element != 0 && !w.column(typ.Element) {
		return false
	}
	for _, field := range typ.Fields {
		if !w.column(field) {
			return false
		}
	}
	return true
}

// literals gives SQL expressions of a type; NULL where no other can be made.
func (w walk) literals(t *testing.T, oid uint32) []string {
	t.Helper()
	typ := w[oid]
	switch {
	case typ.Kind == "e":
		return []string{quote(typ.Label) + "::" + typ.SQL}
	case typ.Kind == "c":
		var fields []string
		for _, field := range typ.Fields {
			fields = append(fields, w.literals(t, field)[0])
		}
		return []string{fmt.Sprintf("ROW(%s)::%s", strings.Join(fields, ", "), typ.SQL)}
	case typ.Kind == "d":
		var values []string
		for _, base := range w.literals(t, typ.Base) {
			if value, ok := checkedDomains[typ.Name]; ok {
				base = value
			}
			values = append(values, "("+base+")::"+typ.SQL)
		}
		return values
	case typ.Element != 0 && edges[typ.Name] == nil: // not a vector
		elements := strings.Join(w.literals(t, typ.Element), ", ")
		return []string{fmt.Sprintf("ARRAY[%s, NULL]::%s", elements, typ.SQL)}
	default:
		return base(t, typ)
	}
}

func base(t *testing.T, typ *pgType) []string {
	t.Helper()
	name := typ.Name
	if name == "char" {
		name = `"char"`
	}
	texts, known := edges[name]
	if !known {
		texts, known = moreEdges[name]
	}
	if !known {
		t.Errorf("no literal for type %s", typ.SQL)
	}
	if len(texts) == 0 {
		return []string{"NULL::" + typ.SQL}
	}
	var values []string
	for _, text := range texts {
		values = append(values, quote(text)+"::text::"+typ.SQL)
	}
	return values
}

// TestEveryTypeOfTheServer writes values of every type that a column can have: all of pg_type but the pseudo-types, so
// also the rows of catalogs, the domains of information_schema, and the types of the extensions at hand.
func TestEveryTypeOfTheServer(t *testing.T) {
	s := connect(t, pgtest.Database(t))
	s.exec(t, madeTypes)
	for _, name := range extensions {
		s.exec(t, "DO $$ BEGIN IF EXISTS (SELECT FROM pg_available_extensions WHERE name = "+quote(name)+`) THEN
			CREATE EXTENSION `+pgx.Identifier{name}.Sanitize()+" CASCADE; END IF; END $$")
	}
	types := readTypes(t, s)
	for oid, typ := range types {
		if !types.column(oid) || strings.TrimPrefix(typ.Name, "_") == "plain" { // plain: its cast to json is not known
			continue
		}
		for _, value := range types.literals(t, oid) {
			if saw := s.compare(t, "SELECT "+value+" AS v"); saw.unwritten > 0 {
				t.Errorf("%s is not written", value)
			}
		}
	}
}

// TestEveryCatalog reads what the server's own catalogs hold, whose columns have types that take no literals.
func TestEveryCatalog(t *testing.T) {
	s := connect(t, pgtest.Database(t))
	s.exec(t, madeTypes)
	s.exec(t, `CREATE TABLE counted AS SELECT i AS a, i % 7 AS b, ARRAY[i] AS c FROM generate_series(1, 100) i;
		CREATE STATISTICS counts (ndistinct, dependencies, mcv) ON a, b FROM counted; ANALYZE counted`)
	// anyarray is no type that a column of ours can have: only a value of it says what it is an array of.
	rows, err := s.sql.Query(t.Context(), `SELECT format('SELECT %s FROM %s LIMIT 200', string_agg(quote_ident(attname), ', '), attrelid::regclass)
		  FROM pg_attribute JOIN pg_class r ON r.oid = attrelid
		 WHERE attnum > 0 AND atttypid NOT IN ('anyarray'::regtype, 'pg_statistic[]'::regtype) AND relkind IN ('r', 'v')
		       AND relname NOT LIKE '%numa%' -- not every machine can answer these
		       AND relnamespace IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
		 GROUP BY attrelid`)
	if err != nil {
		t.Fatal(err)
	}
	queries, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	for _, query := range queries {
		if saw := s.compare(t, query); saw.unwritten > 0 {
			t.Errorf("%s: %d values not written", query, saw.unwritten)
		}
	}
}
