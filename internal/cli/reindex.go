package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/tributary-dev/tributary/internal/inspect"
	"github.com/tributary-dev/tributary/pkg/deadletter"
	"github.com/tributary-dev/tributary/pkg/indexer"
	"github.com/tributary-dev/tributary/pkg/jobs"
)

// index offers the document of a dead letter to the index once more, and removes the letter where that has it. The event is
// that of EVENTS, byte for byte; where it has aged out, the one in the letter, which was stored about then.
func (r *retrier) index(ctx context.Context, d *deployment, e deadletter.Entry) (jobs.Retried, error) {
	record := &e.Record
	if len(record.Event) == 0 {
		return "", fmt.Errorf("%w: there is no event in it", jobs.ErrNotRetriable)
	}
	m := indexer.Message{Subject: record.Subject, Data: record.Event, Stored: e.Stored}
	stored, err := d.Event(ctx, record.EventID)
	switch {
	case err == nil && stored.Subject == record.Subject:
		m.Data, m.Sequence, m.Stored = stored.Event, stored.Sequence, stored.Stored
	case err != nil && !errors.Is(err, inspect.ErrNotFound):
		return "", err
	}
	if r.dryRun {
		return indexed, nil
	}
	if err := indexer.IndexAgain(ctx, d.nc, m); err != nil {
		return "", err
	}
	return indexed, deadletter.Remove(ctx, d.JS, e.Sequence)
}
