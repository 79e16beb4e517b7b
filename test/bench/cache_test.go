//go:build bench

package bench

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/internal/natstest"
	"github.com/tributary-dev/tributary/pkg/cachekv"
	"github.com/tributary-dev/tributary/streams"
)

// caches gives processes' caches on one server, whose near caches are in use.
func caches(b *testing.B, n int) []*cachekv.Cache {
	b.Helper()
	server := natstest.Start(b)
	if _, err := streams.Apply(b.Context(), server.JetStream(b), streams.Options{}); err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, n)
	list := make([]*cachekv.Cache, n)
	for i := range list {
		list[i] = cachekv.New(server.JetStream(b), cachekv.Options{})
		go func() { ended <- list[i].Run(ctx) }()
	}
	b.Cleanup(func() {
		cancel()
		for range list {
			<-ended
		}
	})
	for i, c := range list {
		if err := c.Set(b.Context(), "warm", []byte(strconv.Itoa(i)), time.Hour); err != nil {
			b.Fatal(err)
		}
	}
	for _, c := range list {
		for deadline := time.Now().Add(10 * time.Second); c.Stats().Hits == 0; {
			if _, err := c.Get(b.Context(), "warm"); err != nil || time.Now().After(deadline) {
				b.Fatalf("a near cache is not in use: %v", err)
			}
		}
	}
	return list
}

// BenchmarkCacheHits is how fast the near cache answers, for all processors at once.
func BenchmarkCacheHits(b *testing.B) {
	c := caches(b, 1)[0]
	const keys = 1000
	for i := range keys {
		if err := c.Set(b.Context(), fmt.Sprintf("customers/%d", i), []byte(`{"vip":true}`), time.Hour); err != nil {
			b.Fatal(err)
		}
		if _, err := c.Get(b.Context(), fmt.Sprintf("customers/%d", i)); err != nil {
			b.Fatal(err)
		}
	}
	names := make([]string, keys)
	for i := range names {
		names[i] = fmt.Sprintf("customers/%d", i)
	}
	before := c.Stats()
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			if _, err := c.Get(b.Context(), names[i%keys]); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.StopTimer()
	after := c.Stats()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "hits/s")
	if hits := after.Hits - before.Hits; hits != uint64(b.N) {
		b.Errorf("%d of %d were hits", hits, b.N)
	}
}

// BenchmarkCacheInvalidation is how long after an invalidation the last of four other processes has let the value go.
func BenchmarkCacheInvalidation(b *testing.B) {
	all := caches(b, 5)
	first, others := all[0], all[1:]
	took := make([]time.Duration, 0, b.N)
	b.ResetTimer()
	for i := range b.N {
		key := "prices/" + strconv.Itoa(i)
		if err := first.Set(b.Context(), key, []byte("19.90"), time.Hour); err != nil {
			b.Fatal(err)
		}
		for _, c := range others {
			if _, err := c.Get(b.Context(), key); err != nil {
				b.Fatal(err)
			}
		}
		begun := time.Now()
		if err := first.Invalidate(b.Context(), key); err != nil {
			b.Fatal(err)
		}
		for _, c := range others {
			for gone := false; !gone; {
				_, err := c.Get(b.Context(), key)
				gone = err != nil
				if time.Since(begun) > 10*time.Second {
					b.Fatal("a value stays")
				}
			}
		}
		took = append(took, time.Since(begun))
	}
	b.StopTimer()
	slices.Sort(took)
	p99 := took[len(took)*99/100]
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-p50")
	b.ReportMetric(float64(p99.Microseconds())/1000, "ms-p99")
	if p99 > 100*time.Millisecond {
		b.Errorf("p99 is %s", p99)
	}
}
