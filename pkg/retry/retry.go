// Package retry holds the vocabulary in which everything says whether a failure may be tried again, and the one policy
// that reads it. It relies on the standard library alone.
package retry

import (
	"errors"
	"time"
)

type permanentError struct{ err error }

func (e *permanentError) Error() string { return e.err.Error() }
func (e *permanentError) Unwrap() error { return e.err }

// Permanent marks err as final: no attempt can mend it.
func Permanent(err error) error { return &permanentError{err} }

// IsPermanent tells whether err, or one that it wraps, was marked by Permanent.
func IsPermanent(err error) bool {
	var p *permanentError
	return errors.As(err, &p)
}

type afterError struct {
	err   error
	delay time.Duration
}

func (e *afterError) Error() string { return e.err.Error() }
func (e *afterError) Unwrap() error { return e.err }

// After marks err with the least delay before the next attempt, as a Retry-After asks for it.
func After(err error, delay time.Duration) error { return &afterError{err, delay} }

// DelayOf gives the delay that After marked err with, or 0.
func DelayOf(err error) time.Duration {
	var a *afterError
	if errors.As(err, &a) {
		return a.delay
	}
	return 0
}
