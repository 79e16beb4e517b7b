package app

import (
	"context"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tributary-dev/tributary/pkg/events"
)

// streamMetrics is what lies in the streams. Every ingest tells it, whoever leads, so that it is known while any of them runs:
// take the maximum over the instances.
type streamMetrics struct {
	messages, bytes, maxBytes, oldest *prometheus.GaugeVec // by stream
	unread                            *prometheus.GaugeVec // by reader
}

// observed are the streams that say how the system fares. Readers are the services that read EVENTS, by the names of their
// consumers up to the first dash.
var (
	observed = []string{events.StreamEvents, events.StreamInbox, events.StreamJobs, events.StreamDeadLetters}
	readers  = []string{"worker", "indexer"}
)

func newStreamMetrics(registry prometheus.Registerer) *streamMetrics {
	gauge := func(name, help, label string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tributary_" + name, Help: help}, []string{label})
	}
	m := &streamMetrics{
		messages: gauge("stream_messages", "Messages in a stream.", "stream"),
		bytes:    gauge("stream_bytes", "Bytes in a stream.", "stream"),
		maxBytes: gauge("stream_max_bytes", "The most bytes that a stream takes; 0 where nothing but the disk bounds it.", "stream"),
		oldest:   gauge("stream_oldest_seconds", "The age of a stream's oldest message; 0 where it is empty.", "stream"),
		unread:   gauge("events_unread", "Events that a service has not acknowledged yet, all its processes together.", "reader"),
	}
	for _, stream := range observed {
		for _, g := range []*prometheus.GaugeVec{m.messages, m.bytes, m.maxBytes, m.oldest} {
			g.WithLabelValues(stream)
		}
	}
	for _, reader := range readers {
		m.unread.WithLabelValues(reader)
	}
	registry.MustRegister(m.messages, m.bytes, m.maxBytes, m.oldest, m.unread)
	return m
}

// observe reads the streams every few seconds, until ctx ends. What can't be read keeps its last figure: that NATS is away is
// told by readiness.
func (m *streamMetrics) observe(ctx context.Context, js jetstream.JetStream) error {
	return every(ctx, 3*time.Second, func() {
		ctx, cancel := context.WithTimeout(ctx, answerWithin)
		defer cancel()
		for _, name := range observed {
			if stream, err := js.Stream(ctx, name); err == nil {
				m.set(stream.CachedInfo())
			}
		}
		if stream, err := js.Stream(ctx, events.StreamEvents); err == nil {
			m.setUnread(stream.ListConsumers(ctx))
		}
	})
}

func (m *streamMetrics) set(info *jetstream.StreamInfo) {
	name, state := info.Config.Name, info.State
	m.messages.WithLabelValues(name).Set(float64(state.Msgs))
	m.bytes.WithLabelValues(name).Set(float64(state.Bytes))
	m.maxBytes.WithLabelValues(name).Set(float64(max(info.Config.MaxBytes, 0)))
	age := 0.0
	if state.Msgs > 0 {
		age = time.Since(state.FirstTime).Seconds()
	}
	m.oldest.WithLabelValues(name).Set(age)
}

func (m *streamMetrics) setUnread(consumers jetstream.ConsumerInfoLister) {
	unread := map[string]float64{}
	for info := range consumers.Info() {
		reader, _, _ := strings.Cut(info.Name, "-")
		unread[reader] += float64(info.NumPending) + float64(info.NumAckPending)
	}
	if consumers.Err() != nil {
		return
	}
	for _, reader := range readers {
		m.unread.WithLabelValues(reader).Set(unread[reader])
	}
}
