package egress_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/pkg/actions/actionstest"
	"github.com/tributary-dev/tributary/pkg/actions/egress"
)

// to gives a transport that reaches raw receivers, secure ones too. It is closed before they are waited for.
func to(t *testing.T) *egress.Transport {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	server.StartTLS()
	server.Close()
	return trusting(t, server)
}

func say(conn io.Writer, text string) { _, _ = io.WriteString(conn, text) }

// ask sends a request, and reads the answer to its end.
func ask(ctx context.Context, transport http.RoundTripper, method, url, body string) (status int, answer string, err error) {
	request, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, string(text), err
}

const empty = "HTTP/1.1 204 No Content\r\n\r\n"

// Whatever the method: the receiver has read the request before it closes the connection, and may have done it.
func TestARequestIsSentOnce(t *testing.T) {
	for _, method := range []string{"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "POST", "PATCH"} {
		for _, body := range []string{"", "{}"} {
			t.Run(method+" "+body, func(t *testing.T) {
				url, count, _ := actionstest.Raw(t, false, func(n int, conn net.Conn, request *http.Request) {
					if n == 1 {
						request.Close = true
						return
					}
					say(conn, empty)
				})
				transport := to(t)
				if status, _, err := ask(t.Context(), transport, method, url, body); status != http.StatusNoContent {
					t.Fatal(status, err)
				}
				if status, _, err := ask(t.Context(), transport, method, url, body); err == nil {
					t.Errorf("the request that was not answered has the status %d", status)
				}
				if n := count(); n != 2 {
					t.Errorf("two requests were sent as %d", n)
				}
			})
		}
	}
}

func TestAConnectionThatHasEndedIsNotUsed(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("secure %t", secure), func(t *testing.T) {
			url, count, ended := actionstest.Raw(t, secure, func(_ int, conn net.Conn, request *http.Request) {
				say(conn, empty)
				request.Close = true
			})
			transport := to(t)
			for range 5 {
				if status, _, err := ask(t.Context(), transport, "POST", url, "{}"); status != http.StatusNoContent {
					t.Fatal(status, err)
				}
				<-ended
			}
			if n := count(); n != 5 {
				t.Errorf("5 requests were sent as %d", n)
			}
		})
	}
}

