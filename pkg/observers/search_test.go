package observers_test

import (
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/observers"
)

// 0x16B37488 / 8 * 4096 + 3
const atVersion = "?version=195000078339&version_type=external_gte"

func TestSearch(t *testing.T) {
	testRendering(t, map[string]rendering{
		"a document": {
			`type: search, url: "https://es.example:9200/base/", index: "orders-${op}", id: "${after.id}/${after.name}", document: '{"total": after.total}', headers: {Authorization: env:ES}`,
			actions.Request{
				Type: "search", Endpoint: "https://es.example:9200", Method: "PUT", Body: []byte(`{"total":19.5}`),
				URL:    "https://es.example:9200/base/orders-insert/_doc/42%2Fa%22b%0D%0AX%3A%20y" + atVersion,
				Header: []actions.Header{{Name: "Authorization", Value: "\x01env:ES\x01"}},
			}, "",
		},
		"null deletes": {
			`type: search, url: "http://es.example", index: orders, id: "${after.id}", document: before`,
			actions.Request{Type: "search", Endpoint: "http://es.example:80", Method: "DELETE", URL: "http://es.example/orders/_doc/42" + atVersion}, "",
		},
		"a step up is an id":          {`type: search, url: "http://es.example", index: orders, id: "..", document: after.id == 0 ? after : null`, actions.Request{Type: "search", Endpoint: "http://es.example:80", Method: "DELETE", URL: "http://es.example/orders/_doc/%2E%2E" + atVersion}, ""},
		"an index of a hostile value": {`type: search, url: "http://es.example", index: "${after.region}", id: "1", document: after`, actions.Request{}, `index: "eu.>" can't be the name of an index`},
		"an empty id":                 {`type: search, url: "http://es.example", index: orders, id: "${after.id == 1}${\"\"}", document: after.id`, actions.Request{}, "document: it is an object"},
		"a missing field":             {`type: search, url: "http://es.example", index: orders, id: "1", document: after.missing`, actions.Request{}, "document: no such key"},
	})
}

// FuzzSearch asks the parser of URLs whether an id stays one segment of its own, whatever it holds.
func FuzzSearch(f *testing.F) {
	for _, seed := range []string{"42", "..", "a/b", "a?b=c#d", "%2e%2e", "é😀", "_all,*", "\x00\r\n"} {
		f.Add(seed)
	}
	set := parse(f, `observers: [{name: o, actions: [{name: a, type: search, url: "http://es.example", index: orders, id: "${after.id}", document: after}]}]`)
	f.Fuzz(func(t *testing.T, id string) {
		if id == "" || len(id) > 512 || !utf8.ValidString(id) {
			t.Skip()
		}
		row := append(append([]byte(`{"id":`), events.AppendString(nil, id)...), '}')
		request, err := set.Observers()[0].Actions[0].Render(view(t, events.OpInsert, "", string(row)))
		if err != nil {
			t.Fatal(err)
		}
		u, err := url.Parse(request.URL)
		if err != nil {
			t.Fatal(err)
		}
		segment, found := strings.CutPrefix(u.EscapedPath(), "/orders/_doc/")
		if got, err := url.PathUnescape(segment); !found || strings.Contains(segment, "/") || err != nil || got != id || u.RawQuery != strings.TrimPrefix(atVersion, "?") {
			t.Errorf("%q became %s", id, request.URL)
		}
	})
}

func TestVersionsAscendWithSequences(t *testing.T) {
	set := parse(t, `observers: [{name: o, actions: [{name: a, type: search, url: "http://es.example", index: orders, id: "1", document: after}]}]`)
	last := ""
	for _, at := range []events.Sequence{{Commit: 8, Index: 1}, {Commit: 8, Index: 4095}, {Commit: 16, Index: 1}, {Commit: 1 << 40, Index: 2}, {Commit: 1<<40 + 8, Index: 1}, {Commit: 1 << 53, Index: 1}} {
		c := events.Change{
			ID: events.AppendChangeID(nil, "shop", 1, events.LSN(at.Commit), 7, at.Index), Source: "shop", Op: events.OpInsert, Schema: "public", Table: "orders",
			PartitionKey: []byte("k"), Sequence: at, Key: []byte(`{"id":1}`), After: []byte(`{"id":1}`),
		}
		raw := events.AppendChange(nil, &c)
		e, err := events.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		request, err := set.Observers()[0].Actions[0].Render(observers.NewView(events.Address{Source: "shop", Schema: "public", Table: "orders", Op: events.OpInsert}, raw, e))
		if err != nil {
			t.Fatal(err)
		}
		_, query, _ := strings.Cut(request.URL, "version=")
		version, _, _ := strings.Cut(query, "&")
		if len(version) < len(last) || len(version) == len(last) && version <= last {
			t.Errorf("%s has the version %s, behind %s", at, version, last)
		}
		last = version
	}
}
