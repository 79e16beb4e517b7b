package search_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/actions/search"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/observers"
	"github.com/tributary-dev/tributary/pkg/retry"
	"github.com/tributary-dev/tributary/test/elasticsearch"
)

// real is an action whose documents an Elasticsearch takes, in an index of the test's own.
type real struct {
	t      *testing.T
	url    string
	index  string
	action *search.Search
	set    *observers.Set
}

func newReal(t *testing.T, url, more string) *real {
	t.Helper()
	r := &real{t: t, url: url, index: fmt.Sprintf("search-%d", time.Now().UnixNano()), action: newAction(t)}
	var err error
	r.set, err = observers.Parse("observers.yaml", fmt.Appendf(nil, `
observers:
  - name: documents
    actions:
      - name: index
        type: search
        url: %s/
        index: '%s${event.data.table == "orders" ? "" : "-" + event.data.table}'
        id: ${key.id}
        document: 'op == "delete" ? null : after'
%s`, url, r.index, more))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.ask(context.WithoutCancel(t.Context()), "DELETE", "/"+r.index+"*?expand_wildcards=all", "") })
	return r
}

// ask asks Elasticsearch itself.
func (r *real) ask(ctx context.Context, method, path, body string) (status int, answer map[string]any) {
	r.t.Helper()
	request, err := http.NewRequestWithContext(ctx, method, r.url+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	_ = json.Unmarshal(text, &answer) // a HEAD has no answer
	return response.StatusCode, answer
}

func (r *real) must(method, path, body string) {
	r.t.Helper()
	if status, answer := r.ask(r.t.Context(), method, path, body); status >= 300 {
		r.t.Fatalf("%s %s: %d %v", method, path, status, answer)
	}
}

// source gives the document with an id, as JSON; empty where there is none.
func (r *real) source(id string) string {
	r.t.Helper()
	ids, _ := json.Marshal(map[string]any{"ids": []string{id}})
	_, answer := r.ask(r.t.Context(), "POST", "/"+r.index+"/_mget", string(ids))
	docs, _ := answer["docs"].([]any)
	if len(docs) != 1 {
		return ""
	}
	source, ok := docs[0].(map[string]any)["_source"]
	if !ok {
		return ""
	}
	text, _ := json.Marshal(source)
	return string(text)
}

// change is one event: at is its place among all of its source.
type change struct {
	at    uint64
	op    events.Op
	table string // orders, where it is empty
	id    string
	row   string // after, but for the id
}

func (r *real) render(c change) actions.Request {
	r.t.Helper()
	table := c.table
	if table == "" {
		table = "orders"
	}
	if c.op == "" {
		c.op = events.OpUpdate
	}
	id := string(events.AppendString(nil, c.id))
	e := events.Change{
		ID: []byte("shop-1-0-0-" + fmt.Sprint(c.at)), Source: "shop", Op: c.op, Schema: "public", Table: table, Time: time.Unix(1, 0).UTC(),
		PartitionKey: []byte("public.orders/1"), Sequence: events.Sequence{Commit: c.at << 3}, Key: []byte(`{"id":` + id + `}`),
		InTransaction: true, XID: 1,
	}
	if c.op == events.OpDelete {
		e.Before = []byte(`{"id":` + id + `}`)
	} else {
		e.After = []byte(`{"id":` + id + c.row + `}`)
	}
	raw := events.AppendChange(nil, &e)
	parsed, err := events.Parse(raw)
	if err != nil {
		r.t.Fatal(err)
	}
	address := events.Address{Source: "shop", Schema: "public", Table: table, Op: c.op}
	request, err := r.set.Observers()[0].Actions[0].Render(observers.NewView(address, raw, parsed))
	if err != nil {
		r.t.Fatal(err)
	}
	return request
}

func (r *real) do(c change) (actions.Outcome, error) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	return r.action.Do(ctx, actions.Effect{Key: fmt.Sprintf("shop-1-0-0-%d~documents~index", c.at)}, r.render(c))
}

// done does it and wants a status, with or without a detail.
func (r *real) done(c change, status int, detail string) {
	r.t.Helper()
	if outcome, err := r.do(c); err != nil || outcome.Status != status || outcome.Detail != detail {
		r.t.Errorf("%+v: %+v, %v, want %d %q", c, outcome, err, status, detail)
	}
}

// fails does it and wants an error that says so, and nothing of the document.
func (r *real) fails(c change, permanent bool, says string) {
	r.t.Helper()
	outcome, err := r.do(c)
	if err == nil || retry.IsPermanent(err) != permanent || !strings.HasSuffix(err.Error(), says) || strings.Contains(err.Error(), "hidden") {
		r.t.Errorf("event %d, %.60s: %+v, %v, permanent %t; want %q, permanent %t", c.at, c.row, outcome, err, retry.IsPermanent(err), says, permanent)
	}
}

