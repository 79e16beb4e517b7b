package natsserver

import (
	"fmt"
	"log/slog"
	"sync"
)

// logger hands the server's warnings and errors on, and keeps what was fatal: the server reports by its log alone why
// it did not start.
type logger struct {
	slog *slog.Logger // may be nil

	mu    sync.Mutex
	cause error // the first fatal one; guarded by mu
}

func (l *logger) fatal() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cause
}

func (l *logger) Fatalf(format string, args ...any) {
	err := fmt.Errorf(format, args...)
	for _, arg := range args {
		if cause, ok := arg.(error); ok {
			err = cause
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cause == nil {
		l.cause = err
	}
}

func (l *logger) Errorf(format string, args ...any) {
	if l.slog != nil {
		l.slog.Error("nats server: " + fmt.Sprintf(format, args...))
	}
}

func (l *logger) Warnf(format string, args ...any) {
	if l.slog != nil {
		l.slog.Warn("nats server: " + fmt.Sprintf(format, args...))
	}
}

func (l *logger) Noticef(string, ...any) {}
func (l *logger) Debugf(string, ...any)  {}
func (l *logger) Tracef(string, ...any)  {}
