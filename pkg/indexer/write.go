package indexer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tributary-dev/tributary/pkg/deadletter"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/retry"
)

// writeAll writes bulks, one after another.
func (x *Indexer) writeAll(ctx context.Context, number int, bulks <-chan []*item) {
	for bulk := range bulks {
		x.write(ctx, number, bulk)
	}
}

// write goes on until each item of a bulk is settled, or ctx ends: what is not settled then comes again.
func (x *Indexer) write(ctx context.Context, number int, items []*item) {
	for failed := 0; len(items) > 0 && ctx.Err() == nil; {
		left, err := x.try(ctx, items)
		if errors.Is(err, ErrBulkRefused) && len(items) > 1 {
			x.write(ctx, number, items[:len(items)/2])
			items = items[len(items)/2:]
			continue
		}
		if errors.Is(err, ErrBulkRefused) {
			x.refuse(ctx, items[0], err)
			return
		}
		if failed++; len(left) < len(items) {
			failed = min(len(left), 1) // some went through: the index is there
		}
		if items = left; len(items) == 0 || ctx.Err() != nil {
			break
		}
		x.metrics.retried.Add(float64(len(items)))
		x.health.trouble(number, err)
		wait(ctx, x.options.Retry.Delay(failed, retry.DelayOf(err), jitter))
	}
	x.health.well(number)
}

func wait(ctx context.Context, delay time.Duration) {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// try writes a bulk once and settles what has an outcome. It gives what is left, and why.
func (x *Indexer) try(ctx context.Context, items []*item) (left []*item, err error) {
	documents := make([]Document, len(items))
	for i, it := range items {
		documents[i] = it.document
	}
	began := time.Now()
	outcomes, err := x.index.Write(ctx, documents)
	x.metrics.bulkSeconds.Observe(time.Since(began).Seconds())
	if err == nil && len(outcomes) != len(items) {
		err = fmt.Errorf("the index gave %d outcomes for %d documents", len(outcomes), len(items))
	}
	if err != nil {
		return items, err
	}
	for i, outcome := range outcomes {
		switch it := items[i]; outcome.State {
		case Created:
			x.metrics.indexed.Inc()
			x.held.settle(it)
		case Existed:
			x.metrics.duplicates.Inc()
			x.held.settle(it)
		case Refused:
			x.refuse(ctx, it, outcome.Err)
		case Again:
			left, err = append(left, it), outcome.Err
		default:
			panic(fmt.Sprintf("indexer: outcome %d is unknown", outcome.State))
		}
	}
	return left, err
}

// refuse makes a dead letter of an event that the index can't take.
func (x *Indexer) refuse(ctx context.Context, it *item, reason error) {
	x.bury(ctx, it, deadletter.Record{
		ID: "indexer~" + it.document.ID, Reason: deadletter.Mapping, EventID: it.document.ID,
		Error: cut(reason.Error(), mostError), Event: it.event.Data,
	})
}

// mostError bounds what an index says against a document: it may show much of the document.
const mostError = 2048

func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return text[:most] + "…"
}

// bury writes a dead letter, and acknowledges the event when that is stored.
func (x *Indexer) bury(ctx context.Context, it *item, record deadletter.Record) {
	record.Subject = it.event.Subject
	if address, err := events.ParseAddress(record.Subject); err == nil {
		record.Source = address.Source
	}
	if err := x.dead.Write(ctx, record); err != nil {
		if ctx.Err() == nil {
			x.log.Error("an event that can't be indexed stays unacknowledged", "sequence", it.sequence, "err", err)
		}
		return
	}
	x.metrics.dead.WithLabelValues(string(record.Reason)).Inc()
	x.held.settle(it)
}

// health says whether the index takes documents: it does while no writer tries again.
type health struct {
	told func(ok bool, why string)

	mu       sync.Mutex
	troubles map[int]error // by writer; guarded by mu
}

func (h *health) trouble(writer int, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.troubles[writer] = err
	h.tell(false, cut(err.Error(), mostReason))
}

func (h *health) well(writer int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if delete(h.troubles, writer); len(h.troubles) == 0 {
		h.tell(true, "documents are taken")
	}
}

func (h *health) tell(ok bool, why string) {
	if h.told != nil {
		h.told(ok, why)
	}
}

const (
	mostReason = 300
	puller     = -1 // among the writers of troubles: who pulls
)
