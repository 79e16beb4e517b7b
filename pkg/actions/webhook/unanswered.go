package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/tributary-dev/tributary/pkg/retry"
)

// errNoHTTP stands for the errors of net/http that quote what the receiver sent.
var errNoHTTP = errors.New("the connection was closed, or what came is no HTTP response")

// unanswered says why a request has no answer. All causes but a refused address may be tried again. When ctx was
// cancelled the error wraps its cause, so that an attempt that was interrupted can be told from one that failed.
func unanswered(ctx context.Context, req *http.Request, timeout time.Duration, err error) error {
	if retry.IsPermanent(err) {
		return err
	}
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("%s: no answer within %s: %w", place(req), timeout, context.DeadlineExceeded)
	case ctx.Err() != nil:
		return fmt.Errorf("%s: interrupted: %w", place(req), context.Cause(ctx))
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%s: the connection was closed without an answer", place(req))
	case !quotable(err):
		return fmt.Errorf("%s: %w", place(req), errNoHTTP)
	default:
		return fmt.Errorf("%s: %w", place(req), cause(err))
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
	return is[net.Error](err) || is[*tls.CertificateVerificationError](err) || is[tls.RecordHeaderError](err) || is[tls.AlertError](err)
}

func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}
