package observers

import (
	"fmt"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/actions/secret"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/observers/expr"
)

var webhookKeys = []string{"url", "method", "headers", "secret", "secrets", "body", "content_type", "permanent"}

const secretHint = "write env:NAME or file:PATH, and keep the secret there"

// webhookSpec is the canonical form of what only webhooks have.
type webhookSpec struct {
	URL         string            `json:"url"`
	Method      string            `json:"method"`
	ContentType string            `json:"content_type"`
	Headers     map[string]string `json:"headers,omitempty"`
	Secrets     []string          `json:"secrets,omitempty"`
	Body        string            `json:"body,omitempty"`
	Permanent   []int             `json:"permanent"`
}

type webhookTemplate struct {
	url     *expr.URL
	headers []headerTemplate
	body    *expr.JSON // nil for the event itself
	spec    *webhookSpec
}

// headerTemplate is a header whose value is a text, or marked as the secret that stands for it.
type headerTemplate struct {
	name   string
	text   *expr.Text // nil for a secret
	secret string
}

func (l *loader) webhook(fields map[string]field, n ast.Node) (template, any) {
	link := l.required(fields["url"], n, "a webhook", "url")
	spec := &webhookSpec{
		URL:       link.value,
		Method:    l.choice(fields["method"], http.MethodPost, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete),
		Secrets:   l.secrets(fields["secret"], fields["secrets"]),
		Permanent: l.permanent(fields["permanent"]),
	}
	t := &webhookTemplate{spec: spec}
	spec.ContentType = events.ContentType
	if t.body, spec.Body = l.body(fields["body"]); t.body != nil {
		spec.ContentType = "application/json"
	}
	if f := fields["content_type"]; f.given() {
		spec.ContentType = l.contentType(f)
	}
	var err error
	t.url, err = l.env.CompileURL(link.value)
	l.failAt("url", link, err)
	t.headers, spec.Headers = l.headers(fields["headers"])
	return t, spec
}

func (t *webhookTemplate) render(v *View) (actions.Request, error) {
	request := actions.Request{
		Endpoint:  t.url.Endpoint(),
		Method:    t.spec.Method,
		Header:    make([]actions.Header, 0, len(t.headers)+1),
		Body:      v.raw,
		Secrets:   t.spec.Secrets,
		Permanent: t.spec.Permanent,
	}
	var err error
	if request.URL, err = t.url.Render(v.input); err != nil {
		return actions.Request{}, fmt.Errorf("url: %w", err)
	}
	request.Header = append(request.Header, actions.Header{Name: "Content-Type", Value: t.spec.ContentType})
	for _, h := range t.headers {
		value := h.secret
		if h.text != nil {
			if value, err = h.text.Render(v.input); err != nil {
				return actions.Request{}, fmt.Errorf("header %s: %w", h.name, err)
			}
		}
		request.Header = append(request.Header, actions.Header{Name: h.name, Value: value})
	}
	if t.body != nil {
		if request.Body, err = t.body.Append(nil, v.input); err != nil {
			return actions.Request{}, fmt.Errorf("body: %w", err)
		}
	}
	return request, nil
}

// secrets reads the references of those that sign; two while one is being replaced.
func (l *loader) secrets(one, many field) []string {
	if one.given() && many.given() {
		l.fail(many.at, "name all of them under secrets", "a webhook has secret or secrets, not both")
		return nil
	}
	var references []string
	if one.given() {
		references = append(references, l.reference(one.name, one.value))
	}
	for _, n := range l.list(many) {
		references = append(references, l.reference(many.name, n))
	}
	return references
}

// reference reads env:NAME or file:PATH. Anything else may be the secret itself, and is not shown.
func (l *loader) reference(name string, n ast.Node) string {
	s := l.text(name, n)
	if l.err == nil && !validReference(s.value) {
		l.fail(s.start, secretHint, "%s is not the name of a secret", name)
		l.conceal(s)
	}
	return s.value
}

