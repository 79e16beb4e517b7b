package observers

import (
	"errors"
	"fmt"
	"net/mail"

	"github.com/goccy/go-yaml/ast"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/observers/expr"
)

var emailKeys = []string{"url", "from", "to", "subject", "text"}

// emailSpec is the canonical form of what only mails have.
type emailSpec struct {
	URL     string   `json:"url"`
	From    string   `json:"from"`
	To      []string `json:"to"`
	Subject string   `json:"subject"`
	Text    string   `json:"text"`
}

// emailTemplate renders a mail: {"from","to","subject","text"}, and the reference to the server's URL in the place of the
// URL.
type emailTemplate struct {
	url     string
	from    string
	to      []*expr.Text
	subject *expr.Text
	text    *expr.Text
}

func (l *loader) email(fields map[string]field, n ast.Node) (template, any) {
	const what = "a mail"
	t := &emailTemplate{url: l.secretURL(fields["url"], n, what)}
	from := l.required(fields["from"], n, what, "from")
	if _, err := mail.ParseAddress(from.value); l.err == nil && err != nil {
		l.fail(from.start, "write one address, such as Shop <shop@example.com>", "from is no address of mail")
	}
	t.from = from.value
	spec := &emailSpec{URL: t.url, From: t.from}
	t.to, spec.To = l.receivers(fields["to"], n)
	t.subject, spec.Subject = l.mailText(fields["subject"], n, "subject", expr.Header)
	t.text, spec.Text = l.mailText(fields["text"], n, "text", expr.Plain)
	return t, spec
}

// receivers reads one text or a list of texts, each of which becomes one address.
func (l *loader) receivers(f field, n ast.Node) (texts []*expr.Text, sources []string) {
	if !f.given() {
		l.missing(n, "a mail", "to", "write an address, or a list of them")
		return nil, nil
	}
	nodes := []ast.Node{f.value}
	if _, many := f.value.(*ast.SequenceNode); many {
		nodes = l.list(f)
	}
	if len(nodes) == 0 {
		l.fail(l.start(f.value), "", "to holds no receiver")
	}
	for _, n := range nodes {
		source := l.text(f.name, n)
		text, err := l.env.CompileText(source.value, expr.Header)
		l.failAt(f.name, source, err)
		texts, sources = append(texts, text), append(sources, source.value)
	}
	return texts, sources
}

func (l *loader) mailText(f field, n ast.Node, key string, kind expr.Kind) (*expr.Text, string) {
	source := l.required(f, n, "a mail", key)
	text, err := l.env.CompileText(source.value, kind)
	l.failAt(key, source, err)
	return text, source.value
}

func (t *emailTemplate) render(v *View) (actions.Request, error) {
	body := events.AppendString([]byte(`{"from":`), t.from)
	body = append(body, `,"to":[`...)
	for i, to := range t.to {
		address, err := to.Render(v.input)
		if err == nil {
			if _, none := mail.ParseAddress(address); none != nil {
				err = errors.New("what was rendered is not one address of mail")
			}
		}
		if err != nil {
			return actions.Request{}, fmt.Errorf("to: %w", err)
		}
		if i > 0 {
			body = append(body, ',')
		}
		body = events.AppendString(body, address)
	}
	subject, err := t.subject.Render(v.input)
	if err != nil {
		return actions.Request{}, fmt.Errorf("subject: %w", err)
	}
	text, err := t.text.Render(v.input)
	if err != nil {
		return actions.Request{}, fmt.Errorf("text: %w", err)
	}
	body = events.AppendString(append(body, `],"subject":`...), subject)
	body = events.AppendString(append(body, `,"text":`...), text)
	return actions.Request{Endpoint: endpointOf(typeEmail, t.url), URL: t.url, Body: append(body, '}')}, nil
}

func (t *emailTemplate) expressions() []asking {
	list := []asking{t.subject, t.text}
	for _, to := range t.to {
		list = append(list, to)
	}
	return list
}
