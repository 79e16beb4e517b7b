package elastic_test

import (
	"bufio"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/indexer"
	"github.com/tributary-dev/tributary/pkg/indexer/elastic"
	"github.com/tributary-dev/tributary/pkg/indexer/indextest"
	"github.com/tributary-dev/tributary/pkg/indexer/query"
	"github.com/tributary-dev/tributary/pkg/retry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// liar is a server that answers as it is told.
type liar struct {
	*httptest.Server
	answer   func(w http.ResponseWriter, r *http.Request)
	template string // what is said of the template, in silence; answer is asked where it is empty

	mu       sync.Mutex
	requests []string // method, path, headers that matter, body
}

// ours is what the server says of a template that is newer than ours.
const ours = `{"index_templates":[{"index_template":{"version":99,"_meta":{"managed_by":"tributary"}}}]}`

func newLiar(t *testing.T, answer func(w http.ResponseWriter, r *http.Request)) *liar {
	t.Helper()
	l := &liar{answer: answer}
	l.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if strings.HasPrefix(r.URL.Path, "/_index_template/") && r.Method == http.MethodGet && l.template != "" {
			says(200, l.template)(w, r)
			return
		}
		l.mu.Lock()
		l.requests = append(l.requests, r.Method+" "+r.URL.Path+" "+r.Header.Get("Authorization")+" "+r.Header.Get("Content-Type")+"\n"+string(body))
		l.mu.Unlock()
		l.answer(w, r)
	}))
	t.Cleanup(l.Close)
	return l
}

// all gives the requests that came.
func (l *liar) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.requests)
}

func (l *liar) index(t *testing.T, options elastic.Options) *elastic.Index {
	t.Helper()
	options.URL = l.URL
	x, err := elastic.New(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(x.Close)
	return x
}

func says(status int, body string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Elastic-Product", "Elasticsearch")
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}
}

func three(t *testing.T) []indexer.Document {
	return indextest.Documents(t, indextest.Row(1, events.OpInsert, "", `{"id":1}`), indextest.Row(2, events.OpInsert, "", `{"id":2}`),
		indextest.Published(t, 3, time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC), "{\n\"a\": 1 }"))
}

func TestABulkIsLinesOfActionsAndDocuments(t *testing.T) {
	l := newLiar(t, says(200, `{"errors":false,"items":[{"create":{"status":201}},{"create":{"status":201}},{"create":{"status":201}}]}`))
	l.template = ours
	documents := three(t)
	if _, err := l.index(t, elastic.Options{Username: "u", Password: "p"}).Write(t.Context(), documents); err != nil {
		t.Fatal(err)
	}
	head, body, _ := strings.Cut(l.all()[0], "\n")
	if want := "POST /_bulk Basic dTpw application/x-ndjson"; head != want {
		t.Errorf("the request is %s, want %s", head, want)
	}
	lines := bufio.NewScanner(strings.NewReader(body))
	var got []string
	for lines.Scan() {
		if !json.Valid(lines.Bytes()) {
			t.Errorf("a line is no JSON: %s", lines.Text())
		}
		got = append(got, lines.Text())
	}
	want := []string{
		`{"create":{"_index":"tributary-events-2026.11","_id":"` + documents[0].ID + `"}}`, string(documents[0].Body),
		`{"create":{"_index":"tributary-events-2026.11","_id":"` + documents[1].ID + `"}}`, string(documents[1].Body),
		`{"create":{"_index":"tributary-events-2026.12","_id":"` + documents[2].ID + `"}}`, string(documents[2].Body),
	}
	if diff := cmp.Diff(want, got); diff != "" || !strings.HasSuffix(body, "\n") {
		t.Error(diff)
	}
}

