package egress_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/tributary-dev/tributary/pkg/actions/egress"
	"github.com/tributary-dev/tributary/pkg/retry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestDialRefusesWhatIsNotPublic(t *testing.T) {
	cases := map[string]struct{ address, kind string }{
		"loopback":                    {"127.0.0.1", "private"},
		"another loopback":            {"127.8.8.8", "private"},
		"loopback of IPv6":            {"::1", "private"},
		"unspecified":                 {"0.0.0.0", "not public"},
		"unspecified of IPv6":         {"::", "not public"},
		"private 10/8":                {"10.0.0.1", "private"},
		"private 172.16/12":           {"172.31.255.255", "private"},
		"private 192.168/16":          {"192.168.1.1", "private"},
		"unique local":                {"fd00::1", "private"},
		"carrier-grade NAT":           {"100.64.0.1", "private"},
		"metadata":                    {"169.254.169.254", "a cloud's metadata"},
		"metadata of IPv6":            {"fd00:ec2::254", "a cloud's metadata"},
		"link-local of IPv6":          {"fe80::1", "private"},
		"link-local with a zone":      {"fe80::1%lo", "private"},
		"broadcast":                   {"255.255.255.255", "not public"},
		"multicast":                   {"224.0.0.1", "multicast"},
		"multicast of IPv6":           {"ff02::1", "multicast"},
		"benchmarking":                {"198.18.0.1", "not public"},
		"documentation":               {"192.0.2.1", "not public"},
		"mapped loopback":             {"::ffff:127.0.0.1", "private"},
		"mapped metadata":             {"::ffff:169.254.169.254", "a cloud's metadata"},
		"translated loopback":         {"64:ff9b::7f00:1", "translated"},
		"6to4 of a private address":   {"2002:0a00:0001::1", "translated"},
		"Teredo":                      {"2001:0:4136:e378:8000:63bf:3fff:fdd2", "translated"},
		"IPv4-compatible loopback":    {"::127.0.0.1", "not public"},
		"local-use translation":       {"64:ff9b:1::1", "not public"},
		"site-local, long deprecated": {"fec0::1", "not public"},
		"documentation of IPv6":       {"2001:db8::1", "not public"},
		"discard-only":                {"100::1", "not public"},
	}
	dialer := egress.NewDialer(nil)
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			conn, err := dialer.DialContext(t.Context(), "tcp", net.JoinHostPort(c.address, "9"))
			if err == nil {
				_ = conn.Close()
				t.Fatalf("connected to %s", c.address)
			}
			refused, ok := errors.AsType[*egress.RefusedError](err)
			if !ok || !retry.IsPermanent(err) {
				t.Fatalf("error is %v, want a permanent refusal", err)
			}
			want := "address " + refused.Addr.String() + ` of "` + c.address + `" is ` + c.kind + ": allow it with actions.allow_private"
			if err.Error() != want {
				t.Errorf("error is %q, want %q", err, want)
			}
		})
	}
}

func TestDialLetsPublicAddressesThrough(t *testing.T) {
	dialer := egress.NewDialer(nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // nothing is to be sent: only the judgement is asked for
	for _, address := range []string{"1.1.1.1", "203.0.112.1", "2606:4700:4700::1111", "2a00:1450:4001::1"} {
		conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(address, "9"))
		if err == nil {
			_ = conn.Close()
		}
		if retry.IsPermanent(err) {
			t.Errorf("%s is refused: %v", address, err)
		}
	}
}

func TestDialAllowsTheOperatorsOwnNetworks(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	cases := map[string]struct {
		allow   string
		reaches bool
	}{
		"its prefix":              {"127.0.0.0/8", true},
		"its address":             {"127.0.0.1/32", true},
		"its prefix as IPv6":      {"::ffff:127.0.0.0/104", true},
		"another prefix":          {"10.0.0.0/8", false},
		"another loopback":        {"127.0.0.2/32", false},
		"all of IPv6, not mapped": {"::/0", false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			conn, err := egress.NewDialer([]netip.Prefix{netip.MustParsePrefix(c.allow)}).
				DialContext(t.Context(), "tcp", listener.Addr().String())
			if err == nil {
				_ = conn.Close()
			}
			if c.reaches != (err == nil) {
				t.Errorf("error is %v, reached should be %v", err, c.reaches)
			}
		})
	}
}

