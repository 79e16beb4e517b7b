package egress_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/tributary-dev/tributary/pkg/actions/egress"
	"github.com/tributary-dev/tributary/pkg/retry"
)

// spellings are ways to write an address of this machine, or of a cloud's metadata, that have slipped through checks of
// URLs elsewhere. $port stands for the listener's.
var spellings = []string{
	"http://127.0.0.1:$port/", "http://127.1:$port/", "http://127.0.1:$port/", "http://127.000.000.001:$port/",
	"http://0177.0.0.1:$port/", "http://0177.0.0.01:$port/", "http://0x7f.0.0.1:$port/", "http://0x7f000001:$port/",
	"http://0x7F.0x0.0x0.0x1:$port/", "http://2130706433:$port/", "http://017700000001:$port/", "http://0:$port/", "http://0.0.0.0:$port/",
	"http://127.0.0.1.:$port/", "http://localhost:$port/", "http://localhost.:$port/", "http://LOCALHOST:$port/",
	"http://localhost.localdomain:$port/", "http://public.example@127.0.0.1:$port/", "http://public.example:80@127.0.0.1:$port/",
	"http://public.example%40@127.0.0.1:$port/", "http://127.0.0.1:$port#@public.example/", "http://127.0.0.1:$port?@public.example/",
	"http://127.0.0.1%2f@127.0.0.1:$port/", "http://%31%32%37.0.0.1:$port/", "http://１２７.0.0.1:$port/", "http://①②⑦.⓪.⓪.①:$port/",
	"http://127。0。0。1:$port/", "http://ｌｏｃａｌｈｏｓｔ:$port/", "http://[::1]:$port/", "http://[0:0:0:0:0:0:0:1]:$port/",
	"http://[::]:$port/", "http://[::ffff:127.0.0.1]:$port/", "http://[::ffff:7f00:1]:$port/", "http://[::127.0.0.1]:$port/",
	"http://[0:0:0:0:0:ffff:127.0.0.1]:$port/", "http://[64:ff9b::127.0.0.1]:$port/", "http://[64:ff9b:1::7f00:1]:$port/",
	"http://[2002:7f00:1::]:$port/", "http://[2001:0:7f00:1::80ff:fffe]:$port/", "http://[fe80::1%25lo]:$port/", "http://[::1%25lo]:$port/",
	"http://[fc00::1]:$port/", "http://[fd12:3456:789a::1]:$port/", "http://[ff02::1]:$port/", "http://[fec0::1]:$port/",
	"http://10.0.0.1:$port/", "http://172.16.0.1:$port/", "http://192.168.0.1:$port/", "http://100.64.0.1:$port/", "http://198.18.0.1:$port/",
	"http://192.0.0.1:$port/", "http://192.0.2.1:$port/", "http://198.51.100.1:$port/", "http://203.0.113.1:$port/", "http://240.0.0.1:$port/",
	"http://255.255.255.255:$port/", "http://224.0.0.1:$port/", "http://169.254.1.1:$port/",
	"http://169.254.169.254/latest/meta-data/", "http://2852039166/", "http://0xa9fea9fe/", "http://0251.0376.0251.0376/", "http://169.254.43518/",
	"http://[::ffff:169.254.169.254]/", "http://[::ffff:a9fe:a9fe]/", "http://[64:ff9b::a9fe:a9fe]/", "http://[fd00:ec2::254]/",
	"http://metadata.google.internal/computeMetadata/v1/", "http://169.254.169.254.nip.io/", "http://public.example:$port/",
}

// Whatever a resolver makes of the strange ones: here it says of every name that it is this machine.
func TestNoSpellingOfAnAddressLeadsInside(t *testing.T) {
	var reached atomic.Int32
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			reached.Add(1)
		}
	}
	server.Start()
	defer server.Close()
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	transport := egress.NewTransport(egress.Resolving(egress.Options{}, answering(t, "127.0.0.1")))
	defer transport.CloseIdleConnections()
	for _, spelling := range spellings {
		for _, scheme := range []string{"http:", "https:"} {
			text := strings.ReplaceAll(strings.Replace(spelling, "http:", scheme, 1), "$port", port)
			u, err := url.Parse(text)
			if err != nil {
				continue // no request is made of it
			}
			request := (&http.Request{Method: http.MethodGet, URL: u, Header: http.Header{}}).WithContext(t.Context())
			response, err := transport.RoundTrip(request)
			if err == nil {
				_ = response.Body.Close()
				t.Errorf("%s is answered", text)
				continue
			}
			if refused, ok := errors.AsType[*egress.RefusedError](err); ok && !retry.IsPermanent(err) {
				t.Errorf("%s: the refusal %v is not permanent", text, refused)
			}
			if strings.HasSuffix(u.Hostname(), "public.example") && !retry.IsPermanent(err) {
				t.Errorf("%s: error is %v, want a refusal", text, err)
			}
		}
	}
	if n := reached.Load(); n > 0 {
		t.Errorf("%d connections reached this machine", n)
	}
}

