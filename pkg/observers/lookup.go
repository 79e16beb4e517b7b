package observers

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/observers/expr"
)

// The types of lookups.
const (
	LookupHTTP = "http"
	LookupSQL  = "sql"
)

// Lookup is one question, rendered for one event: all that is needed to ask it but secrets, which are named here.
type Lookup struct {
	Name        string
	Type        string // LookupHTTP or LookupSQL
	Key         string // of its answer in the cache
	Endpoint    string // that is asked
	URL         string // or the reference to that of a database
	Header      []actions.Header
	Select      string   // of SQL
	Args        [][]byte // its parameters, JSON
	AllRows     bool     // the answer is a list of rows, not the first one
	Timeout     time.Duration
	TTL         time.Duration // of an answer
	NegativeTTL time.Duration // of the answer that there is none
}

const (
	defaultLookupTimeout = 5 * time.Second
	defaultLookupTTL     = time.Minute
	defaultNegativeTTL   = 5 * time.Second
	maxLookups           = 8 // of one observer: each is a question for every event

	lookupRetry  = "retry"
	lookupIgnore = "ignore"
	rowsFirst    = "first"
	rowsAll      = "all"
)

// lookupSpec is the canonical form of a lookup.
type lookupSpec struct {
	Name        string            `json:"name"`
	Type        string            `json:"type"`
	URL         string            `json:"url"`
	Headers     map[string]string `json:"headers,omitempty"`
	Select      string            `json:"select,omitempty"`
	Args        []string          `json:"args,omitempty"`
	Rows        string            `json:"rows,omitempty"`
	Timeout     string            `json:"timeout"`
	TTL         string            `json:"ttl"`
	NegativeTTL string            `json:"negative_ttl"`
	Key         string            `json:"key,omitempty"`
	Required    bool              `json:"required,omitempty"`
	OnError     string            `json:"on_error"`
}

// lookup is a step before the actions of an observer.
type lookup struct {
	plain     Lookup    // what is the same for every event
	url       *expr.URL // of HTTP
	headers   []headerTemplate
	args      []*expr.JSON
	key       *expr.Text // nil for the question itself
	required  bool       // without an answer there is nothing to render
	forgiving bool       // one that fails is answered by null
}

