package observers

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/tributary-dev/tributary/pkg/observers/expr"
)

const quoteHint = "put a text in quotes that begins with one of { [ * & ! | > % @ ` \" ', or that holds \": \" or \" #\""

// reader reads a YAML file strictly. It keeps the first error and goes on with zero values, so that whoever reads
// checks once.
type reader struct {
	src *source
	err *Error
}

func (r *reader) fail(offset int, hint, format string, args ...any) {
	if r.err == nil {
		r.err = r.src.errorAt(offset, hint, fmt.Sprintf(format, args...))
	}
}

// document parses the file, which holds one document; nil where it fails.
func (r *reader) document() ast.Node {
	file, err := parser.ParseBytes([]byte(r.src.text), 0, parser.AllowDuplicateMapKey())
	if err != nil {
		var located yaml.Error
		if !errors.As(err, &located) || located.GetToken() == nil {
			r.fail(0, quoteHint, "invalid YAML: %v", err)
			return nil
		}
		position := located.GetToken().Position
		at, hint := r.src.offset(position.Line, position.Column), quoteHint
		if strings.HasPrefix(r.src.text[at:], "\t") {
			hint = "indent with blanks, not with tabs"
		}
		r.fail(at, hint, "invalid YAML: %s", located.GetMessage())
		return nil
	}
	var body ast.Node
	for _, document := range file.Docs {
		switch {
		case document.Body == nil:
		case body != nil:
			r.fail(r.start(document.Body), "put it into a file of its own", "a file holds one document")
			return nil
		default:
			body = document.Body
		}
	}
	if body == nil {
		r.fail(0, "write observers: and a list; observers: [] where there are none", "the file is empty")
	}
	return body
}

// start gives the offset at which a node begins.
func (r *reader) start(n ast.Node) int {
	switch v := n.(type) {
	case *ast.MappingNode:
		if !v.IsFlowStyle && len(v.Values) > 0 {
			return r.start(v.Values[0].Key)
		}
	case *ast.MappingValueNode:
		return r.start(v.Key)
	}
	position := n.GetToken().Position
	return r.src.offset(position.Line, position.Column)
}

// field is one key of a mapping; the zero field stands for a key that is not there.
type field struct {
	name  string // with the names it lies under: retry.max
	at    int    // where the key is
	value ast.Node
}

func (f field) given() bool { return f.value != nil }

// mapping reads the keys of a mapping; one that is not known, or has no value, is an error. under is put before the
// names in errors, empty at the top.
func (r *reader) mapping(n ast.Node, under, what string, known ...string) map[string]field {
	mapping, ok := n.(*ast.MappingNode)
	if !ok {
		if n != nil {
			r.fail(r.start(n), mappingHint(n, known), "%s is a mapping of keys to values, this is %s", what, describe(n))
		}
		return nil
	}
	fields := make(map[string]field, len(mapping.Values))
	for _, entry := range mapping.Values {
		key, ok := entry.Key.(*ast.StringNode)
		at := r.start(entry.Key)
		switch {
		case !ok:
			r.fail(at, "known keys: "+strings.Join(known, ", "), "a key of %s is a plain text", what)
			continue
		case len(known) > 0 && !contains(known, key.Value):
			r.fail(at, "known keys: "+strings.Join(known, ", "), "%s has no key %q", what, key.Value)
			continue
		}
		name := under + key.Value
		if _, twice := fields[key.Value]; twice {
			r.fail(at, "keep one of them", "%s is given twice", name)
		}
		if _, null := entry.Value.(*ast.NullNode); null || entry.Value == nil {
			r.failNull(name, at, entry)
			continue
		}
		fields[key.Value] = field{name: name, at: at, value: entry.Value}
	}
	return fields
}

func mappingHint(n ast.Node, known []string) string {
	switch n.(type) {
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode:
		return "anchors, aliases and tags are not read: write the keys out"
	}
	if len(known) == 0 {
		return "write key: value"
	}
	return "known keys: " + strings.Join(known, ", ")
}

// failNull explains a key without a value. The parser drops what looks like a tag, so that the condition
// when: !has(after.x) would be none at all.
func (r *reader) failNull(name string, at int, entry *ast.MappingValueNode) {
	position := entry.Start.Position
	behind := r.src.offset(position.Line, position.Column) + 1
	rest := strings.TrimLeft(r.src.text[min(behind, len(r.src.text)):], " ")
	if strings.HasPrefix(rest, "!") {
		r.fail(len(r.src.text)-len(rest), "put the text in quotes", "%s: a text that begins with ! is a tag of YAML", name)
		return
	}
	r.fail(at, "give it one, or leave the key out", "%s has no value", name)
}

func contains(list []string, text string) bool {
	for _, s := range list {
		if s == text {
			return true
		}
	}
	return false
}

