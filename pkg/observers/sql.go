package observers

import (
	"fmt"
	"regexp"
	"strconv"

	"github.com/goccy/go-yaml/ast"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/observers/expr"
)

var sqlKeys = []string{"url", "function", "args"}

// argEffectKey is the argument that stands for the effect's key. It is bound at the sending, by what knows the effect.
const argEffectKey = "effect_key"

// maxArgs is how many parameters a function of PostgreSQL can have.
const maxArgs = 100

// functionName is a schema and a name, both in PostgreSQL's plain form: no call can be made of anything but a function.
var functionName = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,62}\.[a-z_][a-z0-9_]{0,62}$`)

// sqlSpec is the canonical form of what only calls have.
type sqlSpec struct {
	URL      string   `json:"url"`
	Function string   `json:"function"`
	Args     []string `json:"args,omitempty"`
}

// sqlTemplate renders a call: {"function":"schema.name","args":[…],"effect_key":[1]}, and the reference to the database's
// URL in the place of the URL.
type sqlTemplate struct {
	url      string
	function string
	args     []*expr.JSON // nil for the effect's key
}

func (l *loader) sql(fields map[string]field, n ast.Node) (template, any) {
	function := l.required(fields["function"], n, "a call", "function")
	if l.err == nil && !functionName.MatchString(function.value) {
		l.fail(function.start, "write schema.name, each of a-z 0-9 _; values go into args", "function can't be %q", function.value)
	}
	t := &sqlTemplate{function: function.value, url: l.secretURL(fields["url"], n, "a call")}
	spec := &sqlSpec{URL: t.url, Function: t.function}
	f := fields["args"]
	for i, n := range l.list(f) {
		if i == maxArgs {
			l.fail(l.start(n), "", "a function has at most %d arguments", maxArgs)
		}
		source := l.expression(field{name: "args[" + strconv.Itoa(i) + "]", at: f.at, value: n})
		spec.Args = append(spec.Args, source.value)
		if source.value == argEffectKey {
			t.args = append(t.args, nil)
			continue
		}
		arg, err := l.env.CompileJSON(source.value)
		l.failAt("args", source, err)
		t.args = append(t.args, arg)
	}
	return t, spec
}

func (t *sqlTemplate) render(v *View) (actions.Request, error) {
	body := events.AppendString([]byte(`{"function":`), t.function)
	body = append(body, `,"args":[`...)
	keys := []byte(nil)
	for i, arg := range t.args {
		if i > 0 {
			body = append(body, ',')
		}
		if arg == nil {
			body = append(body, "null"...)
			keys = strconv.AppendInt(append(keys, ','), int64(i+1), 10)
			continue
		}
		var err error
		if body, err = arg.Append(body, v.input); err != nil {
			return actions.Request{}, fmt.Errorf("args[%d]: %w", i, err)
		}
	}
	body = append(body, ']')
	if len(keys) > 0 {
		body = append(append(append(body, `,"effect_key":[`...), keys[1:]...), ']')
	}
	return actions.Request{Endpoint: endpointOf(typeSQL, t.url), URL: t.url, Body: append(body, '}')}, nil
}

func (t *sqlTemplate) expressions() []asking {
	var list []asking
	for _, arg := range t.args {
		if arg != nil {
			list = append(list, arg)
		}
	}
	return list
}
