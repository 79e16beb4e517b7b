package observers

import (
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/events"
)

// The action types.
const (
	typeCache   = "cache"
	typeEmail   = "email"
	typeLog     = "log"
	typeNATS    = "nats"
	typeSearch  = "search"
	typeSlack   = "slack"
	typeSQL     = "sql"
	typeWebhook = "webhook"
)

const defaultTimeout = 10 * time.Second

// Action is one effect of an observer.
type Action struct {
	Name    string // unique within its observer
	Type    string // one of kinds
	Async   bool   // straight to JOBS, without order
	Timeout time.Duration
	Circuit string // shared with all actions that name it; its endpoint's where it is empty

	template template
	cached   *cached   // nil where results are not kept
	observer *Observer // where it has lookups
	pending  []byte    // the body of the pending request; nil where there are no lookups
}

// template renders the request of one type of action, but for its type and timeout.
type template interface {
	render(v *View) (actions.Request, error)
	expressions() []asking
}

// Render makes the request of the action for one event: the same bytes for the same event. It errors where an
// expression fails for this event, or a value can't stand where it would; no attempt can mend that. The request shares
// memory with the action and the view: it is to be read, not changed. Where the observer has lookups, and the view does not
// hold their answers, it is a pending one.
func (a *Action) Render(v *View) (actions.Request, error) {
	if a.observer != nil && !v.answered {
		return a.pendingRequest(), nil
	}
	request, err := a.template.render(v)
	if err != nil {
		return actions.Request{}, err
	}
	request.Type, request.Timeout, request.Circuit = a.Type, a.Timeout, a.Circuit
	if request.Cache, err = a.cached.render(v.input); err != nil {
		return actions.Request{}, err
	}
	return request, nil
}

// commonKeys are the keys of every action.
var commonKeys = []string{"name", "type", "async", "timeout", "circuit", "cache"}

// kind is one type of action: its own keys, and what reads them into a template and the canonical form of the keys.
type kind struct {
	name string
	keys []string
	read func(l *loader, fields map[string]field, n ast.Node) (template, any)
}

// kinds are the types that are known, sorted by name.
func kinds() []kind {
	return []kind{
		{typeCache, cacheKeys, (*loader).cache},
		{typeEmail, emailKeys, (*loader).email},
		{typeLog, logKeys, (*loader).log},
		{typeNATS, natsKeys, (*loader).nats},
		{typeSearch, searchKeys, (*loader).search},
		{typeSlack, slackKeys, (*loader).slack},
		{typeSQL, sqlKeys, (*loader).sql},
		{typeWebhook, webhookKeys, (*loader).webhook},
	}
}

// action reads one action.
func (l *loader) action(n ast.Node) (*Action, actionSpec) {
	kind := l.actionType(n)
	if l.err != nil {
		return nil, actionSpec{}
	}
	fields := l.mapping(n, "", "an action of type "+kind.name, slices.Concat(commonKeys, kind.keys)...)
	a := &Action{
		Name:    l.name(fields["name"], n, "an action"),
		Type:    kind.name,
		Async:   l.boolean(fields["async"]),
		Timeout: l.duration(fields["timeout"], defaultTimeout),
		Circuit: l.circuit(fields["circuit"]),
	}
	spec := actionSpec{Name: a.Name, Type: a.Type, Async: a.Async, Timeout: a.Timeout.String(), Circuit: a.Circuit}
	a.cached, spec.Cache = l.cached(fields["cache"], kind.name)
	a.template, spec.own = kind.read(l, fields, n)
	return a, spec
}

// circuit reads the name of a circuit that actions share.
func (l *loader) circuit(f field) string {
	if !f.given() {
		return ""
	}
	s := l.text(f.name, f.value)
	if l.err == nil && !events.ValidName(s.value) {
		l.fail(s.start, "leave the key out for a circuit of the endpoint's own", "the name of a circuit is [a-z][a-z0-9-]{0,62}, got %q", s.value)
	}
	return s.value
}

// actionType reads the type first, since the other keys depend on it.
func (l *loader) actionType(n ast.Node) kind {
	fields := l.mapping(n, "", "an action")
	all := kinds()
	names := make([]string, 0, len(all))
	for _, k := range all {
		names = append(names, k.name)
	}
	known := "known: " + strings.Join(names, ", ")
	f := fields["type"]
	if !f.given() {
		l.missing(n, "an action", "type", known)
		return kind{}
	}
	s := l.text("type", f.value)
	if at := slices.Index(names, s.value); at >= 0 {
		return all[at]
	}
	l.fail(s.start, "", "type %q is unknown; %s", s.value, known)
	return kind{}
}
