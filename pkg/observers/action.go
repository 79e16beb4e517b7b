package observers

import (
	"slices"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/tributary-dev/tributary/pkg/actions"
)

// The action types.
const (
	typeLog     = "log"
	typeWebhook = "webhook"
)

const defaultTimeout = 10 * time.Second

// Action is one effect of an observer.
type Action struct {
	Name    string // unique within its observer
	Type    string // log or webhook
	Async   bool   // straight to JOBS, without order
	Timeout time.Duration

	template template
}

// template renders the request of one type of action, but for its type and timeout.
type template interface {
	render(v *View) (actions.Request, error)
	expressions() []asking
}

// Render makes the request of the action for one event: the same bytes for the same event. It errors where an
// expression fails for this event, or a value can't stand where it would; no attempt can mend that. The request shares
// memory with the action and the view: it is to be read, not changed.
func (a *Action) Render(v *View) (actions.Request, error) {
	request, err := a.template.render(v)
	if err != nil {
		return actions.Request{}, err
	}
	request.Type, request.Timeout = a.Type, a.Timeout
	return request, nil
}

// commonKeys are the keys of every action.
var commonKeys = []string{"name", "type", "async", "timeout"}

// action reads one action.
func (l *loader) action(n ast.Node) (*Action, actionSpec) {
	kind := l.actionType(n)
	if l.err != nil {
		return nil, actionSpec{}
	}
	keys := map[string][]string{typeLog: logKeys, typeWebhook: webhookKeys}[kind]
	fields := l.mapping(n, "", "an action of type "+kind, slices.Concat(commonKeys, keys)...)
	a := &Action{
		Name:    l.name(fields["name"], n, "an action"),
		Type:    kind,
		Async:   l.boolean(fields["async"]),
		Timeout: l.duration(fields["timeout"], defaultTimeout),
	}
	spec := actionSpec{Name: a.Name, Type: a.Type, Async: a.Async, Timeout: a.Timeout.String()}
	switch kind {
	case typeLog:
		a.template, spec.logSpec = l.log(fields, n)
	case typeWebhook:
		a.template, spec.webhookSpec = l.webhook(fields, n)
	}
	return a, spec
}

// actionType reads the type first, since the other keys depend on it.
func (l *loader) actionType(n ast.Node) string {
	fields := l.mapping(n, "", "an action")
	f := fields["type"]
	if !f.given() {
		l.missing(n, "an action", "type", "known: log, webhook")
		return ""
	}
	s := l.text("type", f.value)
	switch s.value {
	case typeLog, typeWebhook:
		return s.value
	case "slack", "email", "sql", "nats", "cache", "search":
		l.fail(s.start, "", "type %q comes with a later release; known: log, webhook", s.value)
	default:
		l.fail(s.start, "", "type %q is unknown; known: log, webhook", s.value)
	}
	return ""
}
