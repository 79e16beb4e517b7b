package conformance

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tributary-dev/tributary/internal/pgtest"
	"github.com/tributary-dev/tributary/pkg/pgcdc"
)

// edges are the values at which types break, as SQL literals without their quotes.
var edges = map[string][]string{
	"bool":        {"t", "f"},
	"int2":        {"-32768", "0", "32767"},
	"int4":        {"-2147483648", "2147483647"},
	"int8":        {"-9223372036854775808", "9007199254740993", "9223372036854775807"},
	"float4":      {"0", "-0", "1e-45", "3.4028235e38", "0.1", "1e15", "1e-5", "NaN", "Infinity", "-Infinity"},
	"float8":      {"0", "-0", "5e-324", "1.7976931348623157e308", "0.1", "1e15", "123456789012345680", "1e-5", "NaN", "Infinity", "-Infinity"},
	"numeric":     {"0", "0.00", "-0.10", "1e-30", "1e40", "19.9000", "12345678901234567890.123456789", "NaN", "Infinity", "-Infinity"},
	"money":       {"0", "-1234.56", "92233720368547758.07"},
	"text":        {"", " ", "a\"b\\c/d", "\b\f\n\r\t\x01\x1f\x7f", "é😀\u2028\uFFFD", "null", "<&>"},
	"varchar":     {"", "NULL"},
	"bpchar":      {"", "a  "},
	"name":        {"", "a b"},
	`"char"`:      {"", "a", `"`},
	"bytea":       {"", `\x00ff22`, "abc"},
	"uuid":        {"7c1b2f0e-5a1d-4a6e-9d5f-0a1b2c3d4e5f"},
	"json":        {"null", " {\"a\" : [1.0, 1e2, -0, 12345678901234567890]\n} ", `{"a":1,"a":2}`, `"\ud800 \u0000"`, `""`, "[]"},
	"jsonb":       {"null", `{"b":1,"a":{"c":[1.00,12345678901234567890.5,1e400]}}`, `"\"\\"`, "0"},
	"jsonpath":    {`$."a b"[*] ? (@ > 1)`},
	"xml":         {"", `<?xml version="1.0" encoding="ISO-8859-1"?><a b="c">é</a>`, "<a/>"},
	"date":        {"2026-11-23", "0044-03-15 BC", "4714-11-24 BC", "10000-01-01", "5874897-12-31", "infinity", "-infinity"},
	"time":        {"00:00:00", "24:00:00", "08:45:53.100"},
	"timetz":      {"08:45:53.123456+05:30", "00:00:00-15:59:59"},
	"timestamp":   {"2026-11-23 08:45:53.120", "0001-01-01 BC", "4714-11-24 BC", "294276-12-31 23:59:59.999999", "infinity", "-infinity"},
	"timestamptz": {"2026-11-23 08:45:53.123456+05:30", "1800-01-01 00:00:00 Europe/Berlin", "4714-11-24 00:00:00+00 BC", "294276-12-31 23:59:59.999999+00", "infinity", "-infinity"},
	"interval":    {"0", "1 year -2 mons +3 days -04:05:06.789", "-178000000 years", "1 mon ago"},
	"bit":         {"1"}, "varbit": {"", "101"},
	"inet": {"192.0.2.1", "192.0.2.1/24", "2001:db8::1/64"}, "cidr": {"192.0.2.0/24"},
	"macaddr": {"08:00:2b:01:02:03"}, "macaddr8": {"08:00:2b:01:02:03:04:05"},
	"point": {"(1.5,-2)", "(NaN,Infinity)"}, "lseg": {"[(1,2),(3,4)]"}, "path": {"((1,2),(3,4))", "[(1,2)]"}, "box": {"(1,2),(3,4)"},
	"polygon": {"((1,2),(3,4))"}, "line": {"{1,2,3}"}, "circle": {"<(1,2),3>"},
	"tsvector": {"", `'a\'b':1A,2 'c "d'`}, "tsquery": {`'a b' & !c:*A`},
	"int4range": {"empty", "[1,5)", "(,)"}, "int8range": {"[1,2]"}, "numrange": {"(1.50,)"}, "daterange": {"[2026-01-01,infinity)"},
	"tsrange": {"[2026-01-01 00:00,2026-01-02 00:00:00.5)"}, "tstzrange": {"[0044-01-01 00:00 BC,2026-01-01 00:00+02)"},
	"int4multirange": {"{}", "{[1,2),[5,7)}"}, "int8multirange": {"{[1,2)}"}, "nummultirange": {"{[1.0,2.0)}"}, "datemultirange": {"{[2026-01-01,)}"},
	"tsmultirange": {"{[2026-01-01 00:00,2026-01-02 00:00)}"}, "tstzmultirange": {"{[2026-01-01 00:00+02,)}"},
	"oid": {"0", "4294967295"}, "xid": {"4294967295"}, "cid": {"1"}, "xid8": {"18446744073709551615"}, "tid": {"(1,2)"}, "pg_lsn": {"16/B374D848"},
	"int2vector": {"", "1 2 -3"}, "oidvector": {"", "1 2 3"}, "refcursor": {"a b"},
	"regproc": {"now", "-"}, "regprocedure": {"pg_catalog.now()"}, "regoper": {"pg_catalog.||/"}, "regoperator": {"+(int4,int4)"},
	"regclass": {"pg_class", "information_schema.tables"}, "regtype": {"timestamptz", "int4[]"}, "regconfig": {"english"}, "regdictionary": {"simple"},
	"regnamespace": {"pg_catalog"}, "regrole": {"pg_monitor"}, "regcollation": {`"C"`},
	"aclitem": {"=r/pg_monitor"}, "pg_snapshot": {"10:20:10,14"}, "txid_snapshot": {"10:20:10,14"},
	"int4[]": {"{}", "{1,NULL,3}", "{{1,2},{3,NULL}}", "[0:1]={5,6}", "[-1:0][2:2]={{5},{6}}"},
	"text[]": {`{"",NULL,"NULL","a\"b\\c"," ","{,}","é"}`, "{{{a}}}"}, "bool[]": {"{t,f,NULL}"}, "numeric[]": {"{NaN,1.50}"},
	"box[]": {"{(1,1),(0,0);(2,2),(1,1)}", "{{(1,1),(0,0)};{NULL}}"}, "point[]": {`{"(1,2)",NULL}`}, "json[]": {`{"{\"a\": \"b\\\\\"}",null,NULL,"\"x\""}`},
	"jsonb[]": {`{"[1, {\"a\": null}]"}`}, "bytea[]": {`{"\\x00",""}`}, "timestamptz[]": {`{"2026-11-23 08:45+01",infinity}`}, "date[]": {`{"0044-03-15 BC"}`},
	"int2vector[]": {`{"1 2",3,""}`}, "tsrange[]": {`{"[2026-01-01 00:00,)"}`}, "interval[]": {`{"1 day 02:03"}`}, "xml[]": {`{"<a b=\"c\"/>"}`},
}

