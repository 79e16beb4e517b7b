package jobs

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tributary-dev/tributary/pkg/deadletter"
)

// Metrics are what a service tells of its jobs. They exist at zero from the start.
type Metrics struct {
	enqueued    prometheus.Counter
	executions  *prometheus.CounterVec // by outcome
	interrupted prometheus.Counter
	stale       prometheus.Counter
	dead        *prometheus.CounterVec // by reason
	alerts      prometheus.Counter
	running     prometheus.Gauge
	waiting     prometheus.Gauge
	swept       prometheus.Counter
	deferred    prometheus.Counter
	waitingFor  prometheus.Gauge
	unparked    prometheus.Counter
	parked      prometheus.Gauge
	lanesHeld   prometheus.Gauge
	seconds     prometheus.Histogram
}

// Outcomes of executions.
const (
	outcomeDone      = "done"
	outcomeFailed    = "failed"
	outcomePermanent = "permanent"
	outcomeReleased  = "released" // cut short by a shutdown; not counted as an attempt
	outcomeLost      = "lost"     // another runner took the job over meanwhile; the result was dropped
)

// NewMetrics makes the metrics and registers them, where registry is not nil. It panics where they are registered
// already.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "tributary_jobs_" + name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "tributary_jobs_" + name, Help: help})
	}
	vector := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tributary_jobs_" + name, Help: help}, []string{label})
	}
	m := &Metrics{
		enqueued:    counter("enqueued_total", "Jobs that were enqueued and not known before."),
		executions:  vector("executions_total", "Executions of jobs, by how they ended.", "outcome"),
		interrupted: counter("interrupted_total", "Executions whose runner was lost."),
		stale:       counter("stale_tickets_total", "Tickets that were dropped because there was nothing to do for them."),
		dead:        vector("dead_total", "Jobs that died, by reason.", "reason"),
		alerts:      counter("alerts_total", "Jobs that died and whose observer asks for an alert."),
		running:     gauge("running", "Jobs that are being executed here."),
		waiting:     gauge("waiting", "Tickets that wait here until they are due."),
		deferred:    counter("deferred_total", "Times that a job was put off because its circuit was open; nothing is charged for that."),
		waitingFor:  gauge("deferred", "Jobs that wait for circuits, as the sweeper knows; 0 where another process sweeps."),
		swept:       counter("swept_total", "Tickets that the sweeper wrote, for jobs that had lost theirs or had waited for a circuit."),
		unparked:    counter("unparked_total", "Jobs whose turn in their lane has come."),
		parked:      gauge("parked", "Jobs that wait behind another one of their lane; told by the sweeping jobrunner, 0 by the others."),
		lanesHeld:   gauge("lanes_held", "Lanes that wait until a person retries or removes a dead letter; told by the sweeping jobrunner, 0 by the others."),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "tributary_jobs_execution_seconds", Help: "Duration of executions of jobs.",
			Buckets: []float64{.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}),
	}
	for _, outcome := range []string{outcomeDone, outcomeFailed, outcomePermanent, outcomeReleased, outcomeLost} {
		m.executions.WithLabelValues(outcome)
	}
	for _, reason := range []deadletter.Reason{deadletter.Permanent, deadletter.Exhausted, deadletter.Crashed, deadletter.Undecodable} {
		m.dead.WithLabelValues(string(reason))
	}
	if registry != nil {
		registry.MustRegister(m.enqueued, m.executions, m.interrupted, m.stale, m.dead, m.alerts, m.running, m.waiting,
			m.swept, m.deferred, m.waitingFor, m.unparked, m.parked, m.lanesHeld, m.seconds)
	}
	return m
}
