package circuit

import (
	"maps"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are what a process tells of its circuits. They exist at zero from the start, but for those with names of
// endpoints.
type Metrics struct {
	state  *prometheus.GaugeVec // by circuit
	open   prometheus.Gauge
	opened prometheus.Counter
}

// mostNamed circuits have a gauge of their own. The others share one, which tells of the worst.
const (
	mostNamed = 50
	others    = "other"
)

// NewMetrics makes the metrics, and registers them where reg is not nil.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		state: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tributary_circuit_state", Help: "How circuits stand: 1 is probed, 2 is open. Those that are closed are left out; of more than 50, other has the rest.",
		}, []string{"circuit"}),
		open: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tributary_circuits_open", Help: "Circuits that are not closed, as this process knows.",
		}),
		opened: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tributary_circuits_opened_total", Help: "Times that the calls of this process, and what it heard of those of others, opened a circuit.",
		}),
	}
	m.state.WithLabelValues(others)
	if reg != nil {
		reg.MustRegister(m.state, m.open, m.opened)
	}
	return m
}

// measure counts the circuits that are not closed, and sets the gauges. The caller holds mu.
func (c *Circuits) measure() {
	c.metrics.state.Reset()
	open, rest := 0, 0.0
	for _, name := range slices.Sorted(maps.Keys(c.all)) {
		there := c.all[name]
		value := 0.0
		switch there.state {
		case Closed:
			continue
		case Probing:
			value = 1
		case Open:
			value = 2
		}
		if open++; open <= mostNamed {
			c.metrics.state.WithLabelValues(name).Set(value)
		} else {
			rest = max(rest, value)
		}
	}
	c.metrics.state.WithLabelValues(others).Set(rest)
	c.metrics.open.Set(float64(open))
	c.unwell.Store(int32(open)) //nolint:gosec // there is memory for fewer
}