func TestRealDocumentsFollowTheirRows(t *testing.T) {
	r := newReal(t, elasticsearch.URL(t), "")
	const newer, gone = "a newer version is there", "it was not there"
	row := func(at uint64, n int) change { return change{at: at, id: "42", row: fmt.Sprintf(`,"n":%d`, n)} }
	erase := func(at uint64) change { return change{at: at, op: events.OpDelete, id: "42"} }
	is := func(want string) {
		t.Helper()
		if got := r.source("42"); got != want {
			t.Errorf("the document is %s, want %s", got, want)
		}
	}
	r.done(erase(5), 404, gone) // of an index that is not there, which is made
	r.done(row(10, 1), 201, "")
	is(`{"id":"42","n":1}`)
	r.done(row(10, 1), 200, "") // a retry of what was done
	r.done(row(12, 2), 200, "")
	r.done(row(11, 3), 409, newer) // an attempt that comes late
	r.done(erase(11), 409, newer)
	is(`{"id":"42","n":2}`)
	r.done(erase(20), 200, "")
	r.done(erase(20), 404, gone)
	r.done(row(19, 4), 409, newer) // within index.gc_deletes
	is("")
	r.done(row(21, 5), 201, "")
	is(`{"id":"42","n":5}`)
	r.done(change{at: 1<<51 - 1, id: "last", row: ""}, 201, "") // of all versions
	r.done(change{at: 30, table: "products", id: "1", row: ""}, 201, "")
	r.must("HEAD", "/"+r.index+"-products", "")
}

// Attempts of one entity at the same time, each twice, in any order.
func TestRealNewestDocumentStays(t *testing.T) {
	r := newReal(t, elasticsearch.URL(t), "")
	r.must("PUT", "/"+r.index, "")
	const changes = 20
	order := rand.Perm(2 * changes)
	var all sync.WaitGroup
	for _, i := range order {
		all.Go(func() {
			at := uint64(1 + i/2)
			if _, err := r.do(change{at: at, id: "42", row: fmt.Sprintf(`,"n":%d`, at)}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if got, want := r.source("42"), fmt.Sprintf(`{"id":"42","n":%d}`, changes); got != want {
		t.Errorf("the document is %s, want %s", got, want)
	}
}

func TestRealIdsAreWhatTheyWere(t *testing.T) {
	r := newReal(t, elasticsearch.URL(t), "")
	ids := []string{
		"..", ".", "a/b", "../_all", "a?b=c#d&e", "%2e%2e", "%", "a b+c", "_search", "*", "a,b", "é😀", "\r\nX: y", "\x00", `"\`, "-1",
		strings.Repeat("x", 512),
	}
	for i, id := range ids {
		r.done(change{at: uint64(i + 1), id: id, row: ""}, 201, "")
		want, _ := json.Marshal(map[string]string{"id": id})
		if got := r.source(id); got != string(want) {
			t.Errorf("document %q is %s", id, got)
		}
	}
}

func TestRealRefusals(t *testing.T) {
	r := newReal(t, elasticsearch.URL(t), "")
	settings := func(body string) { t.Helper(); r.must("PUT", "/"+r.index+"/_settings", body) }
	r.must("PUT", "/"+r.index, `{"mappings":{"dynamic":"strict","properties":{"id":{"type":"keyword"},"total":{"type":"long"},"word":{"type":"keyword"}}}}`)
	r.fails(change{at: 1, id: "1", row: `,"total":"hidden"`}, true, "status 400: document_parsing_exception")
	r.fails(change{at: 1, id: "1", row: `,"hidden":1`}, true, "status 400: strict_dynamic_mapping_exception")
	r.fails(change{at: 1, id: "1", row: `,"word":"` + strings.Repeat("hidden", 6000) + `"`}, true, "status 400: document_parsing_exception")
	fine := change{at: 2, id: "1", row: `,"total":1`}

	settings(`{"index.blocks.read_only_allow_delete":true}`) // as when the disk is full
	r.fails(fine, false, "status 429: cluster_block_exception")
	settings(`{"index.blocks.read_only_allow_delete":null}`)
	r.done(fine, 201, "")
	settings(`{"index.blocks.write":true}`)
	r.fails(change{at: 3, id: "1", row: `,"total":2`}, false, "status 403: cluster_block_exception")
	settings(`{"index.blocks.write":null}`)
	r.done(change{at: 3, id: "1", row: `,"total":2`}, 200, "")
	if got := r.source("1"); got != `{"id":"1","total":2}` {
		t.Errorf("the document is %s", got)
	}

	r.must("POST", "/"+r.index+"/_close", "")
	r.fails(change{at: 4, id: "1", row: `,"total":3`}, true, "status 400: index_closed_exception")
}

// One server with a login, a bound of 100 kB, and no index that is made by itself.
func TestRealServerThatIsStrict(t *testing.T) {
	url := elasticsearch.Start(t, "--password", "hunter2hunter2", "--set", "http.max_content_length=100kb", "--set", "action.auto_create_index=false").URL
	login := func(password string) string {
		return "Basic " + base64.StdEncoding.EncodeToString([]byte("tester:"+password))
	}
	t.Setenv("ELASTICSEARCH_AUTHORIZATION", login("hidden"))
	r := newReal(t, url, "        headers: {Authorization: env:ELASTICSEARCH_AUTHORIZATION}\n")
	r.url = strings.Replace(url, "//", "//tester:hunter2hunter2@", 1)
	row := change{at: 1, id: "1", row: ""}
	r.fails(row, false, "status 401: security_exception")
	t.Setenv("ELASTICSEARCH_AUTHORIZATION", login("hunter2hunter2")) // mended where it is kept
	r.fails(row, false, "status 404: index_not_found_exception")
	r.done(change{at: 1, op: events.OpDelete, id: "1"}, 404, "it was not there")
	r.must("PUT", "/"+r.index, "")
	r.done(row, 201, "")
	r.fails(change{at: 2, id: "1", row: `,"text":"` + strings.Repeat("x", 200_000) + `"`}, true, "status 413")
}
