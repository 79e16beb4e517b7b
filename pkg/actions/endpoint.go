package actions

import (
	"cmp"
	"net"
	"net/url"
	"strings"
)

// EndpointOf gives the scheme://host:port of u as Request.Endpoint has it, in small letters; false where u names no port and its
// scheme has none of its own: the name says "port" in its place then.
func EndpointOf(u *url.URL) (name string, known bool) {
	port := cmp.Or(u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
	return strings.ToLower(u.Scheme + "://" + net.JoinHostPort(u.Hostname(), cmp.Or(port, "port"))), port != ""
}
