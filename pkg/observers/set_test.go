package observers_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tributary-dev/tributary/pkg/observers"
)

func TestGenerationIsThatOfTheRules(t *testing.T) {
	base := parse(t, webhooks)
	same := parse(t, "# a comment\n"+strings.Replace(webhooks, "    actions:", "    order: attempts\n    retry: {max_attempts: 5}\n    match: {}\n    actions:", 1))
	if base.Generation() != same.Generation() || len(base.Generation()) != 16 {
		t.Errorf("the same rules have the generations %s and %s", base.Generation(), same.Generation())
	}
	for _, change := range [][2]string{
		{"permanent: [404, 400, 404]", "permanent: [404]"}, {"timeout: 3s", "timeout: 4s"}, {"env:NEW_SECRET", "env:NEXT_SECRET"},
		{"level: warn", "level: error"}, {"name: it", "name: that"}, {"X-Escaped", "X-Unescaped"}, {"method: PUT", "method: PATCH"},
		{"before.?status", "before.status"}, {"/orders?id", "/order?id"}, {"    actions:", "    when: true\n    actions:"},
		{"    actions:", "    match: {ops: [insert]}\n    actions:"}, {"vnd.order", "vnd.orders"},
	} {
		if other := parse(t, strings.Replace(webhooks, change[0], change[1], 1)); other.Generation() == base.Generation() {
			t.Errorf("%s for %s keeps the generation", change[1], change[0])
		}
	}
}

func TestSourceIsReadAgain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		message := strings.ReplaceAll(rapid.String().Draw(t, "message"), "${", "")
		quoted, err := json.Marshal(message)
		if err != nil {
			t.Fatal(err)
		}
		set, err := observers.Parse("a.yaml", []byte("observers:\n  - name: it\n    when: op == \"insert\"\n    actions:\n      - name: note\n        type: log\n        message: "+string(quoted)+"\n"))
		if err != nil {
			t.Fatal(err)
		}
		again, err := observers.Parse("source", set.Source())
		if err != nil {
			t.Fatalf("%v\nin %s", err, set.Source())
		}
		if again.Generation() != set.Generation() || !bytes.Equal(again.Source(), set.Source()) {
			t.Fatalf("%s became\n%s", set.Source(), again.Source())
		}
	})
	set := parse(t, webhooks)
	if again := parse(t, string(set.Source())); again.Generation() != set.Generation() {
		t.Errorf("%s became\n%s", set.Source(), again.Source())
	}
}

func TestLoadReadsAFolder(t *testing.T) {
	folder := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	rule := func(name string) string {
		return "observers:\n  - {name: " + name + ", actions: [{name: note, type: log, message: x}]}\n"
	}
	write("b.yaml", rule("first"))
	write("a.yml", rule("second"))
	write(".hidden.yaml", "no rules")
	write("notes.txt", "no rules")
	if err := os.Mkdir(filepath.Join(folder, "old.yaml"), 0o755); err != nil {
		t.Fatal(err)
	}
	set, err := observers.Load(folder)
	if err != nil {
		t.Fatal(err)
	}
	if list := set.Observers(); len(list) != 2 || list[0].Name != "first" || list[1].Name != "second" {
		t.Errorf("the folder holds %v", list)
	}
	one := parse(t, "observers:\n  - {name: second, actions: [{name: note, type: log, message: x}]}\n  - {name: first, actions: [{name: note, type: log, message: x}]}\n")
	if one.Generation() != set.Generation() {
		t.Error("the same rules in one file have another generation")
	}

	write("c.yaml", "\n"+rule("second"))
	_, err = observers.Load(folder)
	want := fmt.Sprintf("%s:3:5: observer \"second\" is already defined at %s:2:12\n", filepath.Join(folder, "c.yaml"), filepath.Join(folder, "a.yml"))
	if err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("a name in two files gave %v, want %s", err, want)
	}
	if _, err := observers.Load(t.TempDir()); err == nil {
		t.Error("an empty folder was read")
	}
	if _, err := observers.Load(filepath.Join(folder, "none.yaml")); err == nil {
		t.Error("a file that is not there was read")
	}
}

func TestExamplesLoad(t *testing.T) {
	files, err := filepath.Glob("../../examples/observers/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, file := range files {
		if _, err := observers.Load(file); err != nil {
			t.Error(err)
		}
	}
	if _, err := observers.Load("../../examples/observers"); err != nil {
		t.Errorf("together: %v", err)
	}
}

// FuzzParse: no file makes the parser panic, and what it takes it takes again.
func FuzzParse(f *testing.F) {
	f.Add([]byte(webhooks))
	files, err := filepath.Glob("testdata/errors/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		set, err := observers.Parse("fuzz.yaml", text)
		if err != nil {
			if err.Error() == "" {
				t.Error("an error without a text")
			}
			return
		}
		again, err := observers.Parse("source", set.Source())
		if err != nil || again.Generation() != set.Generation() {
			t.Errorf("%s is not read again: %v", set.Source(), err)
		}
	})
}
