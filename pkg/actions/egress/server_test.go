package egress_test

import (
	"context"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"

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

// answering gives a resolver for which every name has these IPv4 addresses.
func answering(t *testing.T, addresses ...string) *net.Resolver {
	t.Helper()
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		query := make([]byte, 512)
		for {
			n, client, err := server.ReadFrom(query)
			if err != nil {
				return
			}
			_, _ = server.WriteTo(dnsAnswer(query[:n], addresses), client)
		}
	})
	t.Cleanup(func() {
		_ = server.Close()
		serving.Wait()
	})
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", server.LocalAddr().String())
	}}
}

// dnsAnswer answers a query for A records, and any other with nothing (RFC 1035, section 4).
func dnsAnswer(query []byte, addresses []string) []byte {
	const header, typeA = 12, 1
	end := header
	for query[end] != 0 {
		end += int(query[end]) + 1
	}
	end += 5 // the name's end, type and class
	if query[end-3] != typeA {
		addresses = nil
	}
	answer := append([]byte{query[0], query[1], 0x81, 0x80, 0, 1, 0, byte(len(addresses)), 0, 0, 0, 0}, query[header:end]...)
	for _, address := range addresses {
		ip := netip.MustParseAddr(address).As4()
		answer = append(answer, 0xC0, header, 0, typeA, 0, 1, 0, 0, 0, 0, 0, 4) // the name above, type, class, no TTL, length
		answer = append(answer, ip[:]...)
	}
	return answer
}