func TestEachDocumentHasTheOutcomeThatTheServerGave(t *testing.T) {
	item := func(status int, kind string) string {
		if kind == "" {
			return fmt.Sprintf(`{"create":{"status":%d}}`, status)
		}
		return fmt.Sprintf(`{"create":{"status":%d,"error":{"type":%q,"reason":"because","caused_by":{"type":"deeper","reason":"why"}}}}`, status, kind)
	}
	for name, c := range map[string]struct {
		item  string
		state indexer.State
		err   string
	}{
		"created":               {item(201, ""), indexer.Created, ""},
		"there already":         {item(409, "version_conflict_engine_exception"), indexer.Existed, ""},
		"rejected":              {item(429, "es_rejected_execution_exception"), indexer.Again, "status 429: es_rejected_execution_exception: because; caused by deeper: why"},
		"a broken shard":        {item(503, "unavailable_shards_exception"), indexer.Again, "status 503: unavailable_shards"},
		"a server's fault":      {item(500, ""), indexer.Again, "status 500"},
		"no mapping":            {item(400, "document_parsing_exception"), indexer.Refused, "status 400: document_parsing_exception: because"},
		"an older one's":        {item(400, "mapper_parsing_exception"), indexer.Refused, "mapper_parsing"},
		"a term too long":       {item(400, "illegal_argument_exception"), indexer.Refused, "illegal_argument"},
		"a reason of its own":   {item(400, "something_new_exception"), indexer.Refused, "something_new"},
		"no reason":             {item(400, ""), indexer.Refused, "status 400"},
		"a closed index":        {item(400, "index_closed_exception"), indexer.Again, "index_closed"},
		"no more shards":        {item(400, "validation_exception"), indexer.Again, "validation"},
		"a blocked index":       {item(403, "cluster_block_exception"), indexer.Again, "cluster_block"},
		"no right to the index": {item(403, "security_exception"), indexer.Again, "security"},
		"no index":              {item(404, "index_not_found_exception"), indexer.Again, "index_not_found"},
	} {
		t.Run(name, func(t *testing.T) {
			created := item(201, "")
			l := newLiar(t, says(200, `{"errors":true,"items":[`+created+","+c.item+","+created+`]}`))
			l.template = ours
			outcomes, err := l.index(t, elastic.Options{}).Write(t.Context(), three(t))
			if err != nil || len(outcomes) != 3 {
				t.Fatalf("%v %v", outcomes, err)
			}
			got := outcomes[1]
			if got.State != c.state || (got.Err == nil) != (c.err == "") || got.Err != nil && !strings.Contains(got.Err.Error(), c.err) {
				t.Errorf("got %+v", got)
			}
			if outcomes[0].State != indexer.Created || outcomes[2].State != indexer.Created {
				t.Errorf("the others are %v and %v", outcomes[0], outcomes[2])
			}
		})
	}
}

func TestABulkThatFailsAsAWholeSaysHow(t *testing.T) {
	failed := func(status int, kind string) func(http.ResponseWriter, *http.Request) {
		return says(status, fmt.Sprintf(`{"error":{"type":%q,"reason":"because"},"status":%d}`, kind, status))
	}
	created := `{"create":{"status":201}}`
	for name, c := range map[string]struct {
		answer func(http.ResponseWriter, *http.Request)
		split  bool
		after  time.Duration
	}{
		"too many requests": {failed(429, "es_rejected_execution_exception"), false, 0},
		"too many requests, with a time": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", "7")
			failed(429, "x")(w, r)
		}, false, 7 * time.Second},
		"too large":                          {says(413, ""), true, 0},
		"a document that breaks the request": {failed(400, "action_request_validation_exception"), true, 0},
		"no index can be made":               {failed(400, "validation_exception"), false, 0},
		"a proxy's refusal":                  {says(400, "<html>Bad Request</html>"), false, 0},
		"a proxy's bad moment":               {says(502, "<html>Bad Gateway</html>"), false, 0},
		"no leader":                          {failed(503, "cluster_block_exception"), false, 0},
		"no rights":                          {failed(401, "security_exception"), false, 0},
		"a text for an error":                {says(500, `{"error":"broken"}`), false, 0},
		"success that is no JSON":            {says(200, "OK"), false, 0},
		"success about others":               {says(200, `{"errors":false,"items":[{"index":{"status":201}},`+created+","+created+"]}"), false, 0},
		"success about fewer":                {says(200, `{"errors":false,"items":[`+created+"]}"), false, 0},
		"success about none":                 {says(200, `{}`), false, 0},
		"an answer that is cut off": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write([]byte(`{"items":[`))
		}, false, 0},
		"a connection that breaks": {func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				_ = conn.Close()
			}
		}, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLiar(t, c.answer)
			l.template = ours
			outcomes, err := l.index(t, elastic.Options{}).Write(t.Context(), three(t))
			if err == nil {
				t.Fatalf("got %v", outcomes)
			}
			if split := errors.Is(err, indexer.ErrBulkRefused); split != c.split {
				t.Errorf("split is %v: %v", split, err)
			}
			if got := retry.DelayOf(err); got != c.after {
				t.Errorf("it may be tried again after %v", got)
			}
			if len(l.all()) != 1 {
				t.Errorf("%d requests were sent: nothing is tried again in silence", len(l.all()))
			}
		})
	}
}

