// Package freeport finds TCP ports for servers that have to know theirs before they listen, or that keep it over a restart.
//
// A port that the system chose and got back is soon given out again, to whatever connects or listens next on this machine. So
// the ports of this package lie below those that the system gives out by itself, where the system says which they are: nobody
// takes one of them by chance while its server is down. Another program may listen on any of them on purpose; who finds it
// taken takes the next.
package freeport

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync/atomic"
)

const (
	lowest = 10_000 // below are the well-known ones
	enough = 5_000  // fewer would let processes that search at the same time meet
)

// tried counts up from a place of this process's own, so that no port comes twice soon.
var tried atomic.Uint64

func init() { tried.Store(uint64(rand.Uint32())) }

// Get gives a port of 127.0.0.1 that nobody listens on now. It is safe for concurrent use.
func Get() (int, error) {
	if below := givenOut(); below-lowest >= enough {
		for range below - lowest {
			port := lowest + int(tried.Add(1)%uint64(below-lowest))
			if listener, err := listen(port); err == nil {
				return port, listener.Close()
			}
		}
	}
	listener, err := listen(0)
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	return listener.Addr().(*net.TCPAddr).Port, listener.Close()
}

func listen(port int) (net.Listener, error) {
	return net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
}

// givenOut is the lowest port that the system gives out by itself: Linux says it, elsewhere it is that of IANA's range.
func givenOut() int {
	const path, elsewhere = "/proc/sys/net/ipv4/ip_local_port_range", 49_152
	text, err := os.ReadFile(path)
	if err != nil {
		return elsewhere
	}
	var low int
	if _, err := fmt.Sscan(string(text), &low); err != nil {
		return elsewhere
	}
	return low
}