// A receiver that says more than it was asked must not answer the next request by that.
func TestWhatWasNotAskedForAnswersNothing(t *testing.T) {
	const first = "HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok"
	for _, secure := range []bool{false, true} {
		for name, more := range map[string]func(conn net.Conn){
			"in one piece": func(conn net.Conn) { say(conn, first+first) },
			"in two":       func(conn net.Conn) { say(conn, first); say(conn, first) },
		} {
			t.Run(fmt.Sprintf("%s, secure %t", name, secure), func(t *testing.T) {
				said := make(chan struct{})
				url, _, _ := actionstest.Raw(t, secure, func(n int, conn net.Conn, _ *http.Request) {
					if n > 0 {
						say(conn, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
						return
					}
					more(conn)
					close(said)
				})
				transport := to(t)
				if status, answer, err := ask(t.Context(), transport, "POST", url, "{}"); status != http.StatusCreated || answer != "ok" {
					t.Fatal(status, answer, err)
				}
				<-said
				if status, _, err := ask(t.Context(), transport, "POST", url, "{}"); status != http.StatusServiceUnavailable {
					t.Errorf("the second request is answered %d, %v", status, err)
				}
			})
		}
	}
}

func TestAnswersOfManyKinds(t *testing.T) {
	cases := map[string]struct {
		method, says string
		status       int
		answer       string
		connections  int // of two requests
	}{
		"with a length":         {"POST", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, "ok", 1},
		"in chunks":             {"POST", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: y\r\n\r\n", 200, "ok", 1},
		"without a body":        {"PUT", empty, 204, "", 1},
		"of a HEAD":             {"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", 200, "", 1},
		"to its end":            {"POST", "HTTP/1.0 200 OK\r\n\r\nok", 200, "ok", 2},
		"the last one":          {"POST", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", 200, "ok", 2},
		"of HTTP/1.0":           {"POST", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, "ok", 2},
		"behind those before":   {"POST", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + empty, 204, "", 1},
		"of another protocol":   {"GET", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", 101, "", 2},
		"that is a redirect":    {"GET", "HTTP/1.1 302 Found\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n", 302, "", 1},
		"that is not modified":  {"GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n", 304, "", 1},
		"of ours, compressed":   {"GET", "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nok", 200, "ok", 1},
		"that is never reached": {"GET", strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 100), 0, "", 2},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			conns := make(map[net.Conn]bool)
			url, _, _ := actionstest.Raw(t, false, func(_ int, conn net.Conn, request *http.Request) {
				mu.Lock()
				conns[conn] = true
				mu.Unlock()
				say(conn, c.says)
				request.Close = c.connections == 2
			})
			transport := to(t)
			for range 2 {
				status, answer, err := ask(t.Context(), transport, c.method, url, "")
				if status != c.status || answer != c.answer || (err == nil) != (c.status != 0 && c.status != 101) && c.status != 101 {
					t.Errorf("answered %d %q, %v", status, answer, err)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			if len(conns) != c.connections {
				t.Errorf("2 requests took %d connections, want %d", len(conns), c.connections)
			}
		})
	}
}

func TestALargeBodyIsRefusedBeforeItIsRead(t *testing.T) {
	for _, secure := range []bool{false, true} {
		url, _, _ := actionstest.Raw(t, secure, func(_ int, conn net.Conn, _ *http.Request) {
			say(conn, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno")
		})
		status, answer, err := ask(t.Context(), to(t), "POST", url, strings.Repeat("x", 16<<20))
		if status != http.StatusRequestEntityTooLarge || answer != "no" {
			t.Errorf("secure %t: answered %d %q, %v", secure, status, answer, err)
		}
	}
}

func TestACallEndsWithItsContext(t *testing.T) {
	for name, says := range map[string]string{
		"before the answer": "", "within its headers": "HTTP/1.1 200 OK\r\nX:", "within its body": "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nbeg",
	} {
		for _, size := range []int{2, 64 << 20} {
			t.Run(fmt.Sprintf("%s, %d bytes sent", name, size), func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				url, _, ended := actionstest.Raw(t, false, func(_ int, conn net.Conn, _ *http.Request) {
					say(conn, says)
					cancel()
				})
				status, _, err := ask(ctx, to(t), "POST", url, strings.Repeat("x", size))
				if err == nil {
					t.Errorf("answered %d", status)
				}
				<-ended // the connection is not kept
			})
		}
	}
}

func TestIdleConnectionsEnd(t *testing.T) {
	url, _, ended := actionstest.Raw(t, false, func(_ int, conn net.Conn, _ *http.Request) { say(conn, empty) })
	transport := to(t)
	egress.IdleFor(transport, 50*time.Millisecond)
	for range 3 {
		if status, _, err := ask(t.Context(), transport, "POST", url, "{}"); status != http.StatusNoContent {
			t.Fatal(status, err)
		}
		<-ended
	}
}

func TestWhatCannotBeSentIsNotConnectedFor(t *testing.T) {
	transport := egress.NewTransport(egress.Options{}) // which refuses all that is connected to here
	url := "http://127.0.0.1:1/"
	for name, change := range map[string]func(*http.Request){
		"no host":               func(r *http.Request) { r.URL.Host = "" },
		"another scheme":        func(r *http.Request) { r.URL.Scheme = "file" },
		"a header of two lines": func(r *http.Request) { r.Header["X"] = []string{"a\r\nY: b"} },
		"a name of two lines":   func(r *http.Request) { r.Header["X: a\r\nY"] = []string{"b"} },
	} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		change(request)
		_, err = transport.RoundTrip(request)
		if refused, tried := errors.AsType[*egress.RefusedError](err); err == nil || tried {
			t.Errorf("%s: %v, %v", name, err, refused)
		}
	}
}

// Many at a time, of receivers that end connections as they like: each gets the answer to what it has asked.
func TestEachRequestGetsItsOwnAnswer(t *testing.T) {
	const senders, each = 16, 60
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if len(body)%7 == 0 {
			w.Header().Set("Connection", "close")
		}
		if len(body)%3 == 0 {
			w.(http.Flusher).Flush() // in chunks
		}
		_, _ = w.Write(body)
	}))
	defer server.Close()
	transport := egress.NewTransport(egress.Options{AllowPrivate: loopback, Concurrency: 4})
	defer transport.CloseIdleConnections()
	var all sync.WaitGroup
	for s := range senders {
		all.Go(func() {
			for i := range each {
				body := fmt.Sprintf("%d/%d%s", s, i, strings.Repeat("x", i*i*20)) // up to 70 kB
				if _, answer, err := ask(t.Context(), transport, "POST", server.URL, body); answer != body {
					t.Errorf("sender %d: request %d of %d bytes got %d bytes, %v", s, i, len(body), len(answer), err)
					return
				}
			}
		})
	}
	all.Wait()
}
