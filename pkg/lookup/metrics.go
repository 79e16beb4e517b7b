package lookup

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tributary-dev/tributary/pkg/observers"
)

// Metrics are what Lookups tell of themselves. They exist at zero from the start.
type Metrics struct {
	answers *prometheus.CounterVec // by outcome
	seconds prometheus.Histogram
}

// The outcomes of lookups.
const (
	outcomeAnswered = "answered"
	outcomeAbsent   = "absent"
	outcomeFailed   = "failed"
)

// NewMetrics makes the metrics, and registers them where reg is not nil.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		answers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tributary_lookups_total", Help: "Lookups of observers, from the cache or not, by what became of them.",
		}, []string{"outcome"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "tributary_lookup_seconds", Help: "How long lookups took that the cache did not answer.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}),
	}
	for _, outcome := range []string{outcomeAnswered, outcomeAbsent, outcomeFailed} {
		m.answers.WithLabelValues(outcome)
	}
	if reg != nil {
		reg.MustRegister(m.answers, m.seconds)
	}
	return m
}

func (m *Metrics) count(err error) {
	outcome := outcomeAnswered
	switch {
	case errors.Is(err, observers.ErrNoAnswer):
		outcome = outcomeAbsent
	case err != nil:
		outcome = outcomeFailed
	}
	m.answers.WithLabelValues(outcome).Inc()
}
