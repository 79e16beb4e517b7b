package observers

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/observers/expr"
	"github.com/tributary-dev/tributary/pkg/retry"
)

// Load reads a file, or the files *.yaml and *.yml of a folder, hidden ones left out. What is wrong in a file is an
// *Error.
func Load(path string) (*Set, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("load observers: %w", err)
	}
	files := []string{path}
	if info.IsDir() {
		if files, err = filesOf(path); err != nil {
			return nil, err
		}
	}
	var all []*Observer
	env, err := expr.NewEnv()
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("load observers: %w", err)
		}
		list, err := parse(env, file, text, all)
		if err != nil {
			return nil, err
		}
		all = append(all, list...)
	}
	return newSet(all)
}

// filesOf gives the files of a folder, sorted by name. Folders in it are not read: Kubernetes keeps the versions of a
// ConfigMap in some.
func filesOf(folder string) ([]string, error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, fmt.Errorf("load observers: %w", err)
	}
	var files []string
	for _, entry := range entries {
		extension := filepath.Ext(entry.Name())
		if !entry.IsDir() && !strings.HasPrefix(entry.Name(), ".") && (extension == ".yaml" || extension == ".yml") {
			files = append(files, filepath.Join(folder, entry.Name()))
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("load observers: folder %s holds no *.yaml: write observers: [] into one where there are none", folder)
	}
	return files, nil
}

// Parse reads one file's text; name is shown in errors. What is wrong in it is an *Error.
func Parse(name string, text []byte) (*Set, error) {
	env, err := expr.NewEnv()
	if err != nil {
		return nil, err
	}
	list, err := parse(env, name, text, nil)
	if err != nil {
		return nil, err
	}
	return newSet(list)
}

// loader reads observers from one file, and compiles them.
type loader struct {
	reader
	env *expr.Env
}

// parse reads a file whose observers have other names than those of other files.
func parse(env *expr.Env, name string, text []byte, others []*Observer) ([]*Observer, error) {
	l := &loader{reader: reader{src: newSource(name, strings.TrimPrefix(string(text), "\uFEFF"))}, env: env}
	taken := make(map[string]string, len(others))
	for _, o := range others {
		taken[o.Name] = o.at
	}
	list := l.file(taken)
	if l.err != nil {
		return nil, l.err
	}
	return list, nil
}

func (l *loader) file(taken map[string]string) []*Observer {
	body := l.document()
	if body == nil {
		return nil
	}
	fields := l.mapping(body, "", "the file", "observers")
	if !fields["observers"].given() {
		l.missing(body, "the file", "observers", "write observers: and a list; observers: [] where there are none")
		return nil
	}
	var list []*Observer
	for _, n := range l.list(fields["observers"]) {
		o := l.observer(n)
		if l.err != nil {
			return nil
		}
		if at, ok := taken[o.Name]; ok {
			l.fail(l.start(n), "names are unique over all files", "observer %q is already defined at %s", o.Name, at)
			return nil
		}
		taken[o.Name] = o.at
		list = append(list, o)
	}
	return list
}

func (l *loader) observer(n ast.Node) *Observer {
	fields := l.mapping(n, "", "an observer", "name", "match", "lookup", "when", "order", "when_dead", "retry", "on_failure", "paused", "dry_run", "actions")
	o := &Observer{
		Name:      l.name(fields["name"], n, "an observer"),
		Order:     l.order(fields["order"]),
		Retry:     l.retry(fields["retry"]),
		OnFailure: OnFailure(l.choice(fields["on_failure"], string(OnFailureDeadLetter), string(OnFailureDeadLetter), string(OnFailureAlert), string(OnFailureLog))),
		Paused:    l.boolean(fields["paused"]),
		DryRun:    l.boolean(fields["dry_run"]),
	}
	if l.err != nil {
		return nil
	}
	l.strict(o, fields)
	line, column := l.src.position(l.start(fields["name"].value))
	o.at = fmt.Sprintf("%s:%d:%d", l.src.name, line, column)
	o.spec = observerSpec{Name: o.Name, Order: o.Order, WhenDead: o.WhenDead, Retry: o.Retry, OnFailure: o.OnFailure, Paused: o.Paused, DryRun: o.DryRun}
	o.match, o.spec.Match = l.match(fields["match"])
	shared := l.env
	defer func() { l.env = shared }()
	o.lookups, o.spec.Lookup = l.lookups(fields["lookup"])
	if f := fields["when"]; f.given() {
		when := l.expression(f)
		var err error
		o.when, err = l.env.CompileCondition(when.value)
		l.failAt("when", when, err)
		o.spec.When = when.value
	}
	l.actions(o, fields["actions"], n)
	if err := o.setPending(); err != nil {
		l.fail(l.start(n), "", "%v", err)
	}
	return o
}

