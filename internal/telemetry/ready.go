package telemetry

import (
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// Ready is what must hold for a service to do its job: named conditions, all of which are false until they are set. It is also
// the metric tributary_ready. It is safe for concurrent use.
type Ready struct {
	log  *slog.Logger
	desc *prometheus.Desc

	mu         sync.Mutex
	conditions []Condition // in order of their names; guarded by mu
}

// Condition is one of the things that must hold.
type Condition struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	Why  string `json:"why"` // in words, for a person
}

// NewReady makes conditions that do not hold yet. A change of one is logged.
func NewReady(log *slog.Logger, names ...string) *Ready {
	r := &Ready{
		log:  log,
		desc: prometheus.NewDesc("tributary_ready", "1 while the condition holds; the service is ready while all do.", []string{"condition"}, nil),
	}
	for _, name := range names {
		i, found := r.find(name)
		if !found {
			r.conditions = slices.Insert(r.conditions, i, Condition{Name: name, Why: "not started yet"})
		}
	}
	return r
}

// Set says whether a condition holds, and why; a new name is a new condition.
func (r *Ready) Set(name string, ok bool, why string) {
	r.mu.Lock()
	i, found := r.find(name)
	if !found {
		r.conditions = slices.Insert(r.conditions, i, Condition{Name: name})
	}
	changed := !found || r.conditions[i].OK != ok
	r.conditions[i].OK, r.conditions[i].Why = ok, why
	r.mu.Unlock()
	switch {
	case !changed:
	case !ok && !found: // it has to begin somehow
		r.log.Debug("condition does not hold yet", "condition", name, "why", why)
	case ok:
		r.log.Info("condition holds", "condition", name, "why", why)
	default:
		r.log.Warn("condition does not hold", "condition", name, "why", why)
	}
}

// Conditions gives all of them by name, and whether all hold. Where there is none, nothing has been promised: not ready.
func (r *Ready) Conditions() (all []Condition, ready bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ready = len(r.conditions) > 0 && !slices.ContainsFunc(r.conditions, func(c Condition) bool { return !c.OK })
	return slices.Clone(r.conditions), ready
}

func (r *Ready) find(name string) (int, bool) {
	return slices.BinarySearchFunc(r.conditions, name, func(c Condition, name string) int { return strings.Compare(c.Name, name) })
}

// Describe is of prometheus.Collector.
func (r *Ready) Describe(to chan<- *prometheus.Desc) { to <- r.desc }

// Collect is of prometheus.Collector.
func (r *Ready) Collect(to chan<- prometheus.Metric) {
	all, _ := r.Conditions()
	for _, condition := range all {
		value := 0.0
		if condition.OK {
			value = 1
		}
		to <- prometheus.MustNewConstMetric(r.desc, prometheus.GaugeValue, value, condition.Name)
	}
}
