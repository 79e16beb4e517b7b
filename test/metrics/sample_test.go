package metrics

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/tributary-dev/tributary/test/harness"
)

// family is what was seen of one metric.
type family struct {
	name, kind, help string
	labels           map[string]map[string]bool // name → values
	services         map[string]bool
	series           int  // the most in one process
	moved            bool // some series was not zero
}

// samples gathers what services tell until it is stopped.
type samples struct {
	end  chan struct{}
	done sync.WaitGroup

	mu    sync.Mutex
	all   map[string]*family
	first map[string][]string // by service: the names at its first answer
}

// sample asks services, again and again, for their metrics.
func sample(t *testing.T, s *harness.System, names []string) *samples {
	seen := &samples{end: make(chan struct{}), all: map[string]*family{}, first: map[string][]string{}}
	seen.done.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			for _, name := range names {
				seen.take(t, s, name)
			}
			select {
			case <-seen.end:
				return
			case <-tick.C:
			}
		}
	})
	return seen
}

// stop ends the sampling.
func (seen *samples) stop() {
	close(seen.end)
	seen.done.Wait()
}

func (seen *samples) take(t *testing.T, s *harness.System, name string) {
	status, text := s.Get(name, "/metrics")
	if status != 200 {
		return
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	service, _, _ := strings.Cut(name, "-")
	seen.mu.Lock()
	defer seen.mu.Unlock()
	var names []string
	for metric, f := range families {
		if strings.HasPrefix(metric, "tributary_") {
			names = append(names, metric)
			seen.note(service, f)
		} else if !strings.HasPrefix(metric, "go_") && !strings.HasPrefix(metric, "process_") && !strings.HasPrefix(metric, "promhttp_") {
			t.Errorf("%s tells of %s, which has no prefix of ours", name, metric)
		}
	}
	if _, known := seen.first[service]; !known && families["tributary_ready"] != nil {
		seen.first[service] = names
	}
}

func (seen *samples) note(service string, f *dto.MetricFamily) {
	known := seen.all[f.GetName()]
	if known == nil {
		known = &family{
			name: f.GetName(), kind: strings.ToLower(f.GetType().String()), help: f.GetHelp(),
			labels: map[string]map[string]bool{}, services: map[string]bool{},
		}
		seen.all[f.GetName()] = known
	}
	known.services[service] = true
	known.series = max(known.series, len(f.GetMetric()))
	for _, m := range f.GetMetric() {
		known.moved = known.moved || m.GetCounter().GetValue() != 0 || m.GetGauge().GetValue() != 0 || m.GetHistogram().GetSampleCount() != 0
		for _, pair := range m.GetLabel() {
			if known.labels[pair.GetName()] == nil {
				known.labels[pair.GetName()] = map[string]bool{}
			}
			known.labels[pair.GetName()][pair.GetValue()] = true
		}
	}
}

func (seen *samples) families() map[string]*family { return seen.all }

// late gives, by service, the metrics that were not there at its first answer.
func (seen *samples) late() map[string]string {
	late := map[string]string{}
	for service, first := range seen.first {
		var missing []string
		for name, f := range seen.all {
			if f.services[service] && !slices.Contains(first, name) {
				missing = append(missing, name)
			}
		}
		if len(missing) > 0 {
			slices.Sort(missing)
			late[service] = strings.Join(missing, ", ")
		}
	}
	return late
}

const preface = `# Metrics

Every service tells them on ` + "`/metrics`" + ` of its own address (` + "`http.listen`" + `), beside those of Go (` + "`go_*`" + `) and of the process
(` + "`process_*`" + `). They are there from the start, at zero. This page is written by a test that drives all services and watches each
metric move: ` + "`go test ./test/metrics -update`" + `.

| metric | type | labels | of | meaning |
|---|---|---|---|---|
`

// open are the labels whose values depend on the deployment.
var open = []string{"circuit", "source", "version", "go", "service"}

// render writes the page.
func render(all map[string]*family) string {
	var b strings.Builder
	b.WriteString(preface)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		f := all[name]
		var labels []string
		for _, label := range slices.Sorted(maps.Keys(f.labels)) {
			text := "`" + label + "`"
			if !slices.Contains(open, label) && label != "condition" {
				text += ": " + strings.Join(slices.Sorted(maps.Keys(f.labels[label])), ", ")
			}
			labels = append(labels, text)
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", name, f.kind, strings.Join(labels, "; "),
			strings.Join(slices.Sorted(maps.Keys(f.services)), ", "), f.help)
	}
	return b.String()
}
