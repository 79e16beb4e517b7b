package cachekv_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tributary-dev/tributary/pkg/cachekv"
)

func TestMetricsAreTheSumOfAllCaches(t *testing.T) {
	server := makeBucket(t)
	registry := prometheus.NewRegistry()
	metrics := cachekv.NewMetrics(registry)
	read := func() map[string]float64 {
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		values := make(map[string]float64)
		for _, f := range families {
			for _, m := range f.GetMetric() {
				values[f.GetName()] += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
		return values
	}
	if before := read(); len(before) != 5 || before["tributary_cache_lookups_total"] != 0 {
		t.Errorf("before there is a cache: %v", before)
	}
	for n := range 2 {
		c := start(t, server, cachekv.Options{MaxBytes: 1000})
		metrics.Add(c)
		for i := range 20 {
			key := fmt.Sprintf("%d/%d", n, i)
			if _, err := c.Load(t.Context(), key, time.Hour, func(context.Context) ([]byte, error) { return make([]byte, 100), nil }); err != nil {
				t.Fatal(err)
			}
		}
	}
	after := read()
	for name, least := range map[string]float64{"tributary_cache_lookups_total": 40, "tributary_cache_evicted_total": 20, "tributary_cache_entries": 2, "tributary_cache_bytes": 400} {
		if after[name] < least {
			t.Errorf("%s is %v, want at least %v", name, after[name], least)
		}
	}
}
