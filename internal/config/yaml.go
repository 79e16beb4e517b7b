package config

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// document sets a Config from one YAML file, by the tags of its fields.
type document struct {
	name    string // of the file, for errors
	dir     string // of the file, for relative paths
	lines   []string
	anchors map[string]ast.Node
	origins map[string]string // gets path → file:line
	errs    []error
}

// decode reads text into c and gives every error that there is in it.
func decode(c *Config, name string, text []byte) error {
	text = bytes.TrimPrefix(text, []byte("\uFEFF")) // a mark that some editors write in front
	d := &document{name: name, dir: filepath.Dir(name), lines: strings.Split(string(text), "\n"), anchors: map[string]ast.Node{}, origins: c.origins}
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		var broken yaml.Error
		if errors.As(err, &broken) {
			d.fail(broken.GetToken(), "%s", broken.GetMessage())
			return errors.Join(d.errs...)
		}
		return fmt.Errorf("%s: %w", name, err)
	}
	var bodies []ast.Node
	for _, doc := range file.Docs {
		if doc.Body != nil && doc.Body.Type() != ast.CommentType {
			bodies = append(bodies, doc.Body)
		}
	}
	if len(bodies) > 1 {
		d.fail(bodies[1].GetToken(), "a second document begins here; write one")
	}
	if len(bodies) > 0 {
		d.section(reflect.ValueOf(c).Elem(), "", bodies[0])
	}
	return errors.Join(d.errs...)
}

// fail adds an error with the line at which it stands, and a caret below the place.
func (d *document) fail(at *token.Token, format string, args ...any) {
	message := fmt.Sprintf(format, args...)
	if at == nil || at.Position == nil {
		d.errs = append(d.errs, fmt.Errorf("%s: %s", d.name, message))
		return
	}
	line, column := at.Position.Line, at.Position.Column
	text := fmt.Sprintf("%s:%d:%d: %s", d.name, line, column, message)
	if line >= 1 && line <= len(d.lines) {
		source := strings.ReplaceAll(strings.TrimRight(redact(d.lines[line-1]), " \r"), "\t", " ")
		gutter := strconv.Itoa(line)
		text += "\n  " + gutter + " | " + source + "\n  " + strings.Repeat(" ", len(gutter)) + " | " + strings.Repeat(" ", max(column-1, 0)) + "^"
	}
	d.errs = append(d.errs, errors.New(text))
}

// resolve follows anchors and aliases to what they stand for; nil after an error, or for a null.
func (d *document) resolve(node ast.Node) ast.Node {
	switch n := node.(type) {
	case *ast.AnchorNode:
		d.anchors[n.Name.GetToken().Value] = n.Value
		return d.resolve(n.Value)
	case *ast.AliasNode:
		value, ok := d.anchors[n.Value.GetToken().Value]
		if !ok {
			d.fail(n.GetToken(), "no anchor &%s stands before this", n.Value.GetToken().Value)
			return nil
		}
		return value
	case *ast.TagNode:
		d.fail(n.GetToken(), "the tag %s has no meaning here; leave it out", n.GetToken().Value)
		return nil
	case *ast.NullNode:
		return nil
	default:
		return node
	}
}

// section sets the fields of a struct from a mapping.
func (d *document) section(target reflect.Value, prefix string, node ast.Node) {
	node = d.resolve(node)
	if node == nil {
		return // an empty section has the defaults
	}
	mapping, ok := node.(*ast.MappingNode)
	if !ok {
		d.fail(node.GetToken(), "%s must be keys with values, got %s", nameOf(prefix), kindOf(node))
		return
	}
	for _, entry := range mapping.Values {
		key := entry.Key.GetToken()
		field, found := fieldOf(target, key.Value)
		if !found {
			d.unknown(target, prefix, key)
			continue
		}
		d.field(target.FieldByIndex(field.Index), field, prefix+key.Value, entry.Value)
	}
}

func (d *document) unknown(section reflect.Value, prefix string, key *token.Token) {
	var known []string
	for field := range section.Fields() {
		if name := field.Tag.Get("key"); name != "" {
			known = append(known, name)
		}
	}
	if like := nearest(key.Value, known); like != "" {
		d.fail(key, "%s is no key; did you mean %s?", prefix+key.Value, prefix+like)
		return
	}
	d.fail(key, "%s is no key; %s may hold %s", prefix+key.Value, nameOf(prefix), strings.Join(known, ", "))
}

