package conformance

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tributary-dev/tributary/internal/pgtest"
	"github.com/tributary-dev/tributary/pkg/pgcdc"
)

var errAsked = errors.New("the server was asked")

func askNobody(context.Context, string, ...any) (pgx.Rows, error) { return nil, errAsked }

// TestBuiltInTypesNeedNoQuery holds the table in the code against pg_type. A server that is newer than the table may have
// more: then it is time to add them.
func TestBuiltInTypesNeedNoQuery(t *testing.T) {
	s := connect(t, pgtest.Database(t))
	rows, err := s.sql.Query(t.Context(), `SELECT t.oid, t.typname::text FROM pg_type t LEFT JOIN pg_type e ON e.oid = t.typelem AND e.typarray = t.oid
		WHERE t.oid < 10000 AND coalesce(e.typtype, t.typtype) IN ('b', 'r', 'm')`)
	if err != nil {
		t.Fatal(err)
	}
	type typeRow struct {
		OID  uint32
		Name string
	}
	types, err := pgx.CollectRows(rows, pgx.RowToStructByPos[typeRow])
	if err != nil || len(types) < 100 {
		t.Fatalf("%d types, %v", len(types), err)
	}
	catalog := pgcdc.NewCatalog(askNobody)
	for _, want := range types {
		if got, err := catalog.Type(t.Context(), want.OID); err != nil || got.Name != want.Name || got.OID != want.OID {
			t.Errorf("type %d = %+v, %v; want %s", want.OID, got, err, want.Name)
		}
	}
}

func typeNamed(t *testing.T, s *session, name string) *pgcdc.Type {
	t.Helper()
	var oid uint32
	if err := s.sql.QueryRow(t.Context(), "SELECT $1::text::regtype::oid", name).Scan(&oid); err != nil {
		t.Fatal(err)
	}
	typ, err := s.catalog.Type(t.Context(), oid)
	if err != nil {
		t.Fatal(err)
	}
	return typ
}

func TestTypesAreAskedForOnce(t *testing.T) {
	s := connect(t, pgtest.Database(t))
	s.exec(t, "CREATE TYPE pair AS (a int, b text)")
	asked := 0
	s.catalog = pgcdc.NewCatalog(func(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
		asked++
		return s.sql.Query(ctx, sql, args...)
	})
	list := typeNamed(t, s, "pair[]")
	after := asked
	if typeNamed(t, s, "pair[]") != list || typeNamed(t, s, "pair").Name != "public.pair" || asked != after {
		t.Errorf("the server was asked %d times more", asked-after)
	}
}

func TestForgetFollowsDDL(t *testing.T) {
	s := connect(t, pgtest.Database(t))
	s.exec(t, `CREATE TYPE pair AS (a int, b text); CREATE DOMAIN checked AS pair; CREATE TYPE holder AS (c checked[]); CREATE TYPE other AS (a int)`)
	pair, checked, other := typeNamed(t, s, "pair"), typeNamed(t, s, "checked"), typeNamed(t, s, "other")
	typeNamed(t, s, "holder[]")
	s.exec(t, `ALTER TYPE pair RENAME ATTRIBUTE a TO z`)
	s.catalog.Forget(pair.OID)
	for name, want := range map[string]string{"pair": `{"z":1,"b":"x"}`, "checked": `{"z":1,"b":"x"}`} {
		if got, ok := typeNamed(t, s, name).AppendValue(nil, []byte("(1,x)")); string(got) != want || !ok {
			t.Errorf("%s: got %s, %v; want %s", name, got, ok, want)
		}
	}
	holders := typeNamed(t, s, "holder[]")
	if got, ok := holders.AppendValue(nil, []byte(`{"(\"{\"\"(1,x)\"\"}\")"}`)); string(got) != `[{"c":[{"z":1,"b":"x"}]}]` || !ok {
		t.Errorf("holder[]: got %s, %v", got, ok)
	}
	if typeNamed(t, s, "other") != other {
		t.Error("a type that has nothing to do with it was forgotten too")
	}
	s.exec(t, `ALTER TYPE pair RENAME ATTRIBUTE z TO y`)
	s.catalog.Forget(checked.OID)
	if got, ok := typeNamed(t, s, "checked").AppendValue(nil, []byte("(1,x)")); string(got) != `{"y":1,"b":"x"}` || !ok {
		t.Errorf("what the domain is made of was not forgotten: %s, %v", got, ok)
	}
	s.exec(t, `ALTER TYPE pair RENAME ATTRIBUTE y TO x`)
	s.catalog.Reset()
	if got, ok := typeNamed(t, s, "pair").AppendValue(nil, []byte("(1,x)")); string(got) != `{"x":1,"b":"x"}` || !ok {
		t.Errorf("after Reset: %s, %v", got, ok)
	}
}

func TestRefreshFollowsAnAlteredComposite(t *testing.T) {
	s := connect(t, pgtest.Database(t))
	s.exec(t, `CREATE TYPE pair AS (a int, b text)`)
	list := typeNamed(t, s, "pair[]")
	s.exec(t, `ALTER TYPE pair ADD ATTRIBUTE c bool`)
	text := []byte(`{"(1,x,t)"}`)
	if got, ok := list.AppendValue(nil, text); ok || string(got) != `["(1,x,t)"]` {
		t.Errorf("before Refresh: %s, %v", got, ok)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	fresh := list
	for fresh == list { // Refresh does not ask for what was read just now
		select {
		case <-again.C:
		case <-ctx.Done():
			t.Fatal("the type stays as it was")
		}
		var err error
		if fresh, err = s.catalog.Refresh(ctx, list); err != nil {
			t.Fatal(err)
		}
	}
	if got, ok := fresh.AppendValue(nil, text); string(got) != `[{"a":1,"b":"x","c":true}]` || !ok {
		t.Errorf("after Refresh: %s, %v", got, ok)
	}
	if now, err := s.catalog.Refresh(ctx, list); err != nil || now != fresh {
		t.Errorf("a second one who has the old type gets %+v, %v", now, err)
	}
}

func TestTypeThatIsGoneIsTextAndNoError(t *testing.T) {
	s := connect(t, pgtest.Database(t))
	s.exec(t, `CREATE TYPE mood AS ENUM ('sad')`)
	mood := typeNamed(t, s, "mood")
	s.exec(t, `DROP TYPE mood`)
	s.catalog.Reset()
	for _, oid := range []uint32{mood.OID, 0, 4294967295} {
		typ, err := s.catalog.Type(t.Context(), oid)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := typ.AppendValue(nil, []byte("sad")); string(got) != `"sad"` || ok {
			t.Errorf("type %d gives %s, %v", oid, got, ok)
		}
		if same, err := s.catalog.Refresh(t.Context(), typ); err != nil || same != typ {
			t.Errorf("Refresh gives %+v, %v", same, err)
		}
	}
}
