package pgcdc

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tributary-dev/tributary/internal/pgtest"
)

const manyTypes = `
CREATE TYPE mood AS ENUM ('sad', 'O''K', 'very "fine"');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TYPE pair AS (n positive, t text, m mood[]);
CREATE TABLE types (id int PRIMARY KEY, b bool, i2 int2, i8 int8, f4 float4, f8 float8, num numeric, cash money, t text, vc varchar(9), c char(5),
	bytes bytea, d date, ts timestamp, tz timestamptz, tm time, tmz timetz, iv interval, u uuid, j json, jb jsonb, ip inet, net cidr, mac macaddr,
	bits bit(3), vbits varbit, p point, ints int[], grid int[][], texts text[], r int4range, mr int8multirange, vec tsvector, m mood, ms mood[], pos positive, pr pair, prs pair[],
	rc regclass, x xml, generated int GENERATED ALWAYS AS (id * 2) STORED, "odd ""name""" text)`

const manyValues = `(id, b, i2, i8, f4, f8, num, cash, t, vc, c, bytes, d, ts, tz, tm, tmz, iv, u, j, jb, ip, net, mac, bits, vbits, p, ints, grid, texts, r, mr, vec, m, ms, pos, pr, prs, rc, x, "odd ""name""")
VALUES
(1, true, -1, 9007199254740993, 0.1, 1e-300, 123456789012345678901234567890.10, 1.5, E'tab\t"q" \\ \u2028 ü', 'v', 'ab', '\xdeadbeef', '2026-11-23', '2026-11-23 08:45:53.1', '2026-11-23 08:45:53+02',
 '24:00', '08:00+05:30', '1 year -2 days 03:00:00.5', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', ' {"a" : 1.10, "a": null} ', '{"n": 12345678901234567890.0}', '10.0.0.1/8', '10.0.0.0/8', '08:00:2b:01:02:03',
 '101', '1', '(1.5,-2)', '{1,NULL,3}', '{{1,2},{3,4}}', '{"a,b","NULL",NULL,"x\"y"}', '[1,5)', '{[1,3),[5,7)}', 'fat:1 cat', 'O''K', '{sad,NULL}', 7, '(1,"a ""b""","{sad}")', '{"(1,,)"}', 'pg_class', '<a/>', 'odd'),
(2, false, 0, 0, 'NaN', '-Infinity', 'NaN', 0, '', '', '', '', 'infinity', '-infinity', 'infinity', '00:00', '00:00Z', '-1 mon', NULL, 'null', 'null', NULL, NULL, NULL,
 NULL, '', NULL, '{}', '{}', '{}', 'empty', '{}', '', NULL, '{}', NULL, NULL, '{}', NULL, NULL, NULL),
(3, NULL, NULL, NULL, 'Infinity', 1.5, 'Infinity', NULL, repeat('long', 3000), NULL, NULL, NULL, '0044-03-15 BC', '0044-03-15 01:02:03 BC', '0044-03-15 BC', NULL, NULL, '0', NULL, NULL, NULL, NULL, NULL, NULL,
 NULL, NULL, NULL, '[0:1]={1,2}', NULL, NULL, '(,)', NULL, NULL, NULL, NULL, NULL, '(,,)', NULL, NULL, NULL, NULL)`

// The database's own settings are others than ours, on purpose.
func TestSnapshotAndStreamGiveWhatRowToJSONGives(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	name := db.value(`SELECT current_database()::text`)
	for _, setting := range []string{"TimeZone = 'Asia/Kolkata'", "DateStyle = 'German'", "IntervalStyle = 'iso_8601'", "bytea_output = 'escape'", "extra_float_digits = -5"} {
		db.exec(`ALTER DATABASE ` + name + ` SET ` + setting)
	}
	db.exec(manyTypes)
	db.exec(`INSERT INTO types ` + manyValues)
	s := newStore(t)
	r := s.start(db.source(withSnapshot), 0)
	r.streaming()
	r.until("the snapshot", func(s *store) bool { return s.count() == 3 })
	config, err := pgx.ParseConfig(db.url)
	if err != nil {
		t.Fatal(err)
	}
	config.RuntimeParams = SessionSettings()
	oracle, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer oracle.Close(t.Context())
	var want []string
	rows, err := oracle.Query(t.Context(), `SELECT row_to_json(types)::text FROM types ORDER BY id`)
	if err != nil {
		t.Fatal(err)
	}
	var row string
	if _, err := pgx.ForEachRow(rows, []any{&row}, func() error { want = append(want, row); return nil }); err != nil {
		t.Fatal(err)
	}
	db.exec(`DELETE FROM types`)
	db.exec(`INSERT INTO types ` + manyValues)
	got := r.events(9)
	for i := range want {
		checkAfter(t, "snapshot", got[i], want[i])
		checkAfter(t, "stream", got[i+6], want[i])
	}
}

// checkAfter compares a row with what row_to_json gives, member by member, in order, but for generated columns, which the
// stream does not have.
func checkAfter(t *testing.T, where string, e stored, want string) {
	t.Helper()
	row := e.row(t)
	got, expected := members(t, row.After), members(t, []byte(want))
	n := 0
	for _, m := range expected {
		if m[0] == "generated" {
			continue
		}
		if n >= len(got) || got[n] != m {
			t.Errorf("%s: member %d is %v, want %v", where, n, got[min(n, len(got)-1)], m)
			return
		}
		n++
	}
	if n != len(got) {
		t.Errorf("%s: %d members more than row_to_json's", where, len(got)-n)
	}
}

// members gives names and raw values of a JSON object, in order.
func members(t *testing.T, object []byte) [][2]string {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(object))
	if _, err := decoder.Token(); err != nil {
		t.Fatalf("%v: %s", err, object)
	}
	var all [][2]string
	for decoder.More() {
		name, err := decoder.Token()
		if err != nil {
			t.Fatal(err)
		}
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			t.Fatal(err)
		}
		all = append(all, [2]string{name.(string), string(value)})
	}
	return all
}
