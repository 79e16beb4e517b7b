package pgcdc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/tributary-dev/tributary/pkg/events"
)

const (
	statusEvery = time.Second

	// A server is asked for a sign of life after a third of Options.ReceiveTimeout without one, and again each second.
	askAfterPart = 3
)

// errSilent ends a stream whose server says nothing any more.
var errSilent = errors.New("the server does not answer")

// status tells the server how far the stream was received and may be forgotten, on a timer of its own: a reader that is
// held up by publishing must not look dead. It alone writes to the connection.
//
// What we confirm lags by minutes, and a server that shuts down waits until its stream is flushed by us, or received
// where no flushed position is given. So a flushed position goes out only when it moves, and the next message, right
// behind it, takes it back: confirmed_flush_lsn stays, and the shutdown waits for what was received alone
// (ProcessStandbyReplyMessage and WalSndDone in walsender.c).
type status struct {
	conn        net.Conn
	timeout     time.Duration // of silence, after which the server is given up; also of a write
	confirmable func() events.LSN
	blocked     func(now time.Time) time.Duration // how long the reader has been held up
	inTouch     func()                            // called each second in which the server said something
	metrics     *sourceMetrics

	received atomic.Uint64
	told     atomic.Uint64 // the flushed position that was sent last
	heard    atomic.Int64  // when the server last said something, in Unix nanoseconds
	asked    chan struct{} // holds a token when the server waits for status

	confirmed events.LSN // run's own
	touched   int64      // run's own: heard, when inTouch was called last
}

// hear notes a message from the server, which was sent up to end.
func (s *status) hear(end events.LSN, now time.Time) {
	s.heard.Store(now.UnixNano())
	if uint64(end) > s.received.Load() {
		s.received.Store(uint64(end))
		s.metrics.received.Set(float64(end))
	}
}

// ask makes status go out at once.
func (s *status) ask() {
	select {
	case s.asked <- struct{}{}:
	default:
	}
}

func (s *status) run(ctx context.Context) error {
	tick := time.NewTicker(statusEvery)
	defer tick.Stop()
	for {
		now := time.Now()
		silent := now.Sub(time.Unix(0, s.heard.Load()))
		if s.blocked(now) > 0 {
			silent = 0 // it may have said much that nobody read yet
		}
		if heard := s.heard.Load(); heard != s.touched {
			s.touched = heard
			s.inTouch()
		}
		if silent > s.timeout {
			return fmt.Errorf("%w: it was asked for a sign of life, and has said nothing for %s", errSilent, silent.Round(time.Second))
		}
		if err := s.send(now, silent > s.timeout/askAfterPart); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		case <-s.asked:
		}
	}
}

func (s *status) send(now time.Time, reply bool) error {
	const messages, size = 2, 39
	written := events.LSN(s.received.Load())
	out := make([]byte, 0, messages*size)
	confirm := s.confirmable()
	if confirm > s.confirmed {
		out = appendStatus(out, written, confirm, now, false)
	}
	out = appendStatus(out, written, 0, now, reply)
	if err := s.conn.SetWriteDeadline(now.Add(s.timeout)); err != nil {
		return fmt.Errorf("send status: %w", err)
	}
	if _, err := s.conn.Write(out); err != nil {
		return fmt.Errorf("send status: %w", err)
	}
	if confirm > s.confirmed {
		s.confirmed = confirm
		s.told.Store(uint64(confirm))
		s.metrics.confirmed.Set(float64(confirm))
	}
	return nil
}
