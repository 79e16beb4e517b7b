package observers

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"

	"github.com/goccy/go-yaml/ast"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/observers/expr"
)

var searchKeys = []string{"url", "index", "id", "document", "headers"}

const maxDocumentID = 512 // bytes, of Elasticsearch

// indexName is what Elasticsearch takes, without the names that mean several indices, or its own.
var indexName = regexp.MustCompile(`^[a-z0-9][a-z0-9_.-]{0,254}$`)

// searchSpec is the canonical form of what only documents have.
type searchSpec struct {
	URL      string            `json:"url"`
	Index    string            `json:"index"`
	ID       string            `json:"id"`
	Document string            `json:"document"`
	Headers  map[string]string `json:"headers,omitempty"`
}

// searchTemplate renders a PUT of a document, or a DELETE where it is null. Its version is the event's place among all
// events, so that what comes late overwrites nothing that is newer.
type searchTemplate struct {
	base      string // without a slash at its end
	endpoint  string
	index, id *expr.Text
	document  *expr.JSON
	headers   []headerTemplate
}

func (l *loader) search(fields map[string]field, n ast.Node) (template, any) {
	const what = "a document"
	link := l.required(fields["url"], n, what, "url")
	t := &searchTemplate{}
	address, err := l.env.CompileURL(link.value)
	l.failAt("url", link, err)
	if l.err == nil {
		t.endpoint = address.Endpoint()
		t.base = l.searchBase(link)
	}
	spec := &searchSpec{URL: link.value}
	t.index, spec.Index = l.searchText(fields["index"], n, "index")
	t.id, spec.ID = l.searchText(fields["id"], n, "id")
	if literal, ok := literalOf(t.index); ok && l.err == nil && !indexName.MatchString(literal) {
		l.fail(l.start(fields["index"].value), "write a-z 0-9 _ - . and begin with a letter or a digit", "index %q can't be one", literal)
	}
	if !fields["document"].given() {
		l.missing(n, what, "document", "write an expression; null deletes the document")
	}
	t.document, spec.Document = l.body(fields["document"])
	t.headers, spec.Headers = l.headers(fields["headers"])
	return t, spec
}

// searchBase reads where Elasticsearch is: a literal URL, of whose path the documents' is made.
func (l *loader) searchBase(link scalar) string {
	u, err := url.Parse(link.value)
	if err != nil || u.RawQuery != "" || u.Fragment != "" || containsExpression(link.value) {
		l.fail(link.start, "write https://host:9200; index and id make the path", "url is where Elasticsearch is, without ${} and ?")
		return ""
	}
	base := link.value
	for len(base) > 0 && base[len(base)-1] == '/' {
		base = base[:len(base)-1]
	}
	return base
}

func containsExpression(text string) bool {
	for i := 0; i+1 < len(text); i++ {
		if text[i] == '$' && text[i+1] == '{' {
			return true
		}
	}
	return false
}

func literalOf(text *expr.Text) (string, bool) {
	if text == nil {
		return "", false
	}
	return text.Literal()
}

func (l *loader) searchText(f field, n ast.Node, key string) (*expr.Text, string) {
	source := l.required(f, n, "a document", key)
	text, err := l.env.CompileText(source.value, expr.Plain)
	l.failAt(key, source, err)
	return text, source.value
}

func (t *searchTemplate) render(v *View) (actions.Request, error) {
	request := actions.Request{Endpoint: t.endpoint, Method: http.MethodPut}
	index, err := t.index.Render(v.input)
	if err == nil && !indexName.MatchString(index) {
		err = fmt.Errorf("%q can't be the name of an index", clip(index))
	}
	if err != nil {
		return actions.Request{}, fmt.Errorf("index: %w", err)
	}
	id, err := t.id.Render(v.input)
	if err == nil && (id == "" || len(id) > maxDocumentID) {
		err = fmt.Errorf("the id of a document has 1 to %d bytes, this has %d", maxDocumentID, len(id))
	}
	if err != nil {
		return actions.Request{}, fmt.Errorf("id: %w", err)
	}
	if request.Body, err = t.document.Append(nil, v.input); err != nil {
		return actions.Request{}, fmt.Errorf("document: %w", err)
	}
	if string(request.Body) == "null" {
		request.Method, request.Body = http.MethodDelete, nil
	} else if request.Body[0] != '{' {
		return actions.Request{}, fmt.Errorf("document: it is an object, or null to delete it, not %.20s", request.Body)
	}
	request.URL = t.base + "/" + index + "/_doc/" + escapeSegment(id) + "?version=" + strconv.FormatUint(version(v), 10) + "&version_type=external_gte"
	for _, h := range t.headers {
		value := h.secret
		if h.text != nil {
			if value, err = h.text.Render(v.input); err != nil {
				return actions.Request{}, fmt.Errorf("header %s: %w", h.name, err)
			}
		}
		request.Header = append(request.Header, actions.Header{Name: h.name, Value: value})
	}
	return request, nil
}

func clip(text string) string {
	const most = 60
	if len(text) > most {
		return text[:most] + "…"
	}
	return text
}

// escapeSegment keeps an id in its place of a path, where . and .. would be steps.
func escapeSegment(id string) string {
	const digits = "0123456789ABCDEF"
	dst := make([]byte, 0, len(id)+8)
	for i := range len(id) {
		c := id[i]
		plain := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '~'
		if plain {
			dst = append(dst, c)
		} else {
			dst = append(dst, '%', digits[c>>4], digits[c&0xF])
		}
	}
	return string(dst)
}

// version places an event among those of its source in the 63 bits that Elasticsearch has. Records of WAL begin at multiples
// of 8, so a commit's LSN takes 51 bits up to 16 PiB of WAL, and 12 are left for the place in its transaction. Changes of
// one transaction behind the 4,095th share a version: there the last one that comes wins.
func version(v *View) uint64 {
	const places = 12
	commit, index := v.sequence.Commit, uint64(v.sequence.Index)
	if !v.address.FromApplication() {
		commit >>= 3
	}
	return (commit<<places | min(index, 1<<places-1)) & (1<<63 - 1)
}

func (t *searchTemplate) expressions() []asking {
	list := []asking{t.index, t.id, t.document}
	for _, h := range t.headers {
		if h.text != nil {
			list = append(list, h.text)
		}
	}
	return list
}