// A name that was good when it was looked at, and is this machine's when it is connected to.
func TestANameThatChangesItsAddressIsJudgedAgain(t *testing.T) {
	var inside, outside atomic.Int32
	count := func(n *atomic.Int32) http.Handler {
		return http.HandlerFunc(func(http.ResponseWriter, *http.Request) { n.Add(1) })
	}
	good := httptest.NewServer(count(&outside))
	defer good.Close()
	_, port, err := net.SplitHostPort(good.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.2:"+port)
	if err != nil {
		t.Skip("there is no second address of this machine: ", err)
	}
	bad := httptest.NewUnstartedServer(count(&inside))
	_ = bad.Listener.Close()
	bad.Listener = listener
	bad.Start()
	defer bad.Close()

	resolver, rebind := rebinding(t, "127.0.0.1")
	transport := egress.NewTransport(egress.Resolving(egress.Options{AllowPrivate: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}, resolver))
	defer transport.CloseIdleConnections()
	ask := func() error {
		response, err := roundTrip(t, transport, "http://rebind.example.:"+port)
		if err == nil {
			egress.Drain(response.Body)
		}
		return err
	}
	if err := ask(); err != nil || outside.Load() != 1 {
		t.Fatalf("while its address is allowed: %v", err)
	}
	transport.CloseIdleConnections()
	rebind("127.0.0.2")
	if err := ask(); !retry.IsPermanent(err) {
		t.Errorf("with another address: %v, want a refusal", err)
	}
	// Both at once: what is allowed is tried, what is not is not.
	rebind("127.0.0.2", "127.0.0.1")
	for range 5 {
		transport.CloseIdleConnections()
		if err := ask(); err != nil {
			t.Errorf("with one address that is allowed: %v", err)
		}
	}
	if inside.Load() > 0 || outside.Load() != 6 {
		t.Errorf("%d requests reached the address that is refused, %d the other", inside.Load(), outside.Load())
	}
}

func TestANetworkDoesNotAllowTheMetadataInIt(t *testing.T) {
	cases := map[string]struct {
		allow, address string
		refused        bool
	}{
		"a network around it":        {"169.254.0.0/16", "169.254.169.254", true},
		"everything":                 {"0.0.0.0/0", "169.254.169.254", true},
		"a unique local network":     {"fd00::/8", "fd00:ec2::254", true},
		"a shared network":           {"100.64.0.0/10", "100.100.100.200", true},
		"the address itself":         {"169.254.169.254/32", "169.254.169.254", false},
		"the address itself, mapped": {"169.254.169.254/32", "::ffff:169.254.169.254", false},
		"another of the network":     {"169.254.0.0/16", "169.254.1.1", false},
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // nothing is to be sent: only the judgement is asked for
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			dialer := egress.NewDialer([]netip.Prefix{netip.MustParsePrefix(c.allow)})
			using := ctx
			if c.refused {
				using = t.Context()
			}
			conn, err := dialer.DialContext(using, "tcp", net.JoinHostPort(c.address, "9"))
			if err == nil {
				_ = conn.Close()
			}
			if retry.IsPermanent(err) != c.refused {
				t.Errorf("error is %v, refused should be %t", err, c.refused)
			}
		})
	}
}

func TestTransportAsksNoProxy(t *testing.T) {
	var asked atomic.Int32
	proxy := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer proxy.Close()
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"} {
		t.Setenv(name, proxy.URL)
	}
	transport := egress.NewTransport(egress.Resolving(egress.Options{AllowPrivate: loopback}, answering(t, "127.0.0.3")))
	defer transport.CloseIdleConnections()
	for _, scheme := range []string{"http", "https"} {
		if _, err := roundTrip(t, transport, scheme+"://public.example.:1/"); err == nil {
			t.Error("somebody answered")
		}
	}
	if asked.Load() > 0 {
		t.Error("the proxy of the environment was asked")
	}
}

func TestTransportReadsNoEndlessHeaders(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for range 1000 {
			w.Header().Add("X-Filler", strings.Repeat("x", 1000))
		}
	}))
	defer server.Close()
	transport := egress.NewTransport(egress.Options{AllowPrivate: loopback})
	defer transport.CloseIdleConnections()
	if _, err := roundTrip(t, transport, server.URL); err == nil {
		t.Error("a megabyte of headers was taken")
	}
}