func validReference(text string) bool {
	name, ok := strings.CutPrefix(text, "env:")
	if !ok {
		return secret.IsReference(text)
	}
	for i := range len(name) {
		c := name[i]
		if c != '_' && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}

func (l *loader) permanent(f field) []int {
	if !f.given() {
		return []int{http.StatusBadRequest, http.StatusGone, http.StatusUnprocessableEntity}
	}
	statuses := []int{}
	for _, n := range l.list(f) {
		status := l.integer("permanent", n, 0)
		if l.err == nil && (status < 300 || status > 599) {
			l.fail(l.start(n), "", "permanent holds statuses from 300 to 599, got %d", status)
		}
		statuses = append(statuses, status)
	}
	slices.Sort(statuses)
	return slices.Compact(statuses)
}

func (l *loader) contentType(f field) string {
	s := l.text(f.name, f.value)
	if _, _, err := mime.ParseMediaType(s.value); l.err == nil && (err != nil || !strings.Contains(s.value, "/")) {
		l.fail(s.start, "write a media type, such as application/json", "content_type %q is none", s.value)
	}
	return s.value
}

// ownHeaders are set by what sends the request.
var ownHeaders = map[string]string{
	"Content-Type":        "write content_type instead",
	"Content-Length":      "",
	"Transfer-Encoding":   "",
	"Connection":          "",
	"Keep-Alive":          "",
	"Te":                  "",
	"Trailer":             "",
	"Upgrade":             "",
	"Host":                "the host is that of url",
	"User-Agent":          "",
	"Idempotency-Key":     "it is the effect's key",
	"X-Idempotency-Key":   "Idempotency-Key is the effect's key",
	"Tributary-Sequence":  "",
	"Webhook-Id":          "",
	"Webhook-Timestamp":   "",
	"Webhook-Signature":   "name the secret under secret",
	"Traceparent":         "",
	"Tracestate":          "",
	"Proxy-Authorization": "",
}

// headers reads the headers of a webhook, sorted by name.
func (l *loader) headers(f field) ([]headerTemplate, map[string]string) {
	if !f.given() {
		return nil, nil
	}
	fields := l.mapping(f.value, "header ", "headers")
	spec := make(map[string]string, len(fields))
	list := make([]headerTemplate, 0, len(fields))
	seen := make(map[string]bool, len(fields))
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		header := fields[name]
		canonical := http.CanonicalHeaderKey(name)
		hint, own := ownHeaders[canonical]
		switch {
		case !isToken(name):
			l.fail(header.at, "", "%q is no name of a header", name)
		case own:
			l.fail(header.at, hint, "header %s is not yours to set", name)
		case seen[canonical]:
			l.fail(header.at, "keep one of them", "header %s is given twice", name)
		}
		seen[canonical] = true
		value := l.text(header.name, header.value)
		spec[name] = value.value
		list = append(list, l.header(header.name, name, value))
	}
	return list, spec
}

func (l *loader) header(where, name string, value scalar) headerTemplate {
	if strings.HasPrefix(value.value, "env:") || strings.HasPrefix(value.value, "file:") {
		if !validReference(value.value) || strings.Contains(value.value, "${") {
			l.fail(value.start, secretHint, "%s is not the name of a secret", where)
			l.conceal(value)
		}
		return headerTemplate{name: name, secret: secret.Mark(value.value)}
	}
	text, err := l.env.CompileText(value.value, expr.Header)
	l.failAt(where, value, err)
	return headerTemplate{name: name, text: text}
}

// isToken tells whether RFC 9110 lets name stand as a header's.
func isToken(name string) bool {
	for i := range len(name) {
		c := name[i]
		if c <= ' ' || c >= 0x7F || strings.IndexByte("\"(),/:;<=>?@[\\]{}", c) >= 0 {
			return false
		}
	}
	return name != ""
}
