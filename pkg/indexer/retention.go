package indexer

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// months is the index as retention sees it. Months lists those that there are; Drop removes them, and is idempotent.
type months interface {
	Months(ctx context.Context) ([]string, error)
	Drop(ctx context.Context, months []string) error
}

// Retention removes whole months from an index.
type Retention struct {
	Keep    time.Duration // a month goes when all of it is older; 0 keeps all
	Log     *slog.Logger
	Metrics *Metrics
}

const (
	retentionEvery = 24 * time.Hour
	retentionAgain = time.Minute // after a failure
)

// Run looks at once, then daily, until ctx ends; it gives no error but that. One should run at a time; more do no harm.
func (r Retention) Run(ctx context.Context, index months) error {
	for {
		next := retentionEvery
		if err := r.sweep(ctx, index, time.Now()); err != nil {
			next = retentionAgain
			if ctx.Err() == nil {
				r.Log.Warn("old months stay for now", "err", err)
			}
		}
		if wait(ctx, next); ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

func (r Retention) sweep(ctx context.Context, index months, now time.Time) error {
	if r.Keep <= 0 {
		return nil
	}
	all, err := index.Months(ctx)
	if err != nil {
		return fmt.Errorf("list months of the index: %w", err)
	}
	old := slices.DeleteFunc(all, func(month string) bool { return !past(month, r.Keep, now) })
	if len(old) == 0 {
		return nil
	}
	if err := index.Drop(ctx, old); err != nil {
		return fmt.Errorf("remove months %v from the index: %w", old, err)
	}
	r.Metrics.dropped.Add(float64(len(old)))
	r.Log.Info("months are removed from the index (indexer.retention)", "months", old)
	return nil
}
