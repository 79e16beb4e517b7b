package actions

import "errors"

// Pending is the type of a request that is not rendered yet, since it needs what lookups answer. No action serves it: whoever
// is to send it resolves it first, and keeps what comes of that before the first attempt, so that all attempts send the same.
const Pending = "pending"

// ErrNotDue is the error of resolving a request whose condition, with what the lookups answered, is false: nothing is to be
// done.
var ErrNotDue = errors.New("its condition is false")

// RenderError says that no request can be made of an event, whatever is tried again. Other errors of resolving are those of
// lookups, and are judged like those of attempts.
type RenderError struct {
	Condition bool // it was the condition that failed
	Err       error
}

func (e *RenderError) Error() string { return e.Err.Error() }
func (e *RenderError) Unwrap() error { return e.Err }
