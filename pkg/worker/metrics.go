package worker

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tributary-dev/tributary/pkg/dedupkv"
)

// Metrics are what a worker tells of itself. They exist at zero from the start.
type Metrics struct {
	events     prometheus.Counter
	effects    *prometheus.CounterVec // by outcome
	claims     *prometheus.CounterVec // by state
	alerts     prometheus.Counter
	repins     prometheus.Counter
	parked     prometheus.Counter
	parkedLost prometheus.Counter
	waiting    prometheus.Gauge // parked effects
	ranges     prometheus.Gauge
	oldest     prometheus.Gauge
	inFlight   prometheus.Gauge
	partitions prometheus.Gauge
	lanes      prometheus.Gauge
	seconds    prometheus.Histogram
	above      prometheus.Gauge

	// What every effect moves, found once.
	outcomes map[dedupkv.Result]prometheus.Counter
	found    [dedupkv.Crashed + 1]prometheus.Counter // by state of a claim
}

// Outcomes of effects beside dedupkv's results, and states of claims beside its own.
const (
	outcomeLost     = "lost"     // somebody else took the claim over meanwhile
	outcomeParked   = "parked"   // its circuit is open: it waits in a range of EVENTS
	outcomeReleased = "released" // it ended with the worker, or the hold was in doubt before it began
	claimNone       = "none"     // KV was away, and dedup.on_error is run
	claimFailed     = "failed"
)

// NewMetrics makes the metrics, and registers them where reg is not nil.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	const prefix = "tributary_worker_"
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: prefix + name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: prefix + name, Help: help})
	}
	m := &Metrics{
		outcomes: make(map[dedupkv.Result]prometheus.Counter),
		events:   counter("events_total", "Events that were delivered for the first time under a hold."),
		effects: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: prefix + "effects_total", Help: "Effects, by what became of them.",
		}, []string{"outcome"}),
		claims: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: prefix + "claims_total", Help: "Claims, by what they found.",
		}, []string{"state"}),
		alerts:     counter("alerts_total", "Effects that failed for good and whose observer wants an alert."),
		repins:     counter("repins_total", "Times that a partition had to be held anew."),
		parked:     counter("parked_total", "Effects that were put off because their circuit was open, or their observer paused, each as often as it was."),
		parkedLost: counter("parked_lost_total", "Gaps that EVENTS has below parked effects: each is a dead letter of reason orphaned."),
		waiting:    gauge("parked", "Effects that wait for circuits, or for paused observers, about, in the partitions of this worker."),
		ranges:     gauge("parked_ranges", "Ranges of EVENTS that wait for circuits, or for paused observers, in the partitions of this worker."),
		oldest:     gauge("parked_oldest_seconds", "For how long EVENTS has had the oldest event that waits for a circuit, or a paused observer; 0 where none does."),
		inFlight:   gauge("in_flight", "Effects that are under way."),
		partitions: gauge("partitions_owned", "Partitions whose events come to this worker."),
		lanes:      gauge("lanes", "Lanes with effects in them."),
		above:      gauge("above_watermark", "Events in hand that are not below their watermark, settled or not: many where one is stuck."),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: prefix + "effect_seconds", Help: "How long the attempts of actions took.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}),
	}
	for _, result := range []dedupkv.Result{dedupkv.Done, dedupkv.Handed, dedupkv.Dead, dedupkv.Skipped, outcomeDryRun, outcomeLost, outcomeReleased, outcomeParked} {
		m.outcomes[result] = m.effects.WithLabelValues(string(result))
	}
	for _, state := range []dedupkv.State{dedupkv.Fresh, dedupkv.TakenOver, dedupkv.Settled, dedupkv.Crashed} {
		m.found[state] = m.claims.WithLabelValues(state.String())
	}
	for _, state := range []string{claimNone, claimFailed} {
		m.claims.WithLabelValues(state)
	}
	if reg != nil {
		reg.MustRegister(m.events, m.effects, m.claims, m.alerts, m.repins, m.parked, m.parkedLost, m.waiting, m.ranges, m.oldest, m.inFlight, m.partitions, m.lanes, m.seconds, m.above)
	}
	return m
}

func (m *Metrics) outcome(result dedupkv.Result) prometheus.Counter { return m.outcomes[result] }

func (m *Metrics) claim(state dedupkv.State) prometheus.Counter { return m.found[state] }