// TestValuesAreThoseOfRowToJSON is the oracle for types that every server has.
func TestValuesAreThoseOfRowToJSON(t *testing.T) {
	s := connect(t, pgtest.Database(t))
	for typ, values := range edges {
		t.Run(typ, func(t *testing.T) {
			saw := s.compare(t, valuesOf(typ, values))
			if saw.rows != len(values)+1 || saw.unwritten > 0 {
				t.Errorf("%d rows of %d, %d values not written", saw.rows, len(values)+1, saw.unwritten)
			}
		})
	}
}

// valuesOf gives a query of the values, and a null.
func valuesOf(typ string, values []string) string {
	var sql strings.Builder
	for _, v := range values {
		fmt.Fprintf(&sql, "SELECT %s::text::%s AS \"a \"\"b\"\"\" UNION ALL ", quote(v), typ)
	}
	fmt.Fprintf(&sql, "SELECT NULL::%s", typ)
	return sql.String()
}

func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }

const madeTypes = `
CREATE TYPE mood AS ENUM ('sad', 'very "happy"', '');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE DOMAIN small AS positive CHECK (VALUE < 100);
CREATE DOMAIN stamps AS timestamptz[];
CREATE TYPE inner_t AS (t text, ts timestamp, n numeric, "od""d é" bool);
CREATE TYPE outer_t AS (i inner_t, l inner_t[], m mood[], d small, j jsonb, gone int, a text[]);
ALTER TYPE outer_t DROP ATTRIBUTE gone;
CREATE DOMAIN checked AS outer_t CHECK ((VALUE).d IS DISTINCT FROM 7);
CREATE TYPE single AS (t text);
CREATE TYPE nothing AS ();
CREATE TYPE span AS RANGE (subtype = timestamptz, multirange_type_name = spans);
CREATE TABLE things (id int, gone text, o outer_t);
ALTER TABLE things DROP COLUMN gone;
CREATE DOMAIN boxes AS box[];
CREATE TYPE plain AS ENUM ('x');
CREATE FUNCTION plain_json(plain) RETURNS json LANGUAGE sql AS $$SELECT '{"plain": true}'::json$$;
CREATE CAST (plain AS json) WITH FUNCTION plain_json(plain);
CREATE TYPE ordinary AS ENUM ('y');
CREATE CAST (ordinary AS json) WITH INOUT;
CREATE FUNCTION single_json(single) RETURNS json LANGUAGE sql AS $$SELECT '1'::json$$;
CREATE CAST (single AS json) WITH FUNCTION single_json(single);`

