package actions

import (
	"context"
	"sync"
	"time"
)

// within is context.WithTimeout whose timer is set when somebody first waits for it. An action that waits for nobody, as one
// that writes to the log, needs none, and would pay more for it than for what it does.
type within struct {
	parent context.Context
	until  time.Time

	mu    sync.Mutex
	ctx   context.Context // nil while nobody has asked for it; guarded by mu
	stop  context.CancelFunc
	ended bool // guarded by mu
}

func newWithin(parent context.Context, timeout time.Duration) *within {
	return &within{parent: parent, until: time.Now().Add(timeout)}
}

// made gives the context that has the timer.
func (w *within) made() context.Context {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ctx == nil {
		w.ctx, w.stop = context.WithDeadline(w.parent, w.until)
		if w.ended {
			w.stop()
		}
	}
	return w.ctx
}

// end cancels the context, like a context.CancelFunc.
func (w *within) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	if w.stop != nil {
		w.stop()
	}
}

// Deadline is the earlier one of its own and its parent's.
func (w *within) Deadline() (time.Time, bool) {
	if until, ok := w.parent.Deadline(); ok && until.Before(w.until) {
		return until, true
	}
	return w.until, true
}

func (w *within) Done() <-chan struct{} { return w.made().Done() }
func (w *within) Err() error            { return w.made().Err() }
func (w *within) Value(key any) any     { return w.made().Value(key) }
