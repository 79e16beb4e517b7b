package dedupkv

import "github.com/prometheus/client_golang/prometheus"

// Metrics are what ledgers tell of themselves. They exist at zero from the start.
type Metrics struct {
	group   prometheus.Histogram
	seconds prometheus.Histogram
}

// NewMetrics makes the metrics, and registers them where reg is not nil.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		group: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "tributary_dedup_group_size", Help: "Claims, results and other changes that one write of a ledger took in.",
			Buckets: []float64{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024},
		}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "tributary_dedup_write_seconds", Help: "How long the writes of ledgers took.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, 1, 5},
		}),
	}
	if reg != nil {
		reg.MustRegister(m.group, m.seconds)
	}
	return m
}
