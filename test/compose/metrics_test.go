package compose

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const dataSource = "prometheus" // its uid

// documented is what docs/metrics.md, which a test holds against the services, says of each metric: its type and labels.
func documented(t *testing.T) map[string]metric {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "docs/metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]metric{
		"up": {"gauge", nil}, "process_resident_memory_bytes": {"gauge", nil}, "process_cpu_seconds_total": {"counter", nil}, "go_goroutines": {"gauge", nil},
	}
	for _, row := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\| (\\w+) \\| ([^|]*) \\|").FindAllStringSubmatch(string(text), -1) {
		var labels []string
		for _, label := range regexp.MustCompile("`(\\w+)`").FindAllStringSubmatch(row[3], -1) {
			labels = append(labels, label[1])
		}
		name, kind := row[1], row[2]
		if kind == "histogram" {
			all[name+"_count"], all[name+"_sum"] = metric{"counter", labels}, metric{"counter", labels}
			name, labels = name+"_bucket", append(labels, "le")
		}
		all[name] = metric{kind, labels}
	}
	return all
}

type metric struct {
	kind   string
	labels []string
}

var (
	words      = regexp.MustCompile(`[a-zA-Z_:][a-zA-Z0-9_:]*`)
	texts      = regexp.MustCompile(`"[^"]*"`)
	selectors  = regexp.MustCompile(`\b(\w+)\{([^}]*)\}`)
	groupings  = regexp.MustCompile(`\b(by|without|on|ignoring) \(([^)]*)\)`)
	inBrackets = regexp.MustCompile(`\[[^\]]*\]`)
	rated      = regexp.MustCompile(`\b(rate|increase)\((\w+)`)
	offsets    = regexp.MustCompile(`\boffset \w+`)

	// What is no name of a metric in the expressions: PromQL's own words.
	language = []string{
		"sum", "max", "count", "by", "and", "or", "vector", "rate", "increase", "changes", "histogram_quantile", "min_over_time",
	}
	given = []string{"job", "instance"} // labels that Prometheus adds
)

// judge says what is wrong in an expression.
func judge(expression string, all map[string]metric) (wrong []string) {
	if strings.Count(expression, "(") != strings.Count(expression, ")") || strings.Count(expression, "{") != strings.Count(expression, "}") {
		wrong = append(wrong, "its brackets do not match")
	}
	for _, selector := range selectors.FindAllStringSubmatch(expression, -1) {
		for _, label := range words.FindAllString(texts.ReplaceAllString(selector[2], ""), -1) {
			if m := all[selector[1]]; !slices.Contains(m.labels, label) && !slices.Contains(given, label) {
				wrong = append(wrong, fmt.Sprintf("%s has no label %s", selector[1], label))
			}
		}
	}
	for _, r := range rated.FindAllStringSubmatch(expression, -1) {
		if m := all[r[2]]; m.kind != "counter" && m.kind != "histogram" {
			wrong = append(wrong, fmt.Sprintf("%s of %s, which is no counter", r[1], r[2]))
		}
	}
	var grouped []string
	for _, grouping := range groupings.FindAllStringSubmatch(expression, -1) {
		grouped = append(grouped, words.FindAllString(grouping[2], -1)...)
	}
	bare := selectors.ReplaceAllString(expression, "$1")
	bare = offsets.ReplaceAllString(inBrackets.ReplaceAllString(groupings.ReplaceAllString(bare, ""), ""), "")
	var used []string
	for _, word := range words.FindAllString(texts.ReplaceAllString(bare, ""), -1) {
		if slices.Contains(language, word) {
			continue
		}
		m, known := all[word]
		if !known {
			wrong = append(wrong, "no service tells of "+word)
		}
		used = append(used, m.labels...)
	}
	for _, label := range grouped {
		if !slices.Contains(used, label) && !slices.Contains(given, label) {
			wrong = append(wrong, "no metric in it has the label "+label)
		}
	}
	return wrong
}

func TestJudgeFindsWhatIsWrong(t *testing.T) {
	all := map[string]metric{"a_total": {"counter", []string{"source"}}, "b": {"gauge", nil}}
	for expression, want := range map[string]string{
		`sum by (source) (rate(a_total{source="x"}[5m])) > 3`: "",
		`max(b) > max(b offset 10m)`:                          "",
		`sum(rate(a_total[5m])`:                               "brackets",
		`sum(c_total)`:                                        "no service tells of c_total",
		`a_total{state="x"}`:                                  "a_total has no label state",
		`sum by (state) (a_total)`:                            "no metric in it has the label state",
		`rate(b[5m])`:                                         "which is no counter",
	} {
		if got := strings.Join(judge(expression, all), "; "); !strings.Contains(got, want) || (got == "") != (want == "") {
			t.Errorf("%s: got %q, want %q", expression, got, want)
		}
	}
}

func TestAlertsUseMetricsThatThereAre(t *testing.T) {
	all := documented(t)
	paths, err := filepath.Glob(filepath.Join(root, "deploy/prometheus/*.yaml"))
	if err != nil || len(paths) == 0 {
		t.Fatal("there are no rules", err)
	}
	for _, path := range paths {
		var file struct {
			Groups []struct {
				Rules []struct {
					Alert, Expr string
					Labels      map[string]string
					Annotations map[string]string
				}
			}
		}
		readYAML(t, path, &file)
		for _, group := range file.Groups {
			for _, rule := range group.Rules {
				for _, wrong := range judge(rule.Expr, all) {
					t.Errorf("%s: %s", rule.Alert, wrong)
				}
				if rule.Alert == "" || rule.Expr == "" || rule.Labels["severity"] == "" || rule.Annotations["summary"] == "" {
					t.Errorf("the rule %+v lacks a name, an expression, a severity or a summary", rule)
				}
			}
		}
	}
}

func TestDashboardsUseMetricsThatThereAre(t *testing.T) {
	all := documented(t)
	paths, err := filepath.Glob(filepath.Join(root, "deploy/grafana/dashboards/*.json"))
	if err != nil || len(paths) == 0 {
		t.Fatal("there are no dashboards", err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var dashboard struct {
			Panels []panel
		}
		if err := json.Unmarshal(text, &dashboard); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		for i, p := range dashboard.Panels {
			for _, other := range dashboard.Panels[:i] {
				if p.ID == other.ID || p.overlaps(other) {
					t.Errorf("%s: the panels %q and %q have one id or one place", path, other.Title, p.Title)
				}
			}
			if p.Type != "row" && len(p.Targets) == 0 {
				t.Errorf("%s: the panel %q shows nothing", path, p.Title)
			}
			for _, target := range p.Targets {
				if target.Datasource.UID != dataSource {
					t.Errorf("%s: the panel %q asks the source %q", path, p.Title, target.Datasource.UID)
				}
				for _, wrong := range judge(target.Expr, all) {
					t.Errorf("%s: the panel %q: %s: %s", path, p.Title, target.Expr, wrong)
				}
			}
		}
	}
}

type panel struct {
	ID          int
	Type, Title string
	GridPos     struct{ X, Y, W, H int }
	Targets     []struct {
		Expr       string
		Datasource struct{ UID string }
	}
}

func (p panel) overlaps(o panel) bool {
	a, b := p.GridPos, o.GridPos
	return a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H
}
