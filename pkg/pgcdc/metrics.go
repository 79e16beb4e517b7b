package pgcdc

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tributary-dev/tributary/pkg/events"
)

// Metrics are the collectors of all PostgreSQL sources of a process. A nil *Metrics counts into nothing.
type Metrics struct {
	changes      *prometheus.CounterVec
	transactions *prometheus.CounterVec
	textValues   *prometheus.CounterVec
	snapshotRows *prometheus.CounterVec
	oversize     *prometheus.CounterVec
	filtered     *prometheus.CounterVec
	filterErrors *prometheus.CounterVec
	received     *prometheus.GaugeVec
	confirmed    *prometheus.GaugeVec
	heartbeat    *prometheus.GaugeVec
	lagBytes     *prometheus.GaugeVec
	lagSeconds   *prometheus.GaugeVec
	retained     *prometheus.GaugeVec
	safe         *prometheus.GaugeVec
	walStatus    *prometheus.GaugeVec

	snapshotBytes *prometheus.CounterVec
	snapshotDone  *prometheus.GaugeVec
	snapshotLeft  *prometheus.GaugeVec
}

// NewMetrics makes the collectors, and registers them where registerer is not nil.
func NewMetrics(registerer prometheus.Registerer) *Metrics {
	source := []string{"source"}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tributary_ingest_" + name, Help: help}, append(source, labels...))
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tributary_ingest_" + name, Help: help}, append(source, labels...))
	}
	m := &Metrics{
		changes:      counter("changes_total", "Changes that were read and are to be published.", "op"),
		transactions: counter("transactions_total", "Committed transactions that held a change to be published."),
		textValues:   counter("text_values_total", "Values that could not be decoded, and were passed as PostgreSQL's text."),
		snapshotRows: counter("snapshot_rows_total", "Rows that were read by snapshots."),
		oversize:     counter("oversize_total", "Events that were too large, and went on as stubs."),
		filtered:     counter("filtered_total", "Changes that were read and are not published, by what left them out.", "why"),
		filterErrors: counter("filter_errors_total", "Changes that sources[].filter could not judge, and that were published."),
		received:     gauge("wal_received_lsn", "How far the write-ahead log was received, in bytes."),
		confirmed:    gauge("wal_confirmed_lsn", "How far PostgreSQL was told to forget the write-ahead log, in bytes."),
		heartbeat:    gauge("heartbeat_seconds", "Round trip of the last heartbeat through the write-ahead log."),
		lagBytes:     gauge("lag_bytes", "How much the database has written and EVENTS does not hold yet, as the leader sees it."),
		lagSeconds:   gauge("lag_seconds", "How long ago the database had written no more than EVENTS holds now, as the leader sees it; 0 where all is stored."),
		retained:     gauge("wal_retained_bytes", "How much of the write-ahead log the slot keeps, as the leader sees it."),
		safe:         gauge("wal_safe_bytes", "How much may be written before the slot is in danger, as the leader sees it; -1 where nothing limits what is kept."),
		walStatus:    gauge("wal_status", "1 for the slot's wal_status, as the leader sees it.", "status"),

		snapshotBytes: counter("snapshot_bytes_total", "Bytes of the values of rows that were read by snapshots."),
		snapshotDone:  gauge("snapshot_done_ratio", "How much of the rows that are to be read was read, by estimate; 1 where none are to be read."),
		snapshotLeft:  gauge("snapshot_left_seconds", "How long the reading of rows may still take; 0 where none are to be read, and where nobody knows."),
	}
	if registerer != nil {
		registerer.MustRegister(m.changes, m.transactions, m.textValues, m.snapshotRows, m.oversize, m.filtered, m.filterErrors, m.received, m.confirmed, m.heartbeat,
			m.snapshotBytes, m.snapshotDone, m.snapshotLeft, m.lagBytes, m.lagSeconds, m.retained, m.safe, m.walStatus)
	}
	return m
}

// sourceMetrics are those of one source, at zero from the start.
type sourceMetrics struct {
	changes                                          map[events.Op]prometheus.Counter
	filtered                                         map[string]prometheus.Counter // by why
	transactions, textValues, snapshotRows, oversize prometheus.Counter
	filterErrors                                     prometheus.Counter
	received, confirmed, heartbeat                   prometheus.Gauge
	lagBytes, lagSeconds, retained, safe             prometheus.Gauge
	walStatus                                        map[string]prometheus.Gauge

	snapshotBytes              prometheus.Counter
	snapshotDone, snapshotLeft prometheus.Gauge
}

func (m *Metrics) of(source string) *sourceMetrics {
	if m == nil {
		m = NewMetrics(nil)
	}
	s := &sourceMetrics{
		changes:      map[events.Op]prometheus.Counter{},
		filtered:     map[string]prometheus.Counter{},
		filterErrors: m.filterErrors.WithLabelValues(source),
		transactions: m.transactions.WithLabelValues(source),
		textValues:   m.textValues.WithLabelValues(source),
		snapshotRows: m.snapshotRows.WithLabelValues(source),
		oversize:     m.oversize.WithLabelValues(source),
		received:     m.received.WithLabelValues(source),
		confirmed:    m.confirmed.WithLabelValues(source),
		heartbeat:    m.heartbeat.WithLabelValues(source),
		lagBytes:     m.lagBytes.WithLabelValues(source),
		lagSeconds:   m.lagSeconds.WithLabelValues(source),
		retained:     m.retained.WithLabelValues(source),
		safe:         m.safe.WithLabelValues(source),
		walStatus:    map[string]prometheus.Gauge{},

		snapshotBytes: m.snapshotBytes.WithLabelValues(source),
		snapshotDone:  m.snapshotDone.WithLabelValues(source),
		snapshotLeft:  m.snapshotLeft.WithLabelValues(source),
	}
	for _, op := range events.Ops() {
		s.changes[op] = m.changes.WithLabelValues(source, string(op))
	}
	for _, status := range walStatuses {
		s.walStatus[status] = m.walStatus.WithLabelValues(source, status)
	}
	for _, why := range []string{whyTable, whyOp, whyFilter} {
		s.filtered[why] = m.filtered.WithLabelValues(source, why)
	}
	return s
}

// forgetStanding resets what only the leader sees.
func (m *sourceMetrics) forgetStanding() {
	for _, g := range []prometheus.Gauge{m.lagBytes, m.lagSeconds, m.retained, m.safe} {
		g.Set(0)
	}
	for _, g := range m.walStatus {
		g.Set(0)
	}
}
