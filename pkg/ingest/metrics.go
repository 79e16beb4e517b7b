package ingest

import "github.com/prometheus/client_golang/prometheus"

// Metrics counts what the pipelines of a process do, by source.
type Metrics struct {
	published      *prometheus.CounterVec
	publishedBytes *prometheus.CounterVec
	doubts         *prometheus.CounterVec
	full           *prometheus.CounterVec
	takeovers      *prometheus.CounterVec
	seconds        *prometheus.HistogramVec
	waiting        *prometheus.GaugeVec
	waitingEvents  *prometheus.GaugeVec
	inFlight       *prometheus.GaugeVec
	leading        *prometheus.GaugeVec
	stored         *prometheus.GaugeVec
	quarantined    *prometheus.CounterVec
	mirrorSaves    *prometheus.CounterVec
	mirrorFailures *prometheus.CounterVec
	mirrorLate     *prometheus.GaugeVec
}

// NewMetrics registers the metrics with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	counter := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tributary_ingest_" + name, Help: help}, []string{"source"})
	}
	gauge := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tributary_ingest_" + name, Help: help}, []string{"source"})
	}
	m := &Metrics{
		published:      counter("published_total", "Events that EVENTS acknowledged."),
		publishedBytes: counter("published_bytes_total", "Bytes of the envelopes that EVENTS acknowledged."),
		doubts:         counter("doubts_total", "Publishes whose answer did not come, settled by taking over."),
		full:           counter("full_total", "Publishes that were refused because EVENTS is full."),
		takeovers:      counter("takeovers_total", "Times this process took the lead."),
		waiting:        gauge("waiting_bytes", "Bytes that were read and are not stored."),
		waitingEvents:  gauge("waiting_events", "Events that were read and are not stored."),
		inFlight:       gauge("in_flight_events", "Events that are being stored."),
		leading:        gauge("leading", "1 while this process leads the source."),
		stored:         gauge("stored_lsn", "Every commit that begins before it is stored."),
		mirrorSaves:    counter("mirror_saves_total", "Positions that were saved in PostgreSQL, where ingest.checkpoints is on."),
		mirrorFailures: counter("mirror_failures_total", "Calls of the mirror of positions that failed."),
		mirrorLate:     gauge("mirror_late_seconds", "How long the oldest position has waited for the mirror; 0 where none waits."),
		quarantined:    counter("quarantined_total", "Messages that could not be events and lie in DEADLETTERS."),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "tributary_ingest_publish_seconds", Help: "Time of one publishing step, single or batch.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 15),
		}, []string{"source"}),
	}
	reg.MustRegister(m.published, m.publishedBytes, m.doubts, m.full, m.takeovers, m.seconds, m.waiting, m.waitingEvents, m.inFlight, m.leading, m.stored, m.quarantined,
		m.mirrorSaves, m.mirrorFailures, m.mirrorLate)
	return m
}

// sourceMetrics is Metrics for one source, its labels resolved.
type sourceMetrics struct {
	published, publishedBytes, doubts, full, takeovers, quarantined prometheus.Counter
	mirrorSaves, mirrorFailures                                     prometheus.Counter
	waitingEvents, inFlight                                         prometheus.Gauge
	waiting, leading, stored, mirrorLate                            prometheus.Gauge
	seconds                                                         prometheus.Observer
}

func (m *Metrics) of(source string) *sourceMetrics {
	return &sourceMetrics{
		published: m.published.WithLabelValues(source), publishedBytes: m.publishedBytes.WithLabelValues(source),
		doubts: m.doubts.WithLabelValues(source), full: m.full.WithLabelValues(source),
		takeovers: m.takeovers.WithLabelValues(source), quarantined: m.quarantined.WithLabelValues(source),
		waiting: m.waiting.WithLabelValues(source), waitingEvents: m.waitingEvents.WithLabelValues(source), inFlight: m.inFlight.WithLabelValues(source),
		leading: m.leading.WithLabelValues(source),
		stored:  m.stored.WithLabelValues(source), seconds: m.seconds.WithLabelValues(source),
		mirrorSaves: m.mirrorSaves.WithLabelValues(source), mirrorFailures: m.mirrorFailures.WithLabelValues(source),
		mirrorLate: m.mirrorLate.WithLabelValues(source),
	}
}
