package egress

import (
	"net"
	"time"
)

// SetResolver lets a test say which addresses a name has.
func (d *Dialer) SetResolver(r *net.Resolver) { d.resolver = r }

// Resolving lets a test say which addresses the names of a transport have.
func Resolving(o Options, r *net.Resolver) Options {
	o.resolver = r
	return o
}

// IdleFor lets a test say how long a connection is kept.
func IdleFor(t *Transport, d time.Duration) { t.idleFor = d }

// AppendHead lets a test hold it against net/http.
var AppendHead = appendHead
