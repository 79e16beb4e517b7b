package egress

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/tributary-dev/tributary/pkg/retry"
)

// errNoHTTP stands for the errors of net/http that quote what the receiver sent.
var errNoHTTP = errors.New("the connection was closed, or what came is no HTTP response")

// maxRetryAfter bounds what a receiver can ask for, by intent or with a wrong clock.
const maxRetryAfter = 24 * time.Hour

// Again gives err, of an answer after which the same may be tried again: not before the time that Retry-After asks for, where
// that is there.
func Again(err error, answer *http.Response, now time.Time) error {
	if delay := retryAfter(answer.Header.Get("Retry-After"), now); delay > 0 {
		return retry.After(err, delay)
	}
	return err
}

// retryAfter reads a header Retry-After, in seconds or as a date; it is 0 where there is none, or none that can be read.
func retryAfter(value string, now time.Time) time.Duration {
	if value == "" {
		return 0
	}
	if seconds, err := strconv.ParseUint(value, 10, 64); err == nil || errors.Is(err, strconv.ErrRange) {
		return time.Duration(min(seconds, uint64(maxRetryAfter/time.Second))) * time.Second
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), maxRetryAfter)
}

// Unanswered says why a request has no answer; place is what may be said of where it went, timeout that of the attempt.
// All causes but a refused address may be tried again. When ctx was cancelled the error wraps its cause, so that an
// attempt that was interrupted can be told from one that failed.
func Unanswered(ctx context.Context, place string, timeout time.Duration, err error) error {
	if retry.IsPermanent(err) {
		return err
	}
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("%s: no answer within %s: %w", place, timeout, context.DeadlineExceeded)
	case ctx.Err() != nil:
		return fmt.Errorf("%s: interrupted: %w", place, context.Cause(ctx))
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%s: the connection was closed without an answer", place)
	case !quotable(err):
		return fmt.Errorf("%s: %w", place, errNoHTTP)
	default:
		return fmt.Errorf("%s: %w", place, cause(err))
	}
}

// cause gives the error of the network or of TLS below what net/http wraps around it.
func cause(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op
	}
	return err
}

// quotable tells whether the text of err is made of addresses, names and fixed words alone.
func quotable(err error) bool {
	return errors.Is(err, errNoURL) || errors.Is(err, errNoHeader) || is[net.Error](err) || is[*tls.CertificateVerificationError](err) || is[tls.RecordHeaderError](err) || is[tls.AlertError](err)
}

func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}
