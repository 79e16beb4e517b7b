package actionstest

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
)

// Script is what a raw receiver does with the nth request of all, from 0, that came over conn: what it leaves open waits
// for the next one.
type Script func(n int, conn net.Conn, request *http.Request)

// Raw starts a receiver that does what a script says, over TLS where it is secure; ended gets a value for each connection that it is through with.
func Raw(t testing.TB, secure bool, do Script) (url string, count func() int, ended chan struct{}) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	scheme := "http://"
	if secure {
		scheme = "https://"
		server := httptest.NewUnstartedServer(nil)
		server.StartTLS() // for its certificate
		server.Close()
		listener = tls.NewListener(listener, server.TLS)
	}
	var mu sync.Mutex
	requests := 0
	ended = make(chan struct{}, 1000)
	var serving sync.WaitGroup
	serve := func(conn net.Conn) {
		defer func() { _ = conn.Close(); ended <- struct{}{} }()
		reader := bufio.NewReader(conn)
		for {
			request, err := http.ReadRequest(reader)
			if err != nil {
				return
			}
			mu.Lock()
			n := requests
			requests++
			mu.Unlock()
			if request.ContentLength < 1<<20 {
				_, _ = io.Copy(io.Discard, request.Body)
			}
			if do(n, conn, request); request.Close {
				return
			}
		}
	}
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { serve(conn) })
		}
	})
	t.Cleanup(func() { _ = listener.Close(); serving.Wait() })
	return scheme + listener.Addr().String(), func() int {
		mu.Lock()
		defer mu.Unlock()
		return requests
	}, ended
}
