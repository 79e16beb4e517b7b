package config

import (
	"reflect"
	"strconv"
	"strings"
)

// Key is one key of the configuration, for help and documents.
type Key struct {
	Path    string // worker.concurrency; sources[].name for the fields of a list's items
	Type    string // text, number, bool, duration, size, secret, path, or a list of them
	Default string // empty where there is none
	Help    string
	OneOf   []string // the values there are; nil where any will do
}

// Variable is the environment variable that overrides the key, or empty where none can.
func (k Key) Variable() string {
	if strings.Contains(k.Path, "[") {
		return ""
	}
	return variablePrefix + strings.ToUpper(strings.ReplaceAll(k.Path, ".", "_"))
}

// Flag is the flag that overrides the key, or empty where none can.
func (k Key) Flag() string {
	if strings.Contains(k.Path, "[") {
		return ""
	}
	return "--" + k.Path
}

// Keys lists every key in the order of the documents.
func Keys() []Key {
	config := Config{Sources: make([]Source, 1), Actions: Actions{TLS: make([]ActionTLS, 1)}, Endpoints: make([]Endpoint, 1)}
	var keys []Key
	for _, leaf := range leaves(&config) {
		key := Key{
			Path:    strings.ReplaceAll(leaf.path, "[0]", "[]"),
			Type:    typeName(leaf.value.Type()),
			Default: leaf.tag.Get("default"),
			Help:    leaf.tag.Get("help"),
		}
		if leaf.tag.Get("path") != "" {
			key.Type = "path"
		}
		if values := leaf.tag.Get("oneof"); values != "" {
			key.OneOf = strings.Split(values, "|")
		}
		keys = append(keys, key)
	}
	return keys
}

// leaf is one field that has a value of its own, in a Config.
type leaf struct {
	path  string
	value reflect.Value // settable
	tag   reflect.StructTag
}

// leaves gives all of them in order, with those of each item of a list of sections.
func leaves(c *Config) []leaf { return appendLeaves(nil, reflect.ValueOf(c).Elem(), "") }

func appendLeaves(to []leaf, section reflect.Value, prefix string) []leaf {
	for field, value := range section.Fields() {
		name := field.Tag.Get("key")
		path := prefix + name
		switch {
		case name == "":
		case typeName(field.Type) != "":
			to = append(to, leaf{path: path, value: value, tag: field.Tag})
		case field.Type.Kind() == reflect.Struct:
			to = appendLeaves(to, value, path+".")
		default:
			for i := range value.Len() {
				to = appendLeaves(to, value.Index(i), path+"["+strconv.Itoa(i)+"].")
			}
		}
	}
	return to
}

// setDefaults sets every field of a section that has a default.
func setDefaults(section reflect.Value) {
	for _, leaf := range appendLeaves(nil, section, "") {
		line, ok := leaf.tag.Lookup("default")
		if !ok {
			continue
		}
		if err := setFromLine(leaf.value, line); err != nil {
			panic("config: the default of " + leaf.path + " must be " + err.Error())
		}
	}
}

// nearest gives the candidate that differs least from name, or "" where none is close.
func nearest(name string, candidates []string) string {
	best, least := "", 1+len(name)/3
	for _, candidate := range candidates {
		if d := distance(name, candidate); d <= least && (best == "" || d < least) {
			best, least = candidate, d
		}
	}
	return best
}

// distance counts the letters to insert, delete or replace between a and b (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
