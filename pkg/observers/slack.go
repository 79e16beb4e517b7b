package observers

import (
	"fmt"

	"github.com/goccy/go-yaml/ast"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/observers/expr"
)

var slackKeys = []string{"url", "text", "blocks"}

// slackSpec is the canonical form of what only messages to Slack have.
type slackSpec struct {
	URL    string `json:"url"`
	Text   string `json:"text"`
	Blocks string `json:"blocks,omitempty"`
}

// slackTemplate renders a message: the reference to the webhook's URL in the place of the URL.
type slackTemplate struct {
	url    string
	text   *expr.Text
	blocks *expr.JSON // nil where there are none
}

func (l *loader) slack(fields map[string]field, n ast.Node) (template, any) {
	t := &slackTemplate{url: l.secretURL(fields["url"], n, "a message to Slack")}
	text := l.required(fields["text"], n, "a message to Slack", "text")
	var err error
	t.text, err = l.env.CompileText(text.value, expr.Mrkdwn)
	l.failAt("text", text, err)
	spec := &slackSpec{URL: t.url, Text: text.value}
	t.blocks, spec.Blocks = l.body(fields["blocks"])
	return t, spec
}

// secretURL reads the reference to a URL that holds a credential.
func (l *loader) secretURL(f field, n ast.Node, what string) string {
	if !f.given() {
		l.missing(n, what, "url", secretHint)
		return ""
	}
	return l.reference(f.name, f.value)
}

// endpointOf stands for an endpoint whose address is secret.
func endpointOf(kind, reference string) string { return kind + ":" + reference }

func (t *slackTemplate) render(v *View) (actions.Request, error) {
	text, err := t.text.Render(v.input)
	if err != nil {
		return actions.Request{}, fmt.Errorf("text: %w", err)
	}
	body := events.AppendString([]byte(`{"text":`), text)
	if t.blocks != nil {
		if body, err = t.blocks.Append(append(body, `,"blocks":`...), v.input); err != nil {
			return actions.Request{}, fmt.Errorf("blocks: %w", err)
		}
	}
	return actions.Request{Endpoint: endpointOf(typeSlack, t.url), URL: t.url, Body: append(body, '}')}, nil
}

func (t *slackTemplate) expressions() []asking {
	if t.blocks == nil {
		return []asking{t.text}
	}
	return []asking{t.text, t.blocks}
}
