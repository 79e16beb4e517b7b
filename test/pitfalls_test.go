package test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestEveryPitfallHasItsTests holds docs/pitfalls.md against the tests that there are.
func TestEveryPitfallHasItsTests(t *testing.T) {
	text, err := os.ReadFile("../docs/pitfalls.md")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`([a-z0-9/]+)\\.(Test[A-Za-z0-9]+)`")
	known := map[string]string{} // the tests of a folder
	rows := 0
	for line := range strings.SplitSeq(string(text), "\n") {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| what") {
			continue
		}
		rows++
		tests := named.FindAllStringSubmatch(line, -1)
		if len(tests) == 0 || len(tests) != strings.Count(line, "Test") {
			t.Errorf("no test is named, or one is not as folder.Test: %s", line)
		}
		for _, m := range tests {
			folder, name := m[1], m[2]
			if known[folder] == "" {
				known[folder] = sourceOfTests(t, folder)
			}
			if !strings.Contains(known[folder], "\nfunc "+name+"(t *testing.T)") {
				t.Errorf("%s has no %s: %s", folder, name, line)
			}
		}
	}
	if rows < 30 {
		t.Errorf("only %d pitfalls were found", rows)
	}
}

func sourceOfTests(t *testing.T, folder string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", folder, "*_test.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no tests in %s: %v", folder, err)
	}
	var all strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	return all.String()
}