func TestDialJudgesTheAddressBehindAName(t *testing.T) {
	_, err := egress.NewDialer(nil).DialContext(t.Context(), "tcp", "localhost:9")
	refused, ok := errors.AsType[*egress.RefusedError](err)
	if !ok || refused.Host != "localhost" || !refused.Addr.IsLoopback() {
		t.Errorf("error is %v, want a refusal of localhost's address", err)
	}
}

// A host with several addresses is refused for good only where all of them are: the fault of another may pass.
func TestDialIsPermanentOnlyWhereAllAddressesAreRefused(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	_ = listener.Close() // nobody listens there any more
	for addresses, permanent := range map[string]bool{
		"127.0.0.1":           false,
		"127.0.0.2":           true,
		"127.0.0.2 127.0.0.3": true,
		"127.0.0.2 127.0.0.1": false,
		"127.0.0.1 127.0.0.2": false,
	} {
		dialer := egress.NewDialer([]netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")})
		dialer.SetResolver(answering(t, strings.Fields(addresses)...))
		_, err := dialer.DialContext(t.Context(), "tcp", "carrier.example.:"+port)
		if err == nil || retry.IsPermanent(err) != permanent {
			t.Errorf("%s: error is %v, permanent should be %v", addresses, err, permanent)
		}
	}
}

func TestTransportSpeaksNoOldTLS(t *testing.T) {
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.TLS = &tls.Config{MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}
	server.Config.ErrorLog = discard
	server.StartTLS()
	defer server.Close()
	_, err := roundTrip(t, trusting(t, server), server.URL)
	if op, ok := errors.AsType[*net.OpError](err); !ok || op.Op != "remote error" {
		t.Errorf("error is %v, want the alert of a server that speaks no newer version", err)
	}
}

func TestTransportVerifiesCertificates(t *testing.T) {
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ErrorLog = discard
	server.StartTLS()
	defer server.Close()
	transport := egress.NewTransport(egress.Options{AllowPrivate: loopback})
	defer transport.CloseIdleConnections()
	_, err := roundTrip(t, transport, server.URL)
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); !ok {
		t.Errorf("error is %v, want a certificate that is not trusted", err)
	}
}

func TestTransportStaysOnHTTP1(t *testing.T) {
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	response, err := roundTrip(t, trusting(t, server), server.URL)
	if err != nil {
		t.Fatal(err)
	}
	if response.ProtoMajor != 1 {
		t.Errorf("the transport speaks %s", response.Proto)
	}
}

func TestDrainKeepsTheConnectionOfASmallAnswer(t *testing.T) {
	cases := map[string]struct {
		size        int
		connections int32
	}{
		"no body":              {0, 1},
		"a small body":         {1000, 1},
		"the largest":          {egress.MaxBody, 1},
		"more than is read":    {egress.MaxBody + 2, 2},
		"much more than that ": {100 * egress.MaxBody, 2},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var connections atomic.Int32
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				_, _ = io.WriteString(w, strings.Repeat("x", c.size))
			}))
			server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
				if state == http.StateNew {
					connections.Add(1)
				}
			}
			server.Start()
			defer server.Close()
			transport := egress.NewTransport(egress.Options{AllowPrivate: loopback})
			defer transport.CloseIdleConnections()
			for range 2 {
				response, err := roundTrip(t, transport, server.URL)
				if err != nil {
					t.Fatal(err)
				}
				egress.Drain(response.Body)
			}
			if got := connections.Load(); got != c.connections {
				t.Errorf("two requests took %d connections, want %d", got, c.connections)
			}
		})
	}
}

func roundTrip(t *testing.T, transport http.RoundTripper, address string) (*http.Response, error) {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	response, err := transport.RoundTrip((&http.Request{Method: http.MethodGet, URL: u, Header: http.Header{}}).WithContext(t.Context()))
	if err == nil {
		t.Cleanup(func() { _ = response.Body.Close() })
	}
	return response, err
}
