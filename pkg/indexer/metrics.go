package indexer

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tributary-dev/tributary/pkg/deadletter"
)

// Metrics are what a service tells of its indexing. They exist at zero from the start.
type Metrics struct {
	indexed       prometheus.Counter
	duplicates    prometheus.Counter
	retried       prometheus.Counter
	dead          *prometheus.CounterVec // by reason
	bulkSeconds   prometheus.Histogram
	heldBytes     prometheus.Gauge
	lag           prometheus.Gauge
	searches      *prometheus.CounterVec // by outcome
	searchSeconds prometheus.Histogram
	dropped       prometheus.Counter
	restarts      prometheus.Counter
}

// Outcomes of searches.
const (
	searchDone    = "done"
	searchRefused = "refused" // the question was wrong
	searchFailed  = "failed"
)

// NewMetrics makes the metrics and registers them, where registry is not nil. It panics where they are registered
// already.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "tributary_indexer_" + name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "tributary_indexer_" + name, Help: help})
	}
	vector := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tributary_indexer_" + name, Help: help}, []string{label})
	}
	seconds := func(name, help string) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "tributary_indexer_" + name, Help: help,
			Buckets: []float64{.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		})
	}
	m := &Metrics{
		indexed:       counter("indexed_total", "Documents that the index took."),
		duplicates:    counter("duplicates_total", "Documents that the index had already."),
		retried:       counter("retried_total", "Documents that were to be written again, counted each time."),
		dead:          vector("dead_total", "Events that became dead letters, by reason.", "reason"),
		bulkSeconds:   seconds("bulk_seconds", "Duration of writes of a bulk, whatever their outcome."),
		heldBytes:     gauge("held_bytes", "Bytes of events and documents that are held here until they are settled."),
		lag:           gauge("lag", "Events that are not indexed yet, of all indexers together."),
		searches:      vector("searches_total", "Questions that were asked, by outcome.", "outcome"),
		searchSeconds: seconds("search_seconds", "Duration of searches."),
		dropped:       counter("dropped_months_total", "Months that retention removed."),
		restarts:      counter("restarts_total", "Times that indexing started over, because the index was another one than before, or months of it were removed."),
	}
	for _, outcome := range []string{searchDone, searchRefused, searchFailed} {
		m.searches.WithLabelValues(outcome)
	}
	for _, reason := range []deadletter.Reason{deadletter.Mapping, deadletter.Undecodable} {
		m.dead.WithLabelValues(string(reason))
	}
	if registry != nil {
		registry.MustRegister(m.indexed, m.duplicates, m.retried, m.dead, m.bulkSeconds, m.heldBytes, m.lag, m.searches,
			m.searchSeconds, m.dropped, m.restarts)
	}
	return m
}