func TestAServerThatWasAwayGetsTheTemplateBeforeDocuments(t *testing.T) {
	var away atomic.Bool
	l := newLiar(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case away.Load():
			w.WriteHeader(http.StatusBadGateway)
		case r.URL.Path == "/_bulk":
			says(200, `{"items":[{"create":{"status":201}},{"create":{"status":201}},{"create":{"status":201}}]}`)(w, r)
		case r.Method == http.MethodGet:
			says(404, `{}`)(w, r)
		default:
			says(200, `{}`)(w, r)
		}
	})
	x := l.index(t, elastic.Options{})
	for _, gone := range []bool{false, true, false, false} {
		away.Store(gone)
		if _, err := x.Write(t.Context(), three(t)); (err != nil) != gone {
			t.Fatal(err)
		}
	}
	var got []string
	for _, request := range l.all() {
		got = append(got, strings.Join(strings.Fields(request)[:2], " "))
	}
	const get, put, bulk = "GET /_index_template/tributary-events", "PUT /_index_template/tributary-events", "POST /_bulk"
	want := []string{get, put, bulk, bulk, get, put, bulk, bulk}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestAServerThatIsNotThere(t *testing.T) {
	l := newLiar(t, nil)
	l.Close()
	x := l.index(t, elastic.Options{})
	if _, err := x.Write(t.Context(), three(t)); err == nil || retry.IsPermanent(err) || errors.Is(err, indexer.ErrBulkRefused) {
		t.Errorf("write: %v", err)
	}
	if err := x.Prepare(t.Context()); err == nil || retry.IsPermanent(err) {
		t.Errorf("prepare: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := x.Search(ctx, indexer.Request{Query: query.All{}}); err == nil {
		t.Error("search went well")
	}
}

func TestThePasswordIsInNoError(t *testing.T) {
	l := newLiar(t, nil)
	l.Close()
	x, err := elastic.New(elastic.Options{URL: strings.Replace(l.URL, "http://", "http://u:hunter2@", 1)})
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{x.Prepare(t.Context()), errOf(x.Write(t.Context(), three(t)))} {
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("got %v", err)
		}
	}
}

func errOf(_ []indexer.Outcome, err error) error { return err }

func TestWhatAnswersIsRecognized(t *testing.T) {
	plain := func(status int, body string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/" {
				says(404, `{}`)(w, r)
				return
			}
			w.WriteHeader(status)
			fmt.Fprint(w, body)
		}
	}
	elasticsearch := func(status int, body string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.URL.Path == "/":
				says(status, body)(w, r)
			case r.Method == http.MethodGet:
				says(404, `{}`)(w, r)
			default:
				says(200, `{}`)(w, r)
			}
		}
	}
	opensearch := func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/":
			fmt.Fprint(w, `{"version":{"distribution":"opensearch","number":"3.8.0"}}`)
		case r.Method == http.MethodGet:
			w.WriteHeader(404)
			fmt.Fprint(w, `{}`)
		default:
			fmt.Fprint(w, `{}`)
		}
	}
	for name, c := range map[string]struct {
		answer    func(http.ResponseWriter, *http.Request)
		options   elastic.Options
		err       string // "" for none
		permanent bool
		installed string // in the template
	}{
		"Elasticsearch":                      {elasticsearch(200, `{"version":{"number":"8.19.13"}}`), elastic.Options{}, "", false, `"type":"flattened"`},
		"Elasticsearch without its page":     {elasticsearch(405, `{"error":"no","status":405}`), elastic.Options{}, "", false, `"type":"flattened"`},
		"OpenSearch":                         {opensearch, elastic.Options{}, "", false, `"type":"flat_object"`},
		"something else":                     {plain(200, `{"hello":"world"}`), elastic.Options{}, "does not say that it is", true, ""},
		"a web page":                         {plain(200, `<html>`), elastic.Options{}, "does not say that it is", true, ""},
		"nothing there":                      {plain(404, ``), elastic.Options{}, "status 404", true, ""},
		"something else that is allowed":     {elasticsearch(404, `{}`), elastic.Options{AllowUnknown: true}, "", false, `"type":"flattened"`},
		"no password":                        {elasticsearch(401, `{}`), elastic.Options{}, elastic.ErrDenied.Error(), true, ""},
		"a proxy without a server":           {plain(503, `<html>`), elastic.Options{}, "status 503", false, ""},
		"an Elasticsearch that is not ready": {elasticsearch(503, `{}`), elastic.Options{}, "status 503", false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLiar(t, c.answer)
			err := l.index(t, c.options).Prepare(t.Context())
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) || retry.IsPermanent(err) != c.permanent {
				t.Fatalf("got %v, permanent %v", err, retry.IsPermanent(err))
			}
			requests := l.all()
			if c.err == "" && !strings.Contains(requests[len(requests)-1], c.installed) {
				t.Errorf("%d requests, the last is %s", len(requests), requests[len(requests)-1])
			}
		})
	}
}

func TestCertificatesMustBeSome(t *testing.T) {
	if _, err := elastic.New(elastic.Options{URL: "https://x", CACert: []byte("none")}); !errors.Is(err, elastic.ErrNoCertificate) {
		t.Errorf("got %v", err)
	}
}

func TestTheCAFileIsTrusted(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.EqualFold(r.Header.Get("Authorization"), "ApiKey key") {
			says(401, `{}`)(w, r)
			return
		}
		says(200, `{"version":{"number":"8"},`+ours[1:])(w, r)
	}))
	defer server.Close()
	options := elastic.Options{URL: server.URL, APIKey: "key"}
	untrusting, err := elastic.New(options)
	if err != nil {
		t.Fatal(err)
	}
	defer untrusting.Close()
	if err := untrusting.Prepare(t.Context()); err == nil {
		t.Error("a certificate of nobody was trusted")
	}
	options.CACert = pemOf(server)
	x, err := elastic.New(options)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	if err := x.Prepare(t.Context()); err != nil {
		t.Error(err)
	}
}

func pemOf(server *httptest.Server) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
}
