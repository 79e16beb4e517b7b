package egress_test

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tributary-dev/tributary/pkg/actions/egress"
)

func TestAHeadSaysWhatNetHTTPWouldWrite(t *testing.T) {
	type change func(*http.Request)
	header := func(name string, values ...string) change {
		return func(r *http.Request) { r.Header[name] = values }
	}
	cases := map[string]struct {
		url    string
		left   bool // to net/http
		change change
	}{
		"a path and a query":                {url: "http://a.example/b%2Fc?d=e%20f"},
		"no path":                           {url: "http://a.example"},
		"a port":                            {url: "https://a.example:8443/"},
		"an address":                        {url: "http://127.0.0.1:80/x"},
		"a user, who is in the header":      {url: "http://me:pass@a.example/"},
		"a fragment, which is not sent":     {url: "http://a.example/#x"},
		"another host":                      {url: "http://a.example/", change: func(r *http.Request) { r.Host = "b.example" }},
		"a header twice":                    {url: "http://a.example/", change: header("X-A", "1", "2")},
		"a header without a value":          {url: "http://a.example/", change: header("X-A", "")},
		"a value with space around it":      {url: "http://a.example/", change: header("X-A", " \t1 2\t ")},
		"a name that is not canonical":      {url: "http://a.example/", change: header("idempotency-key", "1")},
		"a length of the caller's":          {url: "http://a.example/", change: header("Content-Length", "7")},
		"a host among the headers":          {url: "http://a.example/", change: header("Host", "b.example")},
		"an encoding of the caller's":       {url: "http://a.example/", change: header("Transfer-Encoding", "chunked")},
		"an address of IPv6":                {url: "http://[::1]:80/x", left: true},
		"a name that is not ASCII":          {url: "http://ä.example/", left: true},
		"no User-Agent":                     {url: "http://a.example/", left: true, change: func(r *http.Request) { delete(r.Header, "User-Agent") }},
		"a length that is not known":        {url: "http://a.example/", left: true, change: func(r *http.Request) { r.ContentLength = -1 }},
		"no body":                           {url: "http://a.example/", left: true, change: func(r *http.Request) { r.Body, r.ContentLength = nil, 0 }},
		"a connection that is to be closed": {url: "http://a.example/", left: true, change: func(r *http.Request) { r.Close = true }},
		"a host that ends the line":         {url: "http://a.example/", left: true, change: func(r *http.Request) { r.Host = "b\r\nX: y" }},
		"a path that ends the line":         {url: "http://a.example/", left: true, change: func(r *http.Request) { r.URL.Opaque = "/ HTTP/1.1\r\nX: y" }},
		"a method that ends the line":       {url: "http://a.example/", left: true, change: func(r *http.Request) { r.Method = "POST / HTTP/1.1\r\nX: y" }},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			request, err := http.NewRequest(http.MethodPost, c.url, strings.NewReader("body"))
			if err != nil {
				t.Fatal(err)
			}
			request.Header["User-Agent"] = []string{"x"}
			if c.change != nil {
				c.change(request)
			}
			head, usual := egress.AppendHead(nil, request)
			if usual == c.left {
				t.Fatalf("usual is %t", usual)
			}
			if !usual {
				return
			}
			var theirs bytes.Buffer
			if err := request.Write(&theirs); err != nil {
				t.Fatal(err)
			}
			if got, want := parsed(t, append(head, "body"...)), parsed(t, theirs.Bytes()); !cmp.Equal(got, want) {
				t.Errorf("it differs (-net/http +ours):\n%s", cmp.Diff(want, got))
			}
		})
	}
}

// parsed reads a request, and gives what is to be the same.
func parsed(t *testing.T, raw []byte) []any {
	t.Helper()
	r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw)))
	if err != nil {
		t.Fatalf("%v: %q", err, raw)
	}
	return []any{len(raw), r.Method, r.RequestURI, r.Proto, r.Host, r.ContentLength, r.TransferEncoding, r.Close, r.Header}
}

func TestABodyThatIsShorterThanItSaysIsNoRequest(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	defer server.Close()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL, strings.NewReader("body"))
	if err != nil {
		t.Fatal(err)
	}
	request.Header["User-Agent"] = []string{"x"}
	request.ContentLength = 1000
	transport := egress.NewTransport(egress.Options{AllowPrivate: loopback})
	t.Cleanup(transport.CloseIdleConnections)
	if response, err := transport.RoundTrip(request); err == nil {
		t.Errorf("it is answered: %s", response.Status)
	}
}
