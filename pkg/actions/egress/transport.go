package egress

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"
)

// Transport sends requests by HTTP/1.1, over connections that it keeps for the next ones to the same host. It is safe for
// concurrent use.
//
// Each request is sent once: no other connection is tried where one breaks, whatever the method, since the receiver may have
// read what it was sent. A request is written and its answer read by the goroutine that calls: net/http's own transport has
// two more for each connection, and handing the call from one to the other cost as much as the call. It follows no redirect,
// asks no proxy, and keeps no cookies; under an http.Client, CheckRedirect must say so.
type Transport struct {
	dial, dialTLS func(ctx context.Context, network, address string) (net.Conn, error)
	most, perHost int // of idle connections
	idleFor       time.Duration

	mu    sync.Mutex
	idle  map[origin][]*conn // those used last at the end; guarded by mu
	count int                // of idle; guarded by mu
	sweep *time.Timer        // nil where nothing is idle; guarded by mu
}

// origin is what connections are kept for. Two spellings of one have connections of their own.
type origin struct{ scheme, host string }

// The errors of requests that can't be sent. They quote nothing of them.
var (
	errNoURL    = errors.New("the request has no http://… or https://… URL")
	errNoHeader = errors.New("a header of the request holds a character that can't be sent")
)

// RoundTrip sends the request and reads the answer's headers. The caller reads the body to its end, or closes it; request's
// context ends both. An answer of a status that is only on the way (1xx) is read over.
func (t *Transport) RoundTrip(request *http.Request) (*http.Response, error) {
	err := check(request)
	var c *conn
	if err == nil {
		c, err = t.connect(request)
	}
	if err != nil {
		if request.Body != nil {
			_ = request.Body.Close() // nothing of it was read
		}
		return nil, err
	}
	return c.exchange(request)
}

// check refuses what net/http would write in another way than it was given.
func check(request *http.Request) error {
	if u := request.URL; u == nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return errNoURL
	}
	for name, values := range request.Header {
		if !ValidHeaderName(name) {
			return errNoHeader
		}
		for _, value := range values {
			if !ValidHeaderValue(value) {
				return errNoHeader
			}
		}
	}
	return nil
}

// connect gives a connection that was used before, and is still there, or else a new one.
func (t *Transport) connect(request *http.Request) (*conn, error) {
	ctx, u := request.Context(), request.URL
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	to := origin{u.Scheme, u.Host}
	for c := t.take(to); c != nil; c = t.take(to) {
		if time.Since(c.since) < t.idleFor && c.quiet() {
			return c, nil
		}
		c.end()
	}
	dial, port := t.dial, "80"
	if to.scheme == "https" {
		dial, port = t.dialTLS, "443"
	}
	dialed, err := dial(ctx, "tcp", net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), port)))
	if err != nil {
		return nil, err
	}
	return newConn(t, to, dialed), nil
}

func (t *Transport) take(from origin) *conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := t.idle[from]
	if len(list) == 0 {
		return nil
	}
	last := len(list) - 1
	c := list[last]
	list[last] = nil
	t.idle[from] = list[:last]
	t.count--
	return c
}

// keep keeps a connection for the next request, where there is room.
func (t *Transport) keep(c *conn) {
	c.since = time.Now()
	t.mu.Lock()
	list := t.idle[c.origin]
	full := t.count >= t.most || len(list) >= t.perHost
	if !full {
		t.idle[c.origin] = append(list, c)
		t.count++
		if t.sweep == nil {
			t.sweep = time.AfterFunc(t.idleFor, t.endOld)
		}
	}
	t.mu.Unlock()
	if full {
		c.end()
	}
}

// endOld ends what was idle for too long, and comes again while there is more.
func (t *Transport) endOld() {
	var old []*conn
	now, next := time.Now(), time.Duration(-1)
	t.mu.Lock()
	for from, list := range t.idle {
		young := 0
		for young < len(list) && now.Sub(list[young].since) >= t.idleFor {
			young++
		}
		old = append(old, list[:young]...)
		t.count -= young
		if young == len(list) {
			delete(t.idle, from)
			continue
		}
		t.idle[from] = append([]*conn(nil), list[young:]...)
		if left := t.idleFor - now.Sub(list[young].since); next < 0 || left < next {
			next = left
		}
	}
	t.sweep = nil
	if next >= 0 {
		t.sweep = time.AfterFunc(next, t.endOld)
	}
	t.mu.Unlock()
	for _, c := range old {
		c.end()
	}
}

// CloseIdleConnections ends the connections that no request uses.
func (t *Transport) CloseIdleConnections() {
	t.mu.Lock()
	idle := t.idle
	t.idle, t.count = make(map[origin][]*conn), 0
	if t.sweep != nil {
		t.sweep.Stop()
		t.sweep = nil
	}
	t.mu.Unlock()
	for _, list := range idle {
		for _, c := range list {
			c.end()
		}
	}
}
