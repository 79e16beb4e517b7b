package pgcdc

import (
	"net"
	"strings"
	"syscall"
	"time"
)

// dialer makes TCP connections that end after silence, also where nothing of them is read or written at the moment: an idle
// one when keepalives are not answered, one with something under way when that is not acknowledged. What a host that is
// well, but whose server is not, says nothing of, the stream's own status finds out.
func dialer(silence time.Duration) *net.Dialer {
	const probes = 3
	return &net.Dialer{
		Timeout: connectTimeout,
		KeepAliveConfig: net.KeepAliveConfig{
			Enable: true, Idle: max(silence/(probes+1), time.Second), Interval: max(silence/(probes+1), time.Second), Count: probes,
		},
		Control: func(network, _ string, conn syscall.RawConn) error {
			if !strings.HasPrefix(network, "tcp") {
				return nil
			}
			return setUserTimeout(conn, silence)
		},
	}
}
