package app

import (
	"context"
	"fmt"
	"io"
	"time"

	dto "github.com/prometheus/client_model/go"
)

// liveLines says what flows, about once in two seconds while something does, from the same counters as /metrics.
func liveLines(ctx context.Context, out io.Writer, env *environment) error {
	const every = 2 * time.Second
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	var before flow
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		families, err := env.metrics.Gather()
		if err != nil {
			return fmt.Errorf("read the metrics: %w", err)
		}
		now := readFlow(families)
		if now == before {
			continue
		}
		rate := (now.stored - before.stored) / every.Seconds()
		fmt.Fprintf(out, "%s  events %.0f (%.0f/s)  effects done %.0f, in flight %.0f  jobs run %.0f, waiting %.0f  dead letters %.0f\n",
			time.Now().Format(time.TimeOnly), now.stored, rate, now.done, now.inFlight, now.jobs, now.waiting, now.dead)
		before = now
	}
}

// flow is the figures of a live line.
type flow struct {
	stored, done, inFlight, jobs, waiting, dead float64
}

func readFlow(families []*dto.MetricFamily) flow {
	const outcome = "outcome"
	return flow{
		stored:   total(families, "tributary_ingest_published_total", "", ""),
		done:     total(families, "tributary_worker_effects_total", outcome, "done") + total(families, "tributary_jobs_executions_total", outcome, "done"),
		inFlight: total(families, "tributary_worker_in_flight", "", "") + total(families, "tributary_jobs_running", "", ""),
		jobs:     total(families, "tributary_jobs_executions_total", "", ""),
		waiting:  total(families, "tributary_stream_messages", "stream", "JOBS"),
		dead:     total(families, "tributary_worker_effects_total", outcome, "dead") + total(families, "tributary_jobs_dead_total", "", ""),
	}
}

// total sums a metric over its labels; over those alone where one has the given value, if it is named.
func total(families []*dto.MetricFamily, name, label, value string) float64 {
	sum := 0.0
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			if label == "" || hasLabel(m, label, value) {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

func hasLabel(m *dto.Metric, label, value string) bool {
	for _, pair := range m.GetLabel() {
		if pair.GetName() == label && pair.GetValue() == value {
			return true
		}
	}
	return false
}
