//go:build unix

package egress

import (
	"errors"
	"syscall"
)

// silence gives what tells whether there is nothing to read from a socket, not even its end.
func silence(socket syscall.Conn) func() bool {
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil
	}
	var one [1]byte
	var silent bool
	look := func(fd uintptr) bool {
		_, err := syscall.Read(int(fd), one[:])
		silent = errors.Is(err, syscall.EAGAIN)
		return true
	}
	return func() bool {
		silent = false
		return raw.Read(look) == nil && silent
	}
}
