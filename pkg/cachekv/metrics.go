package cachekv

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics tells what the caches of a process have counted. It is a prometheus.Collector, and safe for concurrent use.
type Metrics struct {
	lookups, evicted, stale *prometheus.Desc
	entries, bytes          *prometheus.Desc

	mu     sync.Mutex
	caches []*Cache // guarded by mu
}

// NewMetrics makes the metrics, and registers them where reg is not nil. They exist at zero from the start.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("tributary_cache_"+name, help, labels, nil)
	}
	m := &Metrics{
		lookups: desc("lookups_total", "Looks into the cache: hit was answered by this process, miss asked NATS, coalesced waited for another's question.", "result"),
		stale:   desc("stale_total", "Values that were dropped since their key was changed or invalidated."),
		evicted: desc("evicted_total", "Values that made room for others in this process."),
		entries: desc("entries", "Values that this process holds."),
		bytes:   desc("bytes", "Bytes of keys and values that this process holds."),
	}
	if reg != nil {
		reg.MustRegister(m)
	}
	return m
}

// Add counts a cache in.
func (m *Metrics) Add(c *Cache) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.caches = append(m.caches, c)
}

// Describe is that of prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.lookups, m.stale, m.evicted, m.entries, m.bytes} {
		ch <- d
	}
}

// Collect is that of prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	m.mu.Lock()
	var sum Stats
	for _, c := range m.caches {
		s := c.Stats()
		sum.Hits += s.Hits
		sum.Misses += s.Misses
		sum.Coalesced += s.Coalesced
		sum.Stale += s.Stale
		sum.Evicted += s.Evicted
		sum.Entries += s.Entries
		sum.Bytes += s.Bytes
	}
	m.mu.Unlock()
	counter := func(d *prometheus.Desc, n uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	counter(m.lookups, sum.Hits, "hit")
	counter(m.lookups, sum.Misses, "miss")
	counter(m.lookups, sum.Coalesced, "coalesced")
	counter(m.stale, sum.Stale)
	counter(m.evicted, sum.Evicted)
	ch <- prometheus.MustNewConstMetric(m.entries, prometheus.GaugeValue, float64(sum.Entries))
	ch <- prometheus.MustNewConstMetric(m.bytes, prometheus.GaugeValue, float64(sum.Bytes))
}