var (
	lookupKeys     = []string{"name", "type", "url", "timeout", "ttl", "negative_ttl", "key", "required", "on_error"}
	lookupHTTPKeys = []string{"headers"}
	lookupSQLKeys  = []string{"select", "args", "rows"}

	lookupName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`)
)

// lookups reads the lookups of an observer; later ones may read the answers of earlier ones.
func (l *loader) lookups(f field) (steps []*lookup, specs []lookupSpec) {
	var names []string
	for i, n := range l.list(f) {
		if i == maxLookups {
			l.fail(l.start(n), "", "an observer has at most %d lookups", maxLookups)
		}
		step, spec := l.lookup(n)
		if l.err != nil {
			return nil, nil
		}
		if slices.Contains(names, spec.Name) {
			l.fail(l.start(n), "names are unique within an observer", "lookup %q is already defined", spec.Name)
			return nil, nil
		}
		names = append(names, spec.Name)
		steps, specs = append(steps, step), append(specs, spec)
		env, err := l.env.WithLookups(slices.Clone(names))
		if err != nil {
			l.fail(l.start(n), "", "%v", err)
			return nil, nil
		}
		l.env = env
	}
	return steps, specs
}

func (l *loader) lookup(n ast.Node) (*lookup, lookupSpec) {
	const what = "a lookup"
	kind := l.required(l.mapping(n, "", what)["type"], n, what, "type").value
	keys := lookupKeys
	switch {
	case l.err != nil:
	case kind == LookupHTTP:
		keys = slices.Concat(keys, lookupHTTPKeys)
	case kind == LookupSQL:
		keys = slices.Concat(keys, lookupSQLKeys)
	default:
		l.fail(l.start(n), "", "the type of a lookup is http or sql, got %q", kind)
	}
	if l.err != nil {
		return nil, lookupSpec{}
	}
	fields := l.mapping(n, "lookup.", what+" of type "+kind, keys...)
	name := l.required(fields["name"], n, what, "name")
	if l.err == nil && !lookupName.MatchString(name.value) {
		l.fail(name.start, "it is a name in expressions: lookup.<name>", "the name of a lookup is [a-z][a-z0-9_]{0,62}, got %q", name.value)
	}
	step := &lookup{plain: Lookup{
		Name: name.value, Type: kind,
		Timeout:     l.duration(fields["timeout"], defaultLookupTimeout),
		TTL:         l.duration(fields["ttl"], defaultLookupTTL),
		NegativeTTL: l.duration(fields["negative_ttl"], defaultNegativeTTL),
	}}
	spec := lookupSpec{
		Name: name.value, Type: kind, Timeout: step.plain.Timeout.String(), TTL: step.plain.TTL.String(), NegativeTTL: step.plain.NegativeTTL.String(),
		Required: l.boolean(fields["required"]), OnError: l.choice(fields["on_error"], lookupRetry, lookupRetry, lookupIgnore),
	}
	step.required, step.forgiving = spec.Required, spec.OnError == lookupIgnore
	if step.required && step.forgiving {
		l.fail(fields["on_error"].at, "leave one of them out", "lookup %s is required, so its errors can't be ignored", name.value)
	}
	if key := fields["key"]; key.given() {
		text := l.text(key.name, key.value)
		var err error
		step.key, err = l.env.CompileText(text.value, expr.Subject)
		l.failAt("key", text, err)
		if l.err == nil && text.value == "" {
			l.fail(text.start, "", "key is empty")
		}
		spec.Key = text.value
	}
	if kind == LookupHTTP {
		l.lookupHTTP(fields, n, step, &spec)
	} else {
		l.lookupSQL(fields, n, step, &spec)
	}
	return step, spec
}

func (l *loader) lookupHTTP(fields map[string]field, n ast.Node, step *lookup, spec *lookupSpec) {
	link := l.required(fields["url"], n, "a lookup", "url")
	var err error
	step.url, err = l.env.CompileURL(link.value)
	l.failAt("url", link, err)
	spec.URL = link.value
	step.headers, spec.Headers = l.headers(fields["headers"])
	if l.err == nil {
		step.plain.Endpoint = step.url.Endpoint()
	}
}

func (l *loader) lookupSQL(fields map[string]field, n ast.Node, step *lookup, spec *lookupSpec) {
	step.plain.URL = l.secretURL(fields["url"], n, "a lookup")
	step.plain.Endpoint = endpointOf(typeSQL, step.plain.URL)
	statement := l.required(fields["select"], n, "a lookup", "select")
	step.plain.Select = strings.TrimSpace(statement.value)
	switch {
	case l.err != nil:
	case strings.HasSuffix(step.plain.Select, ";"):
		l.fail(statement.start, "leave it out", "select ends with a semicolon")
	case strings.Contains(step.plain.Select, "${"):
		l.fail(statement.start, "write $1, $2, … and the values into args", "values are bound to a select, and never stand in it")
	}
	spec.URL, spec.Select = step.plain.URL, step.plain.Select
	for i, n := range l.list(fields["args"]) {
		if i == maxArgs {
			l.fail(l.start(n), "", "a select has at most %d parameters", maxArgs)
		}
		source := l.expression(field{name: "args[" + strconv.Itoa(i) + "]", at: fields["args"].at, value: n})
		arg, err := l.env.CompileJSON(source.value)
		l.failAt("args", source, err)
		step.args, spec.Args = append(step.args, arg), append(spec.Args, source.value)
	}
	spec.Rows = l.choice(fields["rows"], rowsFirst, rowsFirst, rowsAll)
	step.plain.AllRows = spec.Rows == rowsAll
}

// render makes the question of one event.
func (s *lookup) render(in *expr.Input) (Lookup, error) {
	q := s.plain
	var err error
	if s.url != nil {
		if q.URL, err = s.url.Render(in); err != nil {
			return q, fmt.Errorf("url: %w", err)
		}
	}
	for _, h := range s.headers {
		value := h.secret
		if h.text != nil {
			if value, err = h.text.Render(in); err != nil {
				return q, fmt.Errorf("header %s: %w", h.name, err)
			}
		}
		q.Header = append(q.Header, actions.Header{Name: h.name, Value: value})
	}
	for i, arg := range s.args {
		value, err := arg.Append(nil, in)
		if err != nil {
			return q, fmt.Errorf("args[%d]: %w", i, err)
		}
		q.Args = append(q.Args, value)
	}
	if s.key == nil {
		q.Key = q.fingerprint()
	} else if q.Key, err = s.key.Render(in); err != nil {
		return q, fmt.Errorf("key: %w", err)
	}
	return q, nil
}

// fingerprint is a key that only the same question has.
func (q *Lookup) fingerprint() string {
	var text []byte
	part := func(s string) {
		text = append(strconv.AppendInt(text, int64(len(s)), 10), ':')
		text = append(text, s...)
	}
	part(q.Type)
	part(q.URL)
	part(q.Select)
	part(strconv.FormatBool(q.AllRows))
	for _, h := range q.Header {
		part(h.Name)
		part(h.Value)
	}
	part("")
	for _, arg := range q.Args {
		part(string(arg))
	}
	sum := sha256.Sum256(text)
	return "lookup/" + hex.EncodeToString(sum[:])
}

// expressions of a lookup.
func (s *lookup) expressions() []asking {
	var list []asking
	if s.url != nil {
		list = append(list, s.url)
	}
	if s.key != nil {
		list = append(list, s.key)
	}
	for _, h := range s.headers {
		if h.text != nil {
			list = append(list, h.text)
		}
	}
	for _, arg := range s.args {
		list = append(list, arg)
	}
	return list
}

// pendingEndpoint is what an observer's lookups have in the place of an action's endpoint: that of the first.
func pendingEndpoint(steps []*lookup) string { return steps[0].plain.Endpoint }

func lookupTime(steps []*lookup) time.Duration {
	var total time.Duration
	for _, step := range steps {
		total += step.plain.Timeout
	}
	return total
}

// nullAnswer stands for what a lookup did not find.
var nullAnswer = []byte("null")
