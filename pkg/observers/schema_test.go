package observers_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/tributary-dev/tributary/pkg/observers"
)

func compiled(t *testing.T) *jsonschema.Schema {
	t.Helper()
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(observers.Schema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("observers.schema.json", document); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("observers.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// fits validates YAML; what is no YAML does not fit.
func fits(schema *jsonschema.Schema, text []byte) error {
	asJSON, err := yaml.YAMLToJSON(text)
	if err != nil {
		return err
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(asJSON))
	if err != nil {
		return err
	}
	return schema.Validate(document)
}

func TestGoodFilesFitTheSchema(t *testing.T) {
	schema := compiled(t)
	files, err := filepath.Glob("../../examples/observers/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	good := map[string]string{"webhooks": webhooks, "lookups": lookingUp}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		good[file] = string(text)
	}
	for name, block := range documented(t) {
		good[name] = block
	}
	for name, text := range good {
		if err := fits(schema, []byte(text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := fits(schema, parse(t, text).Source()); err != nil {
			t.Errorf("the canonical form of %s: %v", name, err)
		}
	}
}

// documented gives the files of observers in docs/observers.md.
func documented(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../../docs/observers.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := make(map[string]string)
	for _, part := range strings.Split(string(text), "```yaml\n")[1:] {
		block, _, _ := strings.Cut(part, "```")
		switch {
		case strings.HasPrefix(block, "observers:"):
			blocks["docs/observers.md: "+block[:40]] = block
		case strings.HasPrefix(block, "actions:"):
			blocks["docs/observers.md: "+block[:40]] = "observers:\n- name: documented\n  " + strings.ReplaceAll(strings.TrimSpace(block), "\n", "\n  ") + "\n"
		}
	}
	if len(blocks) < 2 {
		t.Fatalf("docs/observers.md shows %d files", len(blocks))
	}
	return blocks
}

// TestBadFilesDoNotFitTheSchema holds what the schema can't tell in testdata/schema-passes.txt.
func TestBadFilesDoNotFitTheSchema(t *testing.T) {
	schema := compiled(t)
	files, err := filepath.Glob("testdata/errors/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	var passes []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if fits(schema, text) == nil {
			passes = append(passes, strings.TrimSuffix(filepath.Base(file), ".yaml"))
		}
	}
	got := strings.Join(passes, "\n") + "\n"
	const golden = "testdata/schema-passes.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", golden, diff)
	}
}

// TestSchemaKnowsTheKeysOfTheReader asks the reader, by a key that it does not know, which ones it does.
func TestSchemaKnowsTheKeysOfTheReader(t *testing.T) {
	const observer = "observers: [{name: o, %, actions: [{name: a, type: log, message: x}]}]"
	action := func(kind string) string { return "observers: [{name: o, actions: [{unknown: x, type: " + kind + "}]}]" }
	cases := map[string]string{ // place in the schema → a file with a key that is not known there
		"properties":                                       "unknown: x",
		"$defs/observer/properties":                        strings.Replace(observer, "%", "unknown: x", 1),
		"$defs/match/properties":                           strings.Replace(observer, "%", "match: {unknown: x}", 1),
		"$defs/retry/properties":                           strings.Replace(observer, "%", "retry: {unknown: x}", 1),
		"$defs/lookup-http/properties":                     strings.Replace(observer, "%", "lookup: [{type: http, unknown: x}]", 1),
		"$defs/lookup-sql/properties":                      strings.Replace(observer, "%", "lookup: [{type: sql, unknown: x}]", 1),
		"$defs/action-webhook/properties/cache/properties": "observers: [{name: o, actions: [{name: a, type: webhook, url: 'http://a/', cache: {unknown: x}}]}]",
	}
	var document struct {
		Defs map[string]json.RawMessage `json:"$defs"`
	}
	if err := json.Unmarshal(observers.Schema(), &document); err != nil {
		t.Fatal(err)
	}
	_, err := observers.Parse("observers.yaml", []byte(action("unknown")))
	kinds := strings.Split(strings.TrimSpace(hintOf(t, err)), ", ")
	for _, kind := range kinds {
		cases["$defs/action-"+kind+"/properties"] = action(kind)
	}
	for name := range document.Defs {
		if kind, ok := strings.CutPrefix(name, "action-"); ok && !slices.Contains(kinds, kind) {
			t.Errorf("the schema has actions of type %s, the reader knows %v", kind, kinds)
		}
	}
	for place, file := range cases {
		_, err := observers.Parse("observers.yaml", []byte(file))
		want := strings.Split(hintOf(t, err), ", ")
		if place == "$defs/action-log/properties" || place == "$defs/action-cache/properties" {
			want = slices.DeleteFunc(want, func(key string) bool { return key == "cache" }) // the reader refuses it by itself
		}
		slices.Sort(want)
		if diff := cmp.Diff(want, keysAt(t, place)); diff != "" {
			t.Errorf("%s (-reader +schema):\n%s", place, diff)
		}
	}
}

// hintOf gives the list of what is known, of an error.
func hintOf(t *testing.T, err error) string {
	t.Helper()
	var located *observers.Error
	if !errors.As(err, &located) {
		t.Fatalf("it gave %v", err)
	}
	text := located.Hint
	if text == "" {
		text = located.Message
	}
	if _, list, ok := strings.Cut(text, "known keys: "); ok {
		return list
	}
	_, list, ok := strings.Cut(text, "known: ")
	if !ok {
		t.Fatalf("no list in %v", err)
	}
	return list
}

func keysAt(t *testing.T, place string) []string {
	t.Helper()
	var at any
	if err := json.Unmarshal(observers.Schema(), &at); err != nil {
		t.Fatal(err)
	}
	for _, step := range strings.Split(place, "/") {
		object, _ := at.(map[string]any)
		at = object[step]
	}
	object, ok := at.(map[string]any)
	if !ok {
		t.Fatalf("the schema has no %s", place)
	}
	return slices.Sorted(maps.Keys(object))
}
