package sql_test

import (
	"context"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/tributary-dev/tributary/internal/pgtest"
	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/actions/actionstest"
	"github.com/tributary-dev/tributary/pkg/actions/egress"
	"github.com/tributary-dev/tributary/pkg/actions/secret"
	"github.com/tributary-dev/tributary/pkg/actions/sql"
	"github.com/tributary-dev/tributary/pkg/retry"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const functions = `
CREATE TABLE calls (key text, id bigint, name text, doc jsonb);
CREATE FUNCTION keep(key text, id bigint, name text, doc jsonb) RETURNS void LANGUAGE sql AS 'INSERT INTO calls VALUES (key, id, name, doc)';
CREATE FUNCTION hang(key text) RETURNS text LANGUAGE sql AS 'SELECT key FROM pg_sleep(60)';
CREATE FUNCTION raise(code text, said text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION '%', said USING ERRCODE = code; END $$;
CREATE FUNCTION many(n int) RETURNS SETOF int LANGUAGE sql AS 'SELECT generate_series(1, n)';
CREATE SCHEMA "order"; CREATE FUNCTION "order"."select"() RETURNS int LANGUAGE sql AS 'SELECT 1';`

// newSQL makes a database with the functions, and an action that reaches it by env:DB_URL.
func newSQL(t *testing.T) (*sql.SQL, *pgx.Conn) {
	t.Helper()
	url := pgtest.Database(t)
	t.Setenv("DB_URL", url)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	if _, err := conn.Exec(t.Context(), functions); err != nil {
		t.Fatal(err)
	}
	action := sql.New(egress.NewDialer([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}), new(secret.Resolver), sql.Options{})
	t.Cleanup(action.Close)
	return action, conn
}

func calling(function string, keyAt []int, args ...any) actions.Request {
	body, err := json.Marshal(map[string]any{"function": function, "args": args, "effect_key": keyAt})
	if err != nil {
		panic(err)
	}
	return actions.Request{Type: sql.Type, URL: "env:DB_URL", Body: body, Timeout: 10 * time.Second}
}

func TestConformance(t *testing.T) {
	t.Setenv("DB_REFUSED", "postgres://u:"+actionstest.Secret+"@127.0.0.1:1/db")
	actionstest.Run(t, func(t *testing.T) actionstest.Fixture {
		action, conn := newSQL(t)
		with := func(request actions.Request) func(*testing.T) actions.Request {
			return func(*testing.T) actions.Request { return request }
		}
		down := calling("public.keep", nil)
		down.URL = "env:DB_REFUSED"
		return actionstest.Fixture{
			Action:  action,
			Request: calling("public.keep", []int{1}, nil, 42, actionstest.Payload, map[string]any{"a": actionstest.Payload}),
			Keys:    func() []string { return query(t, conn, `SELECT key FROM calls`) },
			Faults: map[actionstest.Fault]func(*testing.T) actions.Request{
				actionstest.Refuses: with(calling("public.raise", nil, "P0001", actionstest.Payload)),
				actionstest.Fails:   with(down),
				actionstest.Hangs:   with(calling("public.hang", []int{1}, nil)),
			},
		}
	})
}

func query(t *testing.T, conn *pgx.Conn, statement string) []string {
	t.Helper()
	rows, err := conn.Query(t.Context(), statement)
	if err != nil {
		t.Fatal(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestDoBindsValues(t *testing.T) {
	action, conn := newSQL(t)
	tests := map[string]struct {
		args []any
		want string
	}{
		"what would end a statement":  {[]any{"k", 1, "'); DROP TABLE calls; --", "'); DROP TABLE calls; --"}, `k|1|'); DROP TABLE calls; --|"'); DROP TABLE calls; --"`},
		"nothing":                     {[]any{nil, nil, nil, nil}, `|||`},
		"the largest integer":         {[]any{"k", int64(9223372036854775807), "$1", true}, `k|9223372036854775807|$1|true`},
		"an object as text and jsonb": {[]any{"k", "7", map[string]any{"a": []int{1}}, map[string]any{"a": "b"}}, `k|7|{"a":[1]}|{"a": "b"}`},
		"a number as jsonb":           {[]any{"k", 1, 19.5, 19.5}, `k|1|19.5|19.5`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := conn.Exec(t.Context(), `DELETE FROM calls`); err != nil {
				t.Fatal(err)
			}
			if _, err := action.Do(t.Context(), actions.Effect{Key: "e"}, calling("public.keep", nil, test.args...)); err != nil {
				t.Fatal(err)
			}
			got := query(t, conn, `SELECT concat_ws('|', coalesce(key, ''), coalesce(id::text, ''), coalesce(name, ''), coalesce(doc::text, '')) FROM calls`)
			if !slices.Equal(got, []string{test.want}) {
				t.Errorf("the function got %q, want %q", got, test.want)
			}
		})
	}
}

func TestDoJudgesBySQLSTATE(t *testing.T) {
	action, _ := newSQL(t)
	raise := func(code string) actions.Request { return calling("public.raise", nil, code, "value of a row") }
	tests := map[string]struct {
		request   actions.Request
		permanent bool
	}{
		"a deadlock":                        {raise("40P01"), false},
		"a lock that is taken":              {raise("55P03"), false},
		"no space":                          {raise("53100"), false},
		"a shutdown":                        {raise("57P01"), false},
		"a lost connection":                 {raise("08006"), false},
		"a standby":                         {raise("25006"), false},
		"a unique key":                      {raise("23505"), true},
		"an exception of the function":      {raise("P0001"), true},
		"a function that is not there":      {calling("public.gone", nil), true},
		"a value of another type":           {calling("public.keep", nil, "k", "value of a row", "", nil), true},
		"a list for a number":               {calling("public.keep", nil, "k", []int{1}, "", nil), true},
		"a function without a schema":       {calling("keep", nil), true},
		"a name that would end a statement": {calling(`public.keep(); DROP TABLE calls; --`, nil), true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := action.Do(t.Context(), actions.Effect{Key: "e"}, test.request)
			if err == nil || retry.IsPermanent(err) != test.permanent || strings.Contains(err.Error(), "value of a row") {
				t.Errorf("the attempt gave %v, want an error with permanent %t", err, test.permanent)
			}
		})
	}
	for _, request := range []actions.Request{calling("public.many", nil, 10_000), calling("order.select", nil)} {
		if _, err := action.Do(t.Context(), actions.Effect{Key: "e"}, request); err != nil {
			t.Errorf("%s: %v", request.Body, err)
		}
	}
}

func TestDoUsesAReplacedFunctionAndSecret(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	action, conn := newSQL(t)
	request := calling("public.many", nil, 3)
	do := func() error {
		_, err := action.Do(t.Context(), actions.Effect{Key: "e"}, request)
		return err
	}
	if err := do(); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), `DROP FUNCTION many(int); CREATE FUNCTION many(n text) RETURNS text LANGUAGE sql AS 'SELECT n'`); err != nil {
		t.Fatal(err)
	}
	if err := do(); err != nil {
		t.Errorf("after the function was replaced: %v", err)
	}
	url := conn.Config().ConnString()
	t.Setenv("DB_URL", "postgres://nobody:wrong@127.0.0.1:1/none")
	if err := do(); err == nil || retry.IsPermanent(err) {
		t.Errorf("a wrong secret gave %v", err)
	}
	t.Setenv("DB_URL", url)
	if err := do(); err != nil {
		t.Errorf("after the secret was mended: %v", err)
	}
	action.Close()
	if err := do(); err == nil {
		t.Error("a closed action did an effect")
	}
	_ = conn.Close(t.Context())
}

func TestDoLeavesTheDeploymentAlone(t *testing.T) {
	t.Setenv("DB_URL", "postgres://u:"+actionstest.Secret+"@127.0.0.1:5432/db")
	t.Setenv("SOCKET_URL", "postgres://u@/db?host=/var/run/postgresql")
	action := sql.New(egress.NewDialer(nil), new(secret.Resolver), sql.Options{})
	t.Cleanup(action.Close)
	_, err := action.Do(t.Context(), actions.Effect{}, calling("public.keep", nil))
	if !retry.IsPermanent(err) || strings.Contains(err.Error(), actionstest.Secret) {
		t.Errorf("a private address gave %v", err)
	}
	request := calling("public.keep", nil)
	request.URL = "env:SOCKET_URL"
	if _, err := action.Do(t.Context(), actions.Effect{}, request); err == nil {
		t.Error("a socket of the file system was connected to")
	}
}
