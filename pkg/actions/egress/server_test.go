package egress_test

import (
	"crypto/x509"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/netip"

	"github.com/tributary-dev/tributary/pkg/actions/egress"
)

var (
	loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	discard  = log.New(io.Discard, "", 0)
)

// trusting gives a transport that reaches server and knows its certificate.
func trusting(server *httptest.Server) *http.Transport {
	transport := egress.NewTransport(egress.Options{AllowPrivate: loopback})
	transport.TLSClientConfig.RootCAs = x509.NewCertPool()
	transport.TLSClientConfig.RootCAs.AddCert(server.Certificate())
	return transport
}
