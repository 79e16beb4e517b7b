package ingest

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
)

// Reset makes a source start over: with a new slot, a snapshot, and the next incarnation, so that nothing of it can be
// taken for what was read before. Whoever leads the source now is deposed, and the next leader drops the slot. It gives
// the incarnation to come. It waits while EVENTS is away or full.
func Reset(ctx context.Context, nc *nats.Conn, stream jetstream.Stream, source, who string) (uint64, error) {
	f, err := newFence(nc, stream, source, who, slog.New(slog.DiscardHandler), NewMetrics(prometheus.NewRegistry()).of(source))
	if err != nil {
		return 0, err
	}
	defer f.close()
	if err := f.claim(ctx, func(Position) bool { return true }); err != nil {
		return 0, fmt.Errorf("take over %s: %w", source, err)
	}
	if f.position.Incarnation == 0 {
		return 0, fmt.Errorf("source %s was never set up: nothing to start over", source)
	}
	mark := Position{Incarnation: f.position.Incarnation + 1, Phase: PhaseSetup}
	if err := f.storeGroup(ctx, &group{mark: &mark}); err != nil {
		return 0, fmt.Errorf("reset %s: %w", source, err)
	}
	return mark.Incarnation, nil
}
