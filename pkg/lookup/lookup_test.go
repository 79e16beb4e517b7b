package lookup_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tributary-dev/tributary/internal/natstest"
	"github.com/tributary-dev/tributary/internal/pgtest"
	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/actions/egress"
	"github.com/tributary-dev/tributary/pkg/actions/secret"
	"github.com/tributary-dev/tributary/pkg/actions/sql"
	"github.com/tributary-dev/tributary/pkg/cachekv"
	"github.com/tributary-dev/tributary/pkg/lookup"
	"github.com/tributary-dev/tributary/pkg/observers"
	"github.com/tributary-dev/tributary/pkg/retry"
	"github.com/tributary-dev/tributary/streams"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

func newLookups(t *testing.T, allow []netip.Prefix, o lookup.Options) *lookup.Lookups {
	t.Helper()
	transport := egress.NewTransport(egress.Options{AllowPrivate: allow})
	readers := sql.NewReader(egress.NewDialer(allow), new(secret.Resolver), sql.Options{})
	t.Cleanup(func() { transport.CloseIdleConnections(); readers.Close() })
	return lookup.New(transport, new(secret.Resolver), readers, o)
}

func question(change func(*observers.Lookup)) observers.Lookup {
	q := observers.Lookup{Name: "x", Type: observers.LookupHTTP, Key: "k", Timeout: 5 * time.Second, TTL: time.Minute, NegativeTTL: time.Minute}
	change(&q)
	return q
}

func TestGet(t *testing.T) {
	t.Setenv("TOKEN", "secret-9d2e")
	tests := map[string]struct {
		status    int
		body      string
		want      string
		absent    bool
		permanent bool
		err       string
	}{
		"an answer":                       {200, `{"a":19.90}`, `{"a":19.90}`, false, false, ""},
		"not found is no answer":          {404, `{}`, "", true, false, "there is no answer"},
		"gone is none either":             {410, ``, "", true, false, "there is no answer"},
		"no content neither":              {204, ``, "", true, false, "there is no answer"},
		"an answer that is no JSON":       {200, `<html>`, "", false, false, "the answer is no JSON"},
		"an answer with more than it may": {200, `"` + strings.Repeat("x", lookup.MaxAnswer) + `"`, "", false, true, "more than 262144 bytes"},
		"a question that is wrong":        {400, ``, "", false, true, "status 400"},
		"an endpoint that fails":          {503, ``, "", false, false, "status 503"},
		"a redirect is not followed":      {302, ``, "", false, false, "status 302"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var got http.Header
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				got = r.Header.Clone()
				w.Header().Set("Location", "http://127.0.0.1:1/")
				w.WriteHeader(test.status)
				_, _ = w.Write([]byte(test.body))
			}))
			defer server.Close()
			l := newLookups(t, loopback, lookup.Options{})
			answer, err := l.Fetch(t.Context(), question(func(q *observers.Lookup) {
				q.URL = server.URL + "/hidden-path"
				q.Header = []actions.Header{{Name: "Authorization", Value: "Bearer " + secret.Mark("env:TOKEN")}}
			}))
			if string(answer) != test.want || errors.Is(err, observers.ErrNoAnswer) != test.absent || retry.IsPermanent(err) != test.permanent {
				t.Fatalf("%.40q, %v", answer, err)
			}
			if test.err != "" && (!strings.Contains(err.Error(), test.err) || strings.Contains(err.Error(), "hidden")) {
				t.Errorf("the error is %v", err)
			}
			if got.Get("Authorization") != "Bearer secret-9d2e" || got.Get("Accept") != "application/json" {
				t.Errorf("headers %v", got)
			}
		})
	}
}

func TestPrivateAddressIsRefused(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	_, err := newLookups(t, nil, lookup.Options{}).Fetch(t.Context(), question(func(q *observers.Lookup) { q.URL = server.URL }))
	if _, refused := errors.AsType[*egress.RefusedError](err); !refused || !retry.IsPermanent(err) {
		t.Errorf("it gave %v", err)
	}
}

func TestHungEndpointIsLeft(t *testing.T) {
	hold := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hold }))
	defer server.Close()
	defer close(hold)
	_, err := newLookups(t, loopback, lookup.Options{}).Fetch(t.Context(), question(func(q *observers.Lookup) {
		q.URL, q.Timeout = server.URL, 50*time.Millisecond
	}))
	if err == nil || err.Error() != "no answer within 50ms" || retry.IsPermanent(err) {
		t.Errorf("it gave %v", err)
	}
}

