package query

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

func TestQueriesOfTheDocumentsAreUnderstood(t *testing.T) {
	page, err := os.ReadFile("../../../docs/search.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(page), "```query\n")
	block, _, _ = strings.Cut(block, "```")
	lines := strings.Split(strings.TrimSpace(block), "\n")
	if len(lines) < 20 {
		t.Fatalf("there are %d queries", len(lines))
	}
	explained := regexp.MustCompile(`^(.*?) {2,}\S`)
	for _, line := range lines {
		text := explained.FindStringSubmatch(line)
		if text == nil {
			t.Errorf("nothing is said about %q", line)
			continue
		}
		if _, err := Parse(text[1], now()); err != nil {
			t.Errorf("%s: %v", text[1], err)
		}
	}
	for _, f := range Fields() {
		if !strings.Contains(string(page), "`"+f.Name+"`") {
			t.Errorf("the page does not name the field %s", f.Name)
		}
	}
}