// describe names what a node is, for errors.
func describe(n ast.Node) string {
	switch v := n.(type) {
	case *ast.MappingNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.AliasNode:
		return "an alias of YAML (*)"
	case *ast.AnchorNode:
		return "an anchor of YAML (&)"
	case *ast.TagNode:
		return "a tag of YAML (!)"
	case *ast.StringNode, *ast.LiteralNode:
		return "a text"
	case *ast.NullNode:
		return "nothing"
	default:
		return v.GetToken().Value
	}
}

// list reads the nodes of a list.
func (r *reader) list(f field) []ast.Node {
	if !f.given() {
		return nil
	}
	list, ok := f.value.(*ast.SequenceNode)
	if !ok {
		r.fail(r.start(f.value), "write "+f.name+": [...], or a line with a dash for each", "%s is a list, this is %s", f.name, describe(f.value))
		return nil
	}
	return list.Values
}

// text reads a text, as it stands between its quotes.
func (r *reader) text(name string, n ast.Node) scalar {
	switch v := n.(type) {
	case nil:
	case *ast.StringNode:
		s := scalar{value: v.Value, start: r.start(v)}
		if c := r.src.text[s.start]; c == '"' || c == '\'' {
			s.quote = c
		}
		return s
	case *ast.LiteralNode:
		line := v.Start.Position.Line
		return scalar{value: v.Value.Value, start: r.src.offset(line+1, 1)}
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		r.fail(r.start(n), "put it in quotes", "%s is a text, this is %s", name, describe(n))
	default:
		r.fail(r.start(n), quoteHint, "%s is a text, this is %s", name, describe(n))
	}
	return scalar{}
}

// expression reads the source of an expression: a number or a bool is one too.
func (r *reader) expression(f field) scalar {
	switch v := f.value.(type) {
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return scalar{value: v.GetToken().Value, start: r.start(v)}
	case *ast.MappingNode, *ast.SequenceNode:
		r.fail(r.start(v), "put the expression in quotes", "%s is an expression, this is %s", f.name, describe(v))
		return scalar{}
	default:
		return r.text(f.name, f.value)
	}
}

func (r *reader) boolean(f field) bool {
	if !f.given() {
		return false
	}
	v, ok := f.value.(*ast.BoolNode)
	if !ok {
		r.fail(r.start(f.value), "write it without quotes", "%s is true or false, this is %s", f.name, describe(f.value))
		return false
	}
	return v.Value
}

func (r *reader) integer(name string, n ast.Node, fallback int) int {
	if n == nil {
		return fallback
	}
	if v, ok := n.(*ast.IntegerNode); ok {
		if number, err := strconv.Atoi(v.Token.Value); err == nil {
			return number
		}
	}
	r.fail(r.start(n), "", "%s is a whole number, this is %s", name, describe(n))
	return fallback
}

func (r *reader) number(f field, fallback float64) float64 {
	switch v := f.value.(type) {
	case nil:
		return fallback
	case *ast.FloatNode:
		return v.Value
	case *ast.IntegerNode:
		if number, err := strconv.ParseFloat(v.Token.Value, 64); err == nil {
			return number
		}
	}
	r.fail(r.start(f.value), "", "%s is a number, this is %s", f.name, describe(f.value))
	return fallback
}

// duration reads a duration above 0.
func (r *reader) duration(f field, fallback time.Duration) time.Duration {
	const hint = "write a number and a unit, such as 250ms, 10s or 1m30s"
	switch v := f.value.(type) {
	case nil:
		return fallback
	case *ast.StringNode:
		d, err := time.ParseDuration(v.Value)
		switch {
		case err != nil:
			r.fail(r.start(v), hint, "%s is a duration, this is %q", f.name, v.Value)
		case d <= 0:
			r.fail(r.start(v), hint, "%s must be above 0, got %s", f.name, v.Value)
		}
		return d
	default:
		r.fail(r.start(v), hint, "%s is a duration, this is %s", f.name, describe(v))
		return fallback
	}
}

// choice reads one of some words.
func (r *reader) choice(f field, fallback string, words ...string) string {
	if !f.given() {
		return fallback
	}
	s := r.text(f.name, f.value)
	if r.err == nil && !contains(words, s.value) {
		r.fail(s.start, "", "%s is one of %s, got %q", f.name, strings.Join(words, ", "), s.value)
	}
	return s.value
}

// conceal takes a text out of the line that the error shows, since it may be a secret.
func (r *reader) conceal(s scalar) {
	line, _ := r.src.position(s.start)
	if r.err != nil && r.err.Line == line {
		r.err.line = r.src.text[r.src.lines[line-1]:s.start] + "…"
	}
}

// failAt reports an error of an expression at its place in the file.
func (r *reader) failAt(name string, s scalar, err error) {
	if err == nil {
		return
	}
	var located *expr.Error
	if !errors.As(err, &located) {
		r.fail(s.start, "", "%s: %v", name, err)
		return
	}
	r.fail(r.src.locate(s, located.Offset), located.Hint, "%s: %s", name, located.Message)
	if located.Secret {
		r.conceal(s)
	}
}
