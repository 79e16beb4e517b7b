//go:build !linux

package pgcdc

import (
	"syscall"
	"time"
)

// setUserTimeout does nothing: keepalives, and the deadlines of what is written, have to do.
func setUserTimeout(syscall.RawConn, time.Duration) error { return nil }
