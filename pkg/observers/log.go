package observers

import (
	"fmt"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/observers/expr"
)

var logKeys = []string{"message", "level"}

// logSpec is the canonical form of what only logs have.
type logSpec struct {
	Message string `json:"message"`
	Level   string `json:"level"`
}

// logTemplate renders a line of the log: the message as a JSON string in the body, the level, as slog writes it, in
// the place of the method.
type logTemplate struct {
	message *expr.Text
	level   string
}

func (l *loader) log(fields map[string]field, n ast.Node) (template, any) {
	message := l.required(fields["message"], n, "a log", "message")
	text, err := l.env.CompileText(message.value, expr.Plain)
	l.failAt("message", message, err)
	level := l.choice(fields["level"], "info", "debug", "info", "warn", "error")
	return &logTemplate{text, strings.ToUpper(level)}, &logSpec{message.value, level}
}

func (t *logTemplate) render(v *View) (actions.Request, error) {
	text, err := t.message.Render(v.input)
	if err != nil {
		return actions.Request{}, fmt.Errorf("message: %w", err)
	}
	return actions.Request{Method: t.level, Body: events.AppendString(nil, text)}, nil
}