// TestValuesOfMadeTypesAreThoseOfRowToJSON is the oracle for what DDL makes.
func TestValuesOfMadeTypesAreThoseOfRowToJSON(t *testing.T) {
	s := connect(t, pgtest.Database(t))
	s.exec(t, madeTypes)
	const outer = `ROW(ROW('a "b" \ (,){}', '2026-11-23 08:45', 'NaN', true),
	    ARRAY[ROW('', NULL, 1.50, NULL)::inner_t, NULL, ROW('x"', 'infinity', 0, false)::inner_t], '{sad,"very \"happy\"",""}', 5, '{"a": "\"\\"}', '{"",NULL,"a b"}')::outer_t`
	for name, query := range map[string]string{
		"enum":                         `SELECT 'very "happy"'::mood AS v UNION ALL SELECT ''`,
		"array of enums":               `SELECT '{sad,"very \"happy\"",NULL,""}'::mood[] AS v`,
		"domain over a domain":         `SELECT 42::small AS v`,
		"array of domains":             `SELECT '{1,NULL,3}'::small[] AS v`,
		"domain over an array":         `SELECT '{2026-11-23 08:45,infinity}'::stamps AS v`,
		"array of domains over arrays": `SELECT '{"{2026-11-23 08:45}","{}",NULL,"[0:0]={infinity}"}'::stamps[] AS v`,
		"array of domains over boxes":  `SELECT '{"{(1,1),(0,0);(2,2),(1,1)}";"{}";NULL}'::boxes[] AS v`,
		"composite":                    `SELECT ROW('a', '2026-11-23 08:45', 1.50, true)::inner_t AS v`,
		"composite of nulls":           `SELECT ROW(NULL, NULL, NULL, NULL)::inner_t AS v`,
		"composite in composites":      `SELECT ` + outer + ` AS v`,
		"domain over a composite":      `SELECT ` + outer + `::checked AS v`,
		"array of composites":          `SELECT ARRAY[` + outer + `, NULL] AS v`,
		"array of domains over them":   `SELECT ARRAY[` + outer + `::checked, NULL] AS v`,
		"row of a table":               `SELECT ROW(1, ` + outer + `)::things AS v`,
		"array of rows of a table":     `SELECT ARRAY[[ROW(1, ` + outer + `)::things], [ROW(2, NULL)::things]] AS v`,
		"composite of one null":        `SELECT ROW(NULL)::single AS v UNION ALL SELECT ROW('')::single`,
		"composite of nothing":         `SELECT ROW()::nothing AS v`,
		"a composite with a cast":      `SELECT ROW('a')::single AS v`,
		"a cast without a function":    `SELECT 'y'::ordinary AS v`,
		"range":                        `SELECT span('2026-01-01', NULL) AS v`,
		"multirange":                   `SELECT spans(span('2026-01-01', NULL)) AS v`,
		"array of ranges":              `SELECT ARRAY[span('2026-01-01', NULL), 'empty'] AS v`,
		"several columns":              `SELECT 1 AS a, NULL::text AS b, 'sad'::mood AS "c ""d""" WHERE false UNION ALL SELECT 2, 'y', 'sad'`,
	} {
		t.Run(name, func(t *testing.T) {
			if saw := s.compare(t, query); saw.rows == 0 || saw.unwritten > 0 {
				t.Errorf("%d rows, %d values not written", saw.rows, saw.unwritten)
			}
		})
	}
}

