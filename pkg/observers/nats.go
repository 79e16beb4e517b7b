package observers

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/observers/expr"
)

var natsKeys = []string{"subject", "headers", "body", "content_type"}

// endpointNATS is one for all subjects: they share the connection.
const endpointNATS = "nats"

// natsSpec is the canonical form of what only messages have.
type natsSpec struct {
	Subject     string            `json:"subject"`
	ContentType string            `json:"content_type"`
	Headers     map[string]string `json:"headers,omitempty"`
	Body        string            `json:"body,omitempty"`
}

// natsTemplate renders a message: the subject in the place of the URL.
type natsTemplate struct {
	subject     *expr.Text
	headers     []headerTemplate
	body        *expr.JSON // nil for the event itself
	contentType string
}

func (l *loader) nats(fields map[string]field, n ast.Node) (template, any) {
	subject := l.required(fields["subject"], n, "a message", "subject")
	t := &natsTemplate{contentType: events.ContentType}
	spec := &natsSpec{Subject: subject.value}
	t.body, spec.Body = l.body(fields["body"])
	if t.body != nil {
		t.contentType = "application/json"
	}
	if f := fields["content_type"]; f.given() {
		t.contentType = l.contentType(f)
	}
	spec.ContentType = t.contentType
	var err error
	t.subject, err = l.env.CompileText(subject.value, expr.Subject)
	l.failAt("subject", subject, err)
	if l.err == nil {
		l.checkSubject(subject, t.subject)
	}
	t.headers, spec.Headers = l.natsHeaders(fields["headers"])
	return t, spec
}

// checkSubject judges what is known of a subject before an event fills it.
func (l *loader) checkSubject(at scalar, subject *expr.Text) {
	const stand = "x" // a value is one token, which takes nothing from the tokens around it
	text := subject.Fill(stand)
	if err := events.CheckTarget(text); err != nil {
		l.fail(at.start, "publish.<source>.<entity>.<type> leads back into Tributary, every other subject out of it", "subject: %v", err)
	}
}

// body reads the expression of a body; nil where the event itself is sent.
func (l *loader) body(f field) (*expr.JSON, string) {
	if !f.given() {
		return nil, ""
	}
	source := l.expression(f)
	body, err := l.env.CompileJSON(source.value)
	l.failAt(f.name, source, err)
	return body, source.value
}

// natsHeaders reads the headers of a message. Streams keep messages, so no secret may stand in one.
func (l *loader) natsHeaders(f field) ([]headerTemplate, map[string]string) {
	if !f.given() {
		return nil, nil
	}
	fields := l.mapping(f.value, "header ", "headers")
	spec := make(map[string]string, len(fields))
	list := make([]headerTemplate, 0, len(fields))
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		header := fields[name]
		canonical := http.CanonicalHeaderKey(name)
		switch {
		case !isToken(name):
			l.fail(header.at, "", "%q is no name of a header", name)
		case strings.HasPrefix(canonical, "Nats-"), canonical == "Tributary-Sequence":
			l.fail(header.at, "", "header %s is not yours to set", name)
		case canonical == "Content-Type":
			l.fail(header.at, "write content_type instead", "header %s is not yours to set", name)
		}
		value := l.text(header.name, header.value)
		if validReference(value.value) {
			l.fail(value.start, "a message is kept in streams, where no secret may lie", "%s can't be a secret", header.name)
		}
		text, err := l.env.CompileText(value.value, expr.Header)
		l.failAt(header.name, value, err)
		spec[name] = value.value
		list = append(list, headerTemplate{name: name, text: text})
	}
	return list, spec
}

func (t *natsTemplate) render(v *View) (actions.Request, error) {
	subject, err := t.subject.Render(v.input)
	if err == nil {
		err = events.CheckTarget(subject)
	}
	if err != nil {
		return actions.Request{}, fmt.Errorf("subject: %w", err)
	}
	request := actions.Request{
		Endpoint: endpointNATS, URL: subject, Body: v.raw,
		Header: []actions.Header{{Name: "Content-Type", Value: t.contentType}},
	}
	for _, h := range t.headers {
		value, err := h.text.Render(v.input)
		if err != nil {
			return actions.Request{}, fmt.Errorf("header %s: %w", h.name, err)
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

func (t *natsTemplate) expressions() []asking {
	list := []asking{t.subject}
	for _, h := range t.headers {
		list = append(list, h.text)
	}
	if t.body != nil {
		list = append(list, t.body)
	}
	return list
}