func (l *loader) actions(o *Observer, f field, n ast.Node) {
	nodes := l.list(f)
	if len(nodes) == 0 {
		if f.given() {
			l.fail(l.start(f.value), "give it at least one", "observer %s has no actions", o.Name)
		}
		l.missing(n, "observer "+o.Name, "actions", "give it at least one action")
		return
	}
	for _, n := range nodes {
		a, spec := l.action(n)
		if l.err != nil {
			return
		}
		if a.Async && o.Order == OrderStrict {
			l.fail(l.start(l.mapping(n, "", "an action")["async"].value), "leave it out, or give the action to an observer of its own",
				"async: true gives up the order that order: strict asks for")
			return
		}
		if slices.ContainsFunc(o.Actions, func(other *Action) bool { return other.Name == a.Name }) {
			l.fail(l.start(n), "names are unique within an observer", "action %q is already defined in %s", a.Name, o.Name)
			return
		}
		o.Actions = append(o.Actions, a)
		o.spec.Actions = append(o.spec.Actions, spec)
	}
}

// missing reports a key that must be there.
func (l *loader) missing(n ast.Node, what, key, hint string) {
	if n != nil {
		l.fail(l.start(n), hint, "%s has no key %s", what, key)
	}
}

// required reads a text that must be there.
func (l *loader) required(f field, n ast.Node, what, key string) scalar {
	if !f.given() {
		l.missing(n, what, key, "")
		return scalar{}
	}
	return l.text(f.name, f.value)
}

func (l *loader) name(f field, n ast.Node, what string) string {
	s := l.required(f, n, what, "name")
	if l.err == nil && !events.ValidName(s.value) {
		l.fail(s.start, "", "the name of %s is [a-z][a-z0-9-]{0,62}, got %q", what, s.value)
	}
	return s.value
}

func (l *loader) order(f field) Order {
	if !f.given() {
		return OrderAttempts
	}
	return Order(l.choice(f, "", string(OrderAttempts), string(OrderStrict), string(OrderNone)))
}

// retry reads a policy; what is not given is that of the default.
func (l *loader) retry(f field) retry.Policy {
	p := retry.Default()
	if !f.given() {
		return p
	}
	fields := l.mapping(f.value, "retry.", "retry", "max_attempts", "strategy", "initial", "max", "jitter")
	p.MaxAttempts = l.integer("retry.max_attempts", fields["max_attempts"].value, p.MaxAttempts)
	if s := fields["strategy"]; s.given() {
		p.Strategy = retry.Strategy(l.text(s.name, s.value).value)
	}
	p.Initial = l.duration(fields["initial"], p.Initial)
	p.Max = l.duration(fields["max"], p.Max)
	p.Jitter = l.number(fields["jitter"], p.Jitter)
	if err := p.Validate(); err != nil && l.err == nil {
		at := l.start(f.value)
		var key *retry.KeyError
		if errors.As(err, &key) && fields[key.Key].given() {
			at = l.start(fields[key.Key].value)
		}
		l.fail(at, "", "retry.%s", err)
	}
	return p
}

// match reads which events an observer is for.
func (l *loader) match(f field) (matchRule, matchSpec) {
	if !f.given() {
		return matchRule{}, matchSpec{}
	}
	fields := l.mapping(f.value, "match.", "match", "source", "entity", "ops")
	var rule matchRule
	if source := fields["source"]; source.given() {
		rule.source = l.pattern(source)
		if l.err == nil && !events.ValidSource(strings.ReplaceAll(rule.source, "*", "a")) {
			l.fail(l.start(source.value), "a source is [a-z][a-z0-9_]{0,52}; * stands for any of it", "match.source can't be %q", rule.source)
		}
	}
	if entity := fields["entity"]; entity.given() {
		rule.entity = l.pattern(entity)
		if l.err == nil && slices.Contains(strings.Split(rule.entity, "."), "") {
			l.fail(l.start(entity.value), "write schema.table, or public.* for every table of a schema", "match.entity can't be %q", rule.entity)
		}
	}
	var ops []string
	for _, n := range l.list(fields["ops"]) {
		op := events.Op(l.text("match.ops", n).value)
		switch {
		case l.err != nil:
		case !op.Valid():
			l.fail(l.start(n), fmt.Sprintf("known: %v", events.Ops()), "match.ops can't hold %q", op)
		case slices.Contains(rule.ops, op):
			l.fail(l.start(n), "", "match.ops holds %q twice", op)
		}
		rule.ops = append(rule.ops, op)
		ops = append(ops, string(op))
	}
	if o := fields["ops"]; o.given() && len(ops) == 0 {
		l.fail(l.start(o.value), "leave the key out for every operation", "match.ops holds none")
	}
	slices.Sort(ops)
	return rule, matchSpec{Source: rule.source, Entity: rule.entity, Ops: ops}
}

// pattern reads a text with stars.
func (l *loader) pattern(f field) string { return l.text(f.name, f.value).value }
