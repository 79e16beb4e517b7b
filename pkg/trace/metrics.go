package trace

import "github.com/prometheus/client_golang/prometheus"

// Metrics are what a service tells of its records. They exist at zero from the start.
type Metrics struct {
	records *prometheus.CounterVec // by outcome
	bytes   prometheus.Counter
}

// What becomes of records.
const (
	written    = "written"
	dropped    = "dropped"     // there was no room for them, or the server did not take them
	notSampled = "not_sampled" // traces.sample leaves them out
)

// NewMetrics makes the metrics and registers them, where registry is not nil. It panics where they are registered
// already.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	m := &Metrics{
		records: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tributary_traces_records_total", Help: "Records of evaluations and attempts, by what became of them.",
		}, []string{"outcome"}),
		bytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tributary_traces_bytes_total", Help: "Bytes of records that were written, compressed.",
		}),
	}
	for _, outcome := range []string{written, dropped, notSampled} {
		m.records.WithLabelValues(outcome)
	}
	if registry != nil {
		registry.MustRegister(m.records, m.bytes)
	}
	return m
}
