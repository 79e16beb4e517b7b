package egress_test

import (
	"context"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/tributary-dev/tributary/pkg/actions/egress"
)

var (
	loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	discard  = log.New(io.Discard, "", 0)
)

// trusting gives a transport that reaches server and knows its certificate.
func trusting(t *testing.T, server *httptest.Server) *egress.Transport {
	t.Helper()
	rules, err := egress.NewTLS([]egress.TLSRule{{Host: "*", CA: pemFile(t, "CERTIFICATE", server.Certificate().Raw)}})
	if err != nil {
		t.Fatal(err)
	}
	transport := egress.NewTransport(egress.Options{AllowPrivate: loopback, TLS: rules})
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}

func pemFile(t *testing.T, kind string, der []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// answering gives a resolver for which every name has these IPv4 addresses.
func answering(t *testing.T, addresses ...string) *net.Resolver {
	t.Helper()
	resolver, _ := rebinding(t, addresses...)
	return resolver
}

// rebinding gives a resolver like answering's, and what makes its answers others.
func rebinding(t *testing.T, addresses ...string) (*net.Resolver, func(addresses ...string)) {
	t.Helper()
	var now atomic.Pointer[[]string]
	now.Store(&addresses)
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
			_, _ = server.WriteTo(dnsAnswer(query[:n], *now.Load()), client)
		}
	})
	t.Cleanup(func() {
		_ = server.Close()
		serving.Wait()
	})
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", server.LocalAddr().String())
	}}, func(addresses ...string) { now.Store(&addresses) }
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
