package egress

import "net"

// SetResolver lets a test say which addresses a name has.
func (d *Dialer) SetResolver(r *net.Resolver) { d.resolver = r }

// Resolving lets a test say which addresses the names of a transport have.
func Resolving(o Options, r *net.Resolver) Options {
	o.resolver = r
	return o
}
