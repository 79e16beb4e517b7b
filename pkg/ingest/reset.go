package ingest

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tributary-dev/tributary/pkg/events"
)

// Reset makes a source start over: with a new slot, a snapshot, and the next incarnation, so that nothing of it can be
// taken for what was read before. Whoever leads the source now is deposed, and the next leader drops the slot. known is
// what the source's mirror has, zero where there is none: it counts where EVENTS lost its own. Reset gives the position
// that it stored. It waits while EVENTS is away or full.
func Reset(ctx context.Context, nc *nats.Conn, stream jetstream.Stream, source, who string, known Position) (Position, error) {
	return byHand(ctx, nc, stream, source, who, known.Epoch, known.Incarnation, func(now State) (Position, error) {
		incarnation := max(now.Position.Incarnation, known.Incarnation)
		if incarnation == 0 {
			return Position{}, fmt.Errorf("source %s was never set up: nothing to start over", source)
		}
		return Position{Incarnation: incarnation + 1, Phase: PhaseSetup}, nil
	})
}

// Place makes a source go on behind the place that p names, whoever leads it. What lies between the end of EVENTS and p
// is not read. It refuses a place before that end, since what is stored can't be stored again, and gives the position
// that it stored. It waits while EVENTS is away or full.
func Place(ctx context.Context, nc *nats.Conn, stream jetstream.Stream, source, who string, known, p Position) (Position, error) {
	return byHand(ctx, nc, stream, source, who, known.Epoch, p.Incarnation, func(now State) (Position, error) { return p, now.mayPlace(source, p) })
}

// Where tells how far a source is stored, by the events of the given incarnation where EVENTS has no position of it.
func Where(ctx context.Context, nc *nats.Conn, stream jetstream.Stream, source string, incarnation uint64) (State, error) {
	f, err := outside(nc, stream, source, "")
	if err != nil {
		return State{}, err
	}
	defer f.close()
	return f.where(ctx, incarnation)
}

// MayPlace tells why Place would refuse, and how far the source is stored. It changes nothing.
func MayPlace(ctx context.Context, nc *nats.Conn, stream jetstream.Stream, source string, p Position) (State, error) {
	now, err := Where(ctx, nc, stream, source, p.Incarnation)
	if err != nil {
		return State{}, err
	}
	return now, now.mayPlace(source, p)
}

func (s State) mayPlace(source string, p Position) error {
	at := events.Sequence{Commit: uint64(p.CommitLSN), Index: p.Index}
	switch {
	case p.Phase != PhaseStreaming || p.Incarnation == 0:
		return fmt.Errorf("source %s was not streaming there: it can only start over", source)
	case p.Incarnation < s.Position.Incarnation:
		return fmt.Errorf("EVENTS is in incarnation %d of source %s, which can't go back to %d", s.Position.Incarnation, source, p.Incarnation)
	case at.Compare(s.Last) < 0 || p.EndLSN < s.Through:
		return fmt.Errorf("EVENTS holds source %s up to %s, and all that commits before %s: a source can't go back before that", source, s.Last, s.Through)
	default:
		return nil
	}
}

// outside is a fence for one who does not lead.
func outside(nc *nats.Conn, stream jetstream.Stream, source, who string) (*fence, error) {
	return newFence(nc, stream, source, who, slog.New(slog.DiscardHandler), NewMetrics(prometheus.NewRegistry()).of(source))
}

// where reads how far the source is stored, by the events of the given incarnation where no position says which.
func (f *fence) where(ctx context.Context, incarnation uint64) (State, error) {
	position, _, err := f.lastPosition(ctx)
	if err != nil {
		return State{}, err
	}
	f.position = position
	if position.Incarnation == 0 {
		f.position.Incarnation = incarnation
	}
	if err := f.readEnd(ctx); err != nil {
		return State{}, err
	}
	return State{Position: position, Last: f.last, Through: f.through}, nil
}

// byHand stores the position that next gives, once before anything is touched, and once more behind all that the leader,
// who is deposed between the two, may have stored meanwhile.
func byHand(ctx context.Context, nc *nats.Conn, stream jetstream.Stream, source, who string, epoch, incarnation uint64,
	next func(now State) (Position, error)) (Position, error) {
	f, err := outside(nc, stream, source, who)
	if err != nil {
		return Position{}, err
	}
	defer f.close()
	f.epoch = epoch
	now, err := f.where(ctx, incarnation)
	if err != nil {
		return Position{}, err
	}
	if _, err := next(now); err != nil {
		return Position{}, err
	}
	if err := f.claim(ctx, func(Position) bool { return true }); err != nil {
		return Position{}, fmt.Errorf("take over %s: %w", source, err)
	}
	if now, err = f.where(ctx, incarnation); err != nil {
		return Position{}, err
	}
	f.position = now.Position
	mark, err := next(now)
	if err != nil {
		return Position{}, err
	}
	if err := f.storeGroup(ctx, &group{marks: []placedMark{{position: &mark}}}); err != nil {
		return Position{}, fmt.Errorf("store the position of %s: %w", source, err)
	}
	return f.position, nil
}
