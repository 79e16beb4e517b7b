// Package test holds what is tested about the whole: its imports here, its behaviour in the folders below.
package test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/tributary-dev/tributary/"

// imports says which packages of this module a package may import. One that is not here is an error: add a line, and think
// about its direction: cmd → internal/app → pkg → {events, retry}, and to the internal leaves.
var imports = map[string][]string{
	"cmd/indexer":   {"internal/app"},
	"cmd/ingest":    {"internal/app"},
	"cmd/jobrunner": {"internal/app"},
	"cmd/tributary": {"internal/app"},
	"cmd/worker":    {"internal/app"},

	"internal/app": {anything},

	// The operator's command, and what it reads.
	"internal/cli": {"internal/ask", "internal/config", "internal/generations", "internal/inspect", "internal/natsread", "internal/terminal", "pkg/actions", "pkg/actions/circuit", "pkg/deadletter", "pkg/events", "pkg/indexer", "pkg/jobs",
		"pkg/checkpoint", "pkg/ingest", "pkg/observers", "pkg/pgcdc", "pkg/trace", "streams"},
	"internal/inspect": {"internal/ask", "pkg/checkpoint", "internal/natskv", "internal/natsread", "pkg/actions/circuit", "pkg/deadletter", "pkg/dedupkv", "pkg/events", "pkg/indexer", "pkg/ingest",
		"pkg/jobs", "pkg/observers", "pkg/pgcdc", "pkg/trace", "pkg/worker"},

	// The vocabulary.
	"pkg/events":  {},
	"pkg/retry":   {},
	"pkg/actions": {"pkg/retry"},

	// The road, as data flows.
	"pkg/pgcdc":          {"pkg/events", "pkg/ingest"}, // implements ingest's port
	"pkg/ingest":         {"pkg/events", "pkg/deadletter"},
	"pkg/checkpoint":     {"pkg/events"},
	"pkg/publish":        {"pkg/events"},
	"pkg/observers":      {"pkg/events", "pkg/retry", "pkg/actions", "pkg/actions/secret", "pkg/observers/expr"},
	"pkg/observers/expr": {"pkg/actions", "pkg/events"},
	"pkg/worker":         {"pkg/events", "pkg/retry", "pkg/actions", "pkg/actions/circuit", "pkg/observers", "pkg/dedupkv", "pkg/jobs", "pkg/deadletter", "internal/natskv", "pkg/trace"},
	"pkg/dedupkv":        {"pkg/events", "internal/natskv"},
	"pkg/cachekv":        {"pkg/events", "internal/natskv"},
	"pkg/trace":          {"pkg/events", "internal/natsread"},
	"pkg/jobs":           {"pkg/events", "pkg/retry", "pkg/actions", "pkg/actions/circuit", "pkg/deadletter", "internal/natskv", "internal/natsread", "pkg/trace"},
	"pkg/lookup":         {"pkg/actions", "pkg/actions/egress", "pkg/actions/secret", "pkg/cachekv", "pkg/observers", "pkg/retry"},
	"pkg/deadletter":     {"pkg/events", "pkg/actions", "pkg/retry", "internal/natsread"},

	// The index, and its adapters.
	"pkg/indexer":           {"pkg/events", "pkg/retry", "pkg/deadletter", "pkg/indexer/query"},
	"pkg/indexer/query":     {},
	"pkg/indexer/elastic":   {"pkg/events", "pkg/retry", "pkg/indexer", "pkg/indexer/query"},
	"pkg/indexer/embedded":  {"pkg/indexer", "pkg/indexer/query"},
	"pkg/indexer/indextest": {"pkg/events", "pkg/indexer", "pkg/indexer/query"}, // what the adapters have to do alike

	// The actions: each is an adapter, and none imports another.
	"pkg/actions/actionstest": {"pkg/actions", "pkg/retry"},                                  // for tests alone
	"pkg/actions/circuit":     {"pkg/actions", "pkg/events", "pkg/retry", "internal/natskv"}, // which endpoints may be called
	"pkg/actions/egress":      {"pkg/retry"},
	"pkg/actions/secret":      {},
	"pkg/actions/log":         {"pkg/actions"},
	"pkg/actions/nats":        {"pkg/actions", "pkg/events", "pkg/retry"},
	"pkg/actions/search":      {"pkg/actions", "pkg/actions/egress", "pkg/actions/secret", "pkg/retry"},
	"pkg/actions/slack":       {"pkg/actions", "pkg/actions/egress", "pkg/actions/secret", "pkg/retry"},
	"pkg/actions/sql":         {"pkg/actions", "pkg/actions/egress", "pkg/actions/secret", "pkg/retry"},
	"pkg/actions/cached":      {"pkg/actions", "pkg/cachekv"}, // no adapter: it wraps them
	"pkg/actions/cache":       {"pkg/actions", "pkg/retry"},
	"pkg/actions/email":       {"pkg/actions", "pkg/actions/egress", "pkg/actions/secret", "pkg/retry"},
	"pkg/actions/webhook":     {"pkg/actions", "pkg/actions/egress", "pkg/actions/secret", "pkg/retry"},

	"streams": {"pkg/events"},

	// The rules in force.
	"internal/generations": {"internal/natskv", "internal/natsread", "pkg/events", "pkg/observers"},

	// What an operator asks of a leader.
	"internal/ask": {"pkg/ingest", "pkg/pgcdc"},

	// The leaves.
	"internal/config":         {"pkg/actions", "pkg/events"},
	"internal/dev/natsserver": {},
	"internal/demo":           {},
	"internal/freeport":       {},
	"internal/lease":          {"internal/natskv"},
	"internal/natskv":         {},
	"internal/natsread":       {},
	"internal/postgres":       {"internal/freeport"},
	"internal/telemetry":      {},
	"internal/terminal":       {},

	// For tests alone: nothing above may name them.
	"internal/eventstest": {"pkg/events"},
	"internal/natstest":   {"internal/dev/natsserver", "internal/freeport"},
	"internal/pgtest":     {"internal/postgres"},
	"internal/stall":      {},
	"test":                {},
	"test/bench":          {anything},
	"test/chaos":          {anything},
	"test/conformance":    {anything},
	"test/e2e":            {anything},
	"test/elasticsearch":  {},
	"test/harness":        {anything},
	"test/compose":        {anything},
	"test/metrics":        {anything},
}

