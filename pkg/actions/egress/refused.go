package egress

import (
	"fmt"
	"net/netip"
	"slices"

	"code.dny.dev/ssrf"
)

// RefusedError says that an address is not public, and not allowed either.
type RefusedError struct {
	Host string
	Addr netip.Addr
}

// Error says what to do where the address is meant.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("address %s of %q is %s: allow it with actions.allow_private", e.Addr, e.Host, e.kind())
}

func (e *RefusedError) kind() string {
	a := e.Addr
	switch {
	case slices.Contains(metadata, a):
		return "a cloud's metadata"
	case a.IsLoopback(), a.IsPrivate(), a.IsLinkLocalUnicast(), sharedSpace.Contains(a):
		return "private"
	case a.IsMulticast():
		return "multicast"
	case nat64.Contains(a), sixToFour.Contains(a), teredo.Contains(a):
		return "translated"
	default:
		return "not public"
	}
}

var (
	sharedSpace = netip.MustParsePrefix("100.64.0.0/10") // RFC 6598, carrier-grade NAT
	nat64       = ssrf.IPv6NAT64Prefix
	sixToFour   = netip.MustParsePrefix("2002::/16")
	teredo      = netip.MustParsePrefix("2001::/32")

	// metadata gives credentials to whoever asks. A network that happens to hold one of these does not allow it: only the
	// address itself does.
	metadata = []netip.Addr{
		netip.MustParseAddr("169.254.169.254"), // most clouds
		netip.MustParseAddr("169.254.170.2"),   // containers of AWS
		netip.MustParseAddr("fd00:ec2::254"),   // AWS
		netip.MustParseAddr("fd20:ce::254"),    // Google
		netip.MustParseAddr("100.100.100.200"), // Alibaba
		netip.MustParseAddr("192.0.0.192"),     // Oracle
	}
)