func TestTypeWithAnUnknownCastToJSONIsTextAndCounted(t *testing.T) {
	s := connect(t, pgtest.Database(t))
	s.exec(t, madeTypes)
	got, unwritten := s.write(t, `SELECT 'x'::plain AS scalar, '{x,NULL}'::plain[] AS list`)
	if want := `{"scalar":"x","list":["x",null]}`; string(got) != want || unwritten != 2 {
		t.Errorf("got %s with %d not written; want %s with 2", got, unwritten, want)
	}
}

// nasty is made of what array_out, record_out, hstore_out and JSON have to escape.
func nasty(random *rand.Rand) *string {
	pieces := []string{`"`, `\`, "{", "}", "(", ")", ",", ";", " ", "=>", "NULL", "\n", "\t", "\x01", "a", "é", "😀", "'"}
	if random.IntN(6) == 0 {
		return nil
	}
	var text strings.Builder
	for range random.IntN(7) {
		text.WriteString(pieces[random.IntN(len(pieces))])
	}
	made := text.String()
	return &made
}

// TestRandomValuesAreThoseOfRowToJSON nests random texts and numbers in all that nests.
func TestRandomValuesAreThoseOfRowToJSON(t *testing.T) {
	s := connect(t, pgtest.Database(t))
	s.exec(t, `CREATE EXTENSION IF NOT EXISTS hstore;
		CREATE TYPE leaf AS (t text, n numeric, a text[], h hstore);
		CREATE TYPE twig AS (l leaf, ls leaf[], t text);
		CREATE TABLE made (id int, t text, a text[], h hstore, hs hstore[], l leaf, ls leaf[], w twig, ws twig[], f4 float4, f8 float8,
			n numeric, ns numeric[], ts timestamp, tz timestamptz[], d date, j json, js jsonb[])`)
	const seed = 20261123
	random := rand.New(rand.NewPCG(seed, seed))
	const rows = 300
	batch := &pgx.Batch{}
	for id := range rows {
		texts := make([]*string, 4)
		for i := range texts {
			texts[i] = nasty(random)
		}
		key := fmt.Sprint(random.IntN(10)) + `"\=>`
		number := random.NormFloat64() * float64(random.Uint64N(1<<62))
		batch.Queue(`
			WITH part AS (SELECT $2::text AS t, ARRAY[$2, $3, $4, $5]::text[] AS a, hstore(ARRAY[$6::text, coalesce($3, '')], ARRAY[$4, $5]::text[]) AS h,
			                     $7::float8 AS f, timestamp '2000-01-01' + $8::int8 * interval '1 microsecond' AS ts),
			     leaves AS (SELECT *, ROW(t, f::numeric, a, h)::leaf AS l FROM part),
			     twigs AS (SELECT *, ROW(l, ARRAY[l, NULL, l], $4)::twig AS w FROM leaves)
			INSERT INTO made SELECT $1, t, a, h, ARRAY[h, NULL], l, ARRAY[[l], [NULL]]::leaf[], w, ARRAY[w, w], f::float4 / 1e10, f / 3, f::numeric / 7, ARRAY[f, 'NaN'],
			       ts, ARRAY[ts AT TIME ZONE 'Asia/Kolkata', NULL], ts::date, json_build_object(coalesce(t, ''), a), ARRAY[to_jsonb(a), to_jsonb(l)] FROM twigs`,
			id, texts[0], texts[1], texts[2], texts[3], key, number, random.Int64N(1<<60)-1<<57)
	}
	if err := s.sql.SendBatch(t.Context(), batch).Close(); err != nil {
		t.Fatal(err)
	}
	if saw := s.compare(t, "SELECT * FROM made"); saw.rows != rows || saw.unwritten > 0 {
		t.Errorf("%d rows of %d, %d values not written", saw.rows, rows, saw.unwritten)
	}
}

