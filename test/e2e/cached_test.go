package e2e

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/test/harness"
)

// TestCachedActions runs examples/observers/cached.yaml: three actions of 100 ms at once, and again from the cache; beside it an
// observer whose lookup goes the same way.
func TestCachedActions(t *testing.T) {
	example, err := os.ReadFile("../../examples/observers/cached.yaml")
	if err != nil {
		t.Fatal(err)
	}
	s := harness.New(t, harness.Options{Observers: strings.ReplaceAll(string(example), "https://pages.example", "${receiver}") + `
  - name: looks-up
    match: {entity: public.orders, ops: [insert]}
    lookup: [{name: answer, type: http, url: "${receiver}/lookups/${after.status}"}]
    when: lookup.answer.path == "/lookups/home"
    actions: [{name: tell, type: webhook, url: "${receiver}/looked-up", body: lookup.answer}]
`})
	const each = 100 * time.Millisecond
	s.Receiver.Delay(each)
	s.Start("ingest", "worker", "jobrunner")
	s.WaitForLeader()
	s.Exec(`INSERT INTO orders (id, status) VALUES (1, 'home')`)
	effects := func(outcome string) int {
		return int(s.MetricOf("worker", "tributary_worker_effects_total", `outcome="`+outcome+`"`))
	}
	harness.Eventually(t, time.Minute, "the first row's actions are done", func() bool { return effects("done") == 4 })
	var begun []time.Time
	for _, d := range s.Receiver.Deliveries() {
		if d.Path != "/looked-up" {
			begun = append(begun, d.At)
		}
	}
	if len(begun) != 3 {
		t.Fatalf("%d requests came, want 3", len(begun))
	}
	spread := begun[2].Sub(begun[0])
	t.Logf("three actions of %s took %s at once", each, each+spread)
	if spread >= each {
		t.Errorf("the third began %s behind the first: they did not overlap", spread)
	}

	seconds, count := s.Metric("worker", "tributary_worker_effect_seconds_sum"), s.Metric("worker", "tributary_worker_effect_seconds_count")
	s.Exec(`UPDATE orders SET status = 'away'; INSERT INTO orders (id, status) VALUES (2, 'home'), (3, 'home')`)
	harness.Eventually(t, time.Minute, "what is the same is answered from the cache", func() bool {
		return s.MetricOf("worker", "tributary_actions_cached_total", `result="answered"`) == 6
	})
	harness.Eventually(t, time.Minute, "all effects are settled", func() bool { return effects("done") == 12 })
	spent := s.Metric("worker", "tributary_worker_effect_seconds_sum") - seconds
	n := s.Metric("worker", "tributary_worker_effect_seconds_count") - count
	t.Logf("%.0f effects, six of them from the cache, took %.1f ms but for the two that were sent", n, max(0, spent-2*each.Seconds())*1000)
	paths := map[string]int{}
	for _, d := range s.Receiver.Deliveries() {
		paths[d.Path]++
	}
	if paths["/html"] != 1 || paths["/feed"] != 1 || paths["/map"] != 1 || paths["/looked-up"] != 3 {
		t.Errorf("the receiver was called %v", paths)
	}
	if missed := s.MetricOf("worker", "tributary_lookups_total", `outcome="answered"`); missed != 3 {
		t.Errorf("%v lookups were answered", missed)
	}
	s.Stop("ingest", "worker", "jobrunner")
}
