// Package conformance holds what is tested against PostgreSQL itself.
package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"strconv"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tributary-dev/tributary/internal/pgtest"
	"github.com/tributary-dev/tributary/pkg/pgcdc"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// session is a connection with our settings, and a catalog on a connection of its own.
type session struct {
	conn    *pgconn.PgConn
	catalog *pgcdc.Catalog
	sql     *pgx.Conn
}

// connect opens a session; configure changes how the connection that values are read on is made.
func connect(t *testing.T, url string, configure ...func(*pgconn.Config)) *session {
	t.Helper()
	config, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	sql, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	values := config.Config.Copy()
	for name, value := range pgcdc.SessionSettings() {
		values.RuntimeParams[name] = value
	}
	for _, change := range configure {
		change(values)
	}
	conn, err := pgconn.ConnectConfig(t.Context(), values)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if err := conn.Close(ctx); err != nil {
			t.Error(err)
		}
		if err := sql.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return &session{conn, pgcdc.NewCatalog(sql.Query), sql}
}

func (s *session) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	if _, err := s.sql.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// query runs a simple query, whose values come as text, as they do in a snapshot and in a stream.
func (s *session) query(t *testing.T, sql string) *pgconn.Result {
	t.Helper()
	results, err := s.conn.Exec(t.Context(), sql).ReadAll()
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return results[len(results)-1]
}

// compared is what compare saw.
type compared struct {
	rows      int
	unwritten int // values with ok false
}

// columnTypes gives the types of a query's columns as a table would have them, and as a stream names them: the result of
// a query has the base type in the place of a domain.
func (s *session) columnTypes(t *testing.T, query string) []*pgcdc.Type {
	t.Helper()
	s.query(t, "CREATE TEMP VIEW columns_of AS "+query)
	result := s.query(t, "SELECT atttypid FROM pg_attribute WHERE attrelid = 'columns_of'::regclass AND attnum > 0 ORDER BY attnum")
	var types []*pgcdc.Type
	for _, row := range result.Rows {
		oid, err := strconv.ParseUint(string(row[0]), 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		typ, err := s.catalog.Type(t.Context(), uint32(oid))
		if err != nil {
			t.Fatal(err)
		}
		types = append(types, typ)
	}
	s.query(t, "DROP VIEW columns_of")
	return types
}

// compare runs a query and checks that each of its rows, put together from the values' texts, is byte for byte what
// row_to_json gives, white space aside.
func (s *session) compare(t *testing.T, query string) compared {
	t.Helper()
	types := s.columnTypes(t, query)
	result := s.query(t, "SELECT pg_catalog.row_to_json(q)::text, q.* FROM ("+query+") q")
	var saw compared
	for _, row := range result.Rows {
		got, unwritten := object(t, types, result.FieldDescriptions[1:], row[1:])
		saw.rows++
		saw.unwritten += unwritten
		if want := row[0]; !equalJSON(t, got, want) {
			t.Errorf("%s:\n got %s\nwant %s", query, got, want)
		}
	}
	return saw
}

// write gives the row of a query as the values' texts make it.
func (s *session) write(t *testing.T, query string) (row []byte, unwritten int) {
	t.Helper()
	types := s.columnTypes(t, query)
	result := s.query(t, query)
	return object(t, types, result.FieldDescriptions, result.Rows[0])
}

// object does what the decoder does to a row.
func object(t *testing.T, types []*pgcdc.Type, columns []pgconn.FieldDescription, row [][]byte) (object []byte, unwritten int) {
	t.Helper()
	object = append(object, '{')
	for i, column := range columns {
		if i > 0 {
			object = append(object, ',')
		}
		name, err := json.Marshal(column.Name)
		if err != nil {
			t.Fatal(err)
		}
		object = append(append(object, name...), ':')
		if row[i] == nil {
			object = append(object, "null"...)
			continue
		}
		var ok bool
		if object, ok = types[i].AppendValue(object, row[i]); !ok {
			unwritten++
		}
	}
	return append(object, '}'), unwritten
}

func equalJSON(t *testing.T, got, want []byte) bool {
	t.Helper()
	return bytes.Equal(compact(t, got), compact(t, want))
}

func compact(t *testing.T, text []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := json.Compact(&b, text); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return b.Bytes()
}