// anything is for those who put the whole together.
const anything = "*"

// standardLibraryOnly are what others may build upon without taking anything else in.
var standardLibraryOnly = []string{"pkg/events", "pkg/retry", "pkg/actions"}

func TestImportsRunOneWay(t *testing.T) {
	packages := readImports(t, "..")
	for name, paths := range packages {
		allowed, known := imports[name]
		if !known {
			t.Errorf("package %s is not in the table of imports", name)
			continue
		}
		for _, path := range paths {
			imported, ours := strings.CutPrefix(path, module)
			if ours && !slices.Contains(allowed, anything) && !slices.Contains(allowed, imported) {
				t.Errorf("package %s may not import %s: the table of imports forbids it", name, imported)
			}
			if !ours && slices.Contains(standardLibraryOnly, name) && strings.Contains(strings.Split(path, "/")[0], ".") {
				t.Errorf("package %s may import the standard library only, not %s", name, path)
			}
		}
	}
	if len(packages) < 10 {
		t.Errorf("only %d packages were seen", len(packages))
	}
}

func TestTableOfImportsHasNoCycle(t *testing.T) {
	var visit func(name string, above []string)
	visit = func(name string, above []string) {
		if slices.Contains(above, name) {
			t.Fatalf("the table of imports allows a cycle: %s", strings.Join(append(above, name), " → "))
		}
		for _, next := range imports[name] {
			visit(next, append(slices.Clone(above), name))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(imports)) {
		visit(name, nil)
	}
}

// readImports gives what the files of each folder with Go code import, without those of tests. It reads the files itself, so that
// the test is run again when one changes.
func readImports(t *testing.T, root string) map[string][]string {
	t.Helper()
	packages := map[string][]string{}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if path != root && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata" || hasModule(path)) {
				return filepath.SkipDir
			}
			return nil
		}
		if filepath.Ext(path) != ".go" {
			return nil
		}
		folder, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		name := filepath.ToSlash(folder)
		packages[name] = append(packages[name], importsOf(t, path)...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return packages
}

func hasModule(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil
}

func importsOf(t *testing.T, path string) []string {
	t.Helper()
	if strings.HasSuffix(path, "_test.go") {
		return nil
	}
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, spec := range file.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, imported)
	}
	return paths
}
