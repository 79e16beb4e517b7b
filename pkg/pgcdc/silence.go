package pgcdc

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// silencesOfRows is how many times Options.ReceiveTimeout a server may send no row of a chunk. It can't be asked for a sign
// of life, as that of the stream can, and a filter may leave out many rows before the next one that comes.
const silencesOfRows = 10

// silence ends a query whose server sends no row any more: a backend that hangs keeps its connection, and its machine goes
// on to acknowledge what is sent. It takes as long as most to notice, and twice that at the latest.
type silence struct {
	most  time.Duration
	timer *time.Timer
	ctx   context.Context //nolint:containedctx // it is the query's
	stop  context.CancelCauseFunc
	moves atomic.Uint64 // how often a row came, or nobody waited for one
	away  atomic.Bool   // nobody waits for a row
	seen  uint64        // of moves, the timer's own
}

// watchSilence gives the context for a query.
func watchSilence(ctx context.Context, most time.Duration) (context.Context, *silence) {
	s := &silence{most: most}
	s.ctx, s.stop = context.WithCancelCause(ctx)
	s.moves.Store(1)
	s.timer = time.AfterFunc(most, s.look)
	return s.ctx, s
}

func (s *silence) look() {
	moves := s.moves.Load()
	if moves == s.seen && !s.away.Load() {
		s.stop(fmt.Errorf("%w: it has sent no row for %s", errSilent, s.most))
		return
	}
	s.seen = moves
	if s.ctx.Err() == nil {
		s.timer.Reset(s.most)
	}
}

// came notes a row.
func (s *silence) came() { s.moves.Add(1) }

// aside does what takes its own time.
func (s *silence) aside(do func() error) error {
	s.away.Store(true)
	err := do()
	s.moves.Add(1) // before it counts again
	s.away.Store(false)
	return err
}

// end is called once, when the query is over.
func (s *silence) end() {
	s.stop(nil)
	s.timer.Stop()
}

// becauseOf gives the cause for which a query's context has ended instead of the error that it got by that.
func becauseOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}