// TestSessionSettingsWinOverTheRole reads under a role with other settings, by SQL and as a replication client does.
func TestSessionSettingsWinOverTheRole(t *testing.T) {
	url := pgtest.Database(t)
	plain := connect(t, url)
	role := fmt.Sprintf("hostile_%x", rand.Uint64())
	plain.exec(t, "CREATE ROLE "+role+" SUPERUSER LOGIN PASSWORD 'hostile'")
	defer plain.exec(t, "DROP ROLE "+role)
	for name, value := range map[string]string{
		"TimeZone": "Asia/Kolkata", "DateStyle": "German, DMY", "IntervalStyle": "iso_8601", "bytea_output": "escape",
		"extra_float_digits": "0", "client_encoding": "LATIN1",
	} {
		plain.exec(t, "ALTER ROLE "+role+" SET "+name+" = "+quote(value))
	}
	const query = `SELECT '2026-11-23 08:45:53.5+00'::timestamptz AS tz, '2026-11-23'::date AS d, '2026-11-23 08:45'::timestamp AS ts, '1 day 02:03'::interval AS i,
		'\x00ff'::bytea AS b, 0.1::float8 + 0.2::float8 AS f8, 1.1::float4 AS f4, 'é€'::text AS t,
		ARRAY['2026-11-23 08:45+00'::timestamptz] AS a, tstzrange('2026-11-23 08:45+00', NULL) AS r`
	want := plain.query(t, "SELECT row_to_json(q)::text FROM ("+query+") q").Rows[0][0]
	asRole := func(c *pgconn.Config) { c.User, c.Password = role, "hostile" }
	for name, configure := range map[string][]func(*pgconn.Config){
		"SQL":         {asRole},
		"replication": {asRole, func(c *pgconn.Config) { c.RuntimeParams["replication"] = "database" }},
	} {
		t.Run(name, func(t *testing.T) {
			s := connect(t, url, configure...)
			got, unwritten := s.write(t, query)
			if !equalJSON(t, got, want) || unwritten > 0 {
				t.Errorf("%d not written:\n got %s\nwant %s", unwritten, got, want)
			}
		})
	}
	t.Run("without our settings", func(t *testing.T) {
		s := connect(t, url, asRole, func(c *pgconn.Config) {
			for name := range pgcdc.SessionSettings() {
				delete(c.RuntimeParams, name)
			}
		})
		if got, unwritten := s.write(t, query); unwritten == 0 || equalJSON(t, got, want) {
			t.Errorf("the role's settings change nothing, so this test shows nothing: %s", got)
		}
	})
}