func TestRead(t *testing.T) {
	url := pgtest.Database(t)
	t.Setenv("STOCK_URL", url)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), `CREATE TABLE stock (sku text, level numeric, at timestamptz);
		INSERT INTO stock VALUES ('a', 19.90, '2026-11-23 08:45+01'), ('b', 1, NULL), ('b', 2, NULL)`); err != nil {
		t.Fatal(err)
	}
	l := newLookups(t, loopback, lookup.Options{})
	tests := map[string]struct {
		statement string
		args      []string
		all       bool
		want      string
		absent    bool
		permanent bool
	}{
		"the first row":                  {"SELECT sku, level, at FROM stock WHERE sku = $1 -- of one", []string{`"a"`}, false, `{"sku":"a","level":19.90,"at":"2026-11-23T07:45:00+00:00"}`, false, false},
		"all rows":                       {"SELECT level FROM stock WHERE sku = $1 ORDER BY level", []string{`"b"`}, true, "[{\"level\":1}, \n {\"level\":2}]", false, false},
		"no row":                         {"SELECT 1 FROM stock WHERE sku = $1", []string{`"c"`}, false, "", true, false},
		"a list of no rows":              {"SELECT 1 FROM stock WHERE sku = $1", []string{`"c"`}, true, "[]", false, false},
		"a value is bound":               {"SELECT 1 AS one FROM stock WHERE sku = $1", []string{`"a' OR true --"`}, false, "", true, false},
		"nothing is written":             {"SELECT * FROM (DELETE FROM stock RETURNING 1)", nil, false, "", false, true},
		"nothing is written by a second": {"SELECT 1) q; DELETE FROM stock; SELECT (1", nil, false, "", false, true},
		"too few values":                 {"SELECT $1::int", nil, false, "", false, true},
		"too many rows":                  {"SELECT generate_series(1, 1001)", nil, true, "", false, true},
		"what takes too long":            {"SELECT 1 FROM pg_sleep(10)", nil, false, "", false, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			answer, err := l.Fetch(t.Context(), question(func(q *observers.Lookup) {
				q.Type, q.URL, q.Select, q.AllRows, q.Timeout = observers.LookupSQL, "env:STOCK_URL", test.statement, test.all, time.Second
				for _, arg := range test.args {
					q.Args = append(q.Args, []byte(arg))
				}
			}))
			if string(answer) != test.want || errors.Is(err, observers.ErrNoAnswer) != test.absent || retry.IsPermanent(err) != test.permanent {
				t.Errorf("%s, %v", answer, err)
			}
			if test.want == "" && err == nil {
				t.Error("no error")
			}
		})
	}
	var rows int
	if err := conn.QueryRow(t.Context(), `SELECT count(*) FROM stock`).Scan(&rows); err != nil || rows != 3 {
		t.Errorf("%d rows are left, %v", rows, err)
	}
}

func TestCachedAnswersAreNotAskedForAgain(t *testing.T) {
	server := natstest.Start(t)
	js := server.JetStream(t)
	if _, err := streams.Apply(t.Context(), js, streams.Options{}); err != nil {
		t.Fatal(err)
	}
	cache := cachekv.New(js, cachekv.Options{})
	var asked atomic.Int32
	release := make(chan struct{})
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		switch r.URL.Path {
		case "/none":
			w.WriteHeader(http.StatusNotFound)
		case "/fails":
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			<-release
			_, _ = w.Write([]byte(`{"n":1}`))
		}
	}))
	defer endpoint.Close()
	l := newLookups(t, loopback, lookup.Options{Cache: cache})
	at := func(path string) observers.Lookup {
		return question(func(q *observers.Lookup) { q.URL, q.Key = endpoint.URL+path, path })
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if answer, err := l.Fetch(t.Context(), at("/one")); string(answer) != `{"n":1}` || err != nil {
				t.Errorf("%s, %v", answer, err)
			}
		})
	}
	close(release)
	all.Wait()
	for range 3 {
		if _, err := l.Fetch(t.Context(), at("/none")); !errors.Is(err, observers.ErrNoAnswer) {
			t.Errorf("it gave %v", err)
		}
	}
	if n := asked.Load(); n != 2 {
		t.Errorf("the endpoint was asked %d times for two questions", n)
	}
	for range 2 {
		if _, err := l.Fetch(t.Context(), at("/fails")); err == nil {
			t.Error("no error")
		}
	}
	if n := asked.Load(); n != 4 {
		t.Errorf("a failure was kept: %d questions", n)
	}
	if err := cache.Invalidate(context.Background(), "/one"); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Fetch(t.Context(), at("/one")); err != nil || asked.Load() != 5 {
		t.Errorf("what was invalidated was not asked for again: %d, %v", asked.Load(), err)
	}
}
