package egress

import "net"

// SetResolver lets a test say which addresses a name has.
func (d *Dialer) SetResolver(r *net.Resolver) { d.resolver = r }
