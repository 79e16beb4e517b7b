package indexer_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tributary-dev/tributary/pkg/indexer"
)

// calendar is the months of an index.
type calendar struct {
	mu     sync.Mutex
	months []string
	err    error
}

func (c *calendar) Months(context.Context) ([]string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.months), c.err
}

func (c *calendar) Drop(_ context.Context, months []string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.months = slices.DeleteFunc(c.months, func(m string) bool { return slices.Contains(months, m) })
	return nil
}

func (c *calendar) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
}

// In the bubble it is the first day of 2000.
func TestMonthsGoWhenAllOfThemIsOlder(t *testing.T) {
	const day = 24 * time.Hour
	for name, c := range map[string]struct {
		keep time.Duration
		days int // that pass
		want []string
	}{
		"none without retention":         {0, 400, []string{"1999.10", "1999.11", "1999.12", "2000.01"}},
		"at the start":                   {1 * day, 0, []string{"1999.12", "2000.01"}},
		"not a day too early":            {31*day + time.Second, 0, []string{"1999.11", "1999.12", "2000.01"}},
		"on the day":                     {31 * day, 0, []string{"1999.12", "2000.01"}},
		"later, while the indexer runs":  {31*day + time.Second, 1, []string{"1999.12", "2000.01"}},
		"never the month that is now":    {time.Second, 20, []string{"2000.01"}},
		"none of what is no month of it": {time.Hour, 100, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				index := &calendar{months: []string{"1999.10", "1999.11", "1999.12", "2000.01"}}
				retain(t, index, c.keep)
				time.Sleep(time.Duration(c.days) * day) // the bubble's clock
				synctest.Wait()
				if got, _ := index.Months(t.Context()); !slices.Equal(got, c.want) {
					t.Errorf("there are %v, want %v", got, c.want)
				}
			})
		})
	}
}

func TestRetentionComesAgainSoonAfterAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		index := &calendar{months: []string{"1999.10"}, err: errors.New("away")}
		retain(t, index, time.Hour)
		synctest.Wait()
		index.fail(nil)
		time.Sleep(2 * time.Minute)
		if got, _ := index.Months(t.Context()); len(got) != 0 {
			t.Errorf("there are %v", got)
		}
	})
}

// retain runs retention until the test ends.
func retain(t *testing.T, index *calendar, keep time.Duration) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	r := indexer.Retention{Keep: keep, Log: slog.New(slog.DiscardHandler), Metrics: indexer.NewMetrics(nil)}
	go func() { done <- r.Run(ctx, index) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("retention ended with %v", err)
		}
	})
}

func TestRetentionCountsTheMonthsThatItDrops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewRegistry()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		r := indexer.Retention{Keep: time.Hour, Log: slog.New(slog.DiscardHandler), Metrics: indexer.NewMetrics(registry)}
		go func() { done <- r.Run(ctx, &calendar{months: []string{"1999.10", "1999.11", "2000.01"}}) }()
		synctest.Wait()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if got := f.GetMetric()[0].GetCounter().GetValue(); f.GetName() == "tributary_indexer_dropped_months_total" && got != 2 {
				t.Errorf("%v months are counted, want 2", got)
			}
		}
	})
}