// field sets one field: a value, a list of values, a section, or a list of sections.
func (d *document) field(target reflect.Value, field reflect.StructField, path string, node ast.Node) {
	switch {
	case typeName(field.Type) == "" && field.Type.Kind() == reflect.Struct:
		d.section(target, path+".", node)
	case typeName(field.Type) == "":
		d.sections(target, path, node)
	case field.Type.Kind() == reflect.Slice:
		d.list(target, path, node)
	case field.Type == maskType:
		d.mapping(target, path, node)
	default:
		d.scalar(target, field, path, node)
	}
}

func (d *document) scalar(target reflect.Value, field reflect.StructField, path string, node ast.Node) {
	node = d.resolve(node)
	if node == nil {
		return
	}
	d.note(path, node)
	text, ok := textOf(node)
	if !ok {
		d.fail(node.GetToken(), "%s must be one value, got %s", path, kindOf(node))
		return
	}
	if field.Tag.Get("path") != "" && text != "" && !filepath.IsAbs(text) {
		text = filepath.Join(d.dir, text)
	}
	if err := setText(target, text); err != nil {
		d.fail(node.GetToken(), "%s must be %v", path, err)
	}
}

// list takes one value for a list of one.
func (d *document) list(target reflect.Value, path string, node ast.Node) {
	node = d.resolve(node)
	if node == nil {
		return
	}
	d.note(path, node)
	items := []ast.Node{node}
	if sequence, ok := node.(*ast.SequenceNode); ok {
		items = sequence.Values
	}
	texts := make([]string, 0, len(items))
	for _, item := range items {
		resolved := d.resolve(item)
		if resolved == nil {
			d.fail(item.GetToken(), "%s must hold values, got an empty one", path)
			return
		}
		text, ok := textOf(resolved)
		if !ok {
			d.fail(resolved.GetToken(), "%s must be a list of single values, got %s in it", path, kindOf(resolved))
			return
		}
		texts = append(texts, text)
	}
	if err := setList(target, texts); err != nil {
		d.fail(node.GetToken(), "%s must be a list; each item must be %v", path, err)
	}
}

// mapping sets names with values that are no keys of ours.
func (d *document) mapping(target reflect.Value, path string, node ast.Node) {
	node = d.resolve(node)
	if node == nil {
		return
	}
	d.note(path, node)
	mapping, ok := node.(*ast.MappingNode)
	if !ok {
		d.fail(node.GetToken(), "%s must be names with values, got %s", path, kindOf(node))
		return
	}
	values := Mask{}
	for _, entry := range mapping.Values {
		name := entry.Key.GetToken().Value
		if value := d.resolve(entry.Value); value != nil {
			values[name], ok = textOf(value)
		} else {
			ok = false
		}
		if !ok {
			d.fail(entry.Key.GetToken(), "%s must give %s one value", path, name)
			return
		}
	}
	target.Set(reflect.ValueOf(values))
}

func (d *document) sections(target reflect.Value, path string, node ast.Node) {
	node = d.resolve(node)
	if node == nil {
		return
	}
	d.note(path, node)
	sequence, ok := node.(*ast.SequenceNode)
	if !ok {
		d.fail(node.GetToken(), "%s must be a list, each item beginning with -, got %s", path, kindOf(node))
		return
	}
	list := reflect.MakeSlice(target.Type(), len(sequence.Values), len(sequence.Values))
	for i, item := range sequence.Values {
		setDefaults(list.Index(i))
		at := path + "[" + strconv.Itoa(i) + "]"
		d.note(at, item)
		d.section(list.Index(i), at+".", item)
	}
	target.Set(list)
}

func (d *document) note(path string, node ast.Node) {
	d.origins[path] = d.name + ":" + strconv.Itoa(node.GetToken().Position.Line)
}

// fieldOf gives the field of a key.
func fieldOf(section reflect.Value, key string) (reflect.StructField, bool) {
	for field := range section.Fields() {
		if key != "" && field.Tag.Get("key") == key {
			return field, true
		}
	}
	return reflect.StructField{}, false
}

// nameOf names the section with a prefix of paths.
func nameOf(prefix string) string {
	if prefix == "" {
		return "the file"
	}
	return strings.TrimSuffix(prefix, ".")
}

func kindOf(node ast.Node) string {
	switch node.(type) {
	case *ast.MappingNode:
		return "keys with values"
	case *ast.SequenceNode:
		return "a list"
	default:
		return "a single value"
	}
}

// textOf gives a scalar as it is written: 010 stays 010, and 1e3 stays 1e3.
func textOf(node ast.Node) (string, bool) {
	switch n := node.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return strings.TrimRight(n.Value.Value, "\n"), true
	case *ast.MappingNode, *ast.SequenceNode, *ast.MappingValueNode:
		return "", false
	default:
		return node.GetToken().Value, true
	}
}
