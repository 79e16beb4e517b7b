package harness

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// Proxy is a TCP connection's way to a server, which can be broken: for one process, while all others go their own.
type Proxy struct {
	target   string
	listener net.Listener
	nats     bool // what clients send is read as NATS's protocol, so that some of it can be lost
	running  sync.WaitGroup

	mu    sync.Mutex
	cut   bool              // connections end, and new ones are closed at once; guarded by mu
	still chan struct{}     // not nil: nothing passes until it is closed; guarded by mu
	lose  []string          // subjects whose messages are lost on their way to the server, by their beginning; guarded by mu
	conns map[net.Conn]bool // guarded by mu
}

// newProxy listens on a free port until the end of the test.
func newProxy(t testing.TB, target string, nats bool) *Proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{target: target, listener: listener, nats: nats, conns: map[net.Conn]bool{}}
	p.running.Go(p.accept)
	t.Cleanup(func() {
		_ = listener.Close()
		p.Cut()
		p.Mend()
		p.running.Wait()
	})
	return p
}

// Port is where the proxy listens.
func (p *Proxy) Port() int { return p.listener.Addr().(*net.TCPAddr).Port }

// Cut ends all connections, and refuses new ones until Mend.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = true
	for conn := range p.conns {
		_ = conn.Close()
	}
}

// Lose drops every message to subjects that begin with one of prefixes, until Mend. Who sent it gets no answer, and the
// connection stays.
func (p *Proxy) Lose(prefixes ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lose = prefixes
}

// Still lets nothing pass any more in either direction until Mend, as a network whose packets vanish: connections stay, new
// ones can be made, and nobody says anything on them.
func (p *Proxy) Still() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.still == nil {
		p.still = make(chan struct{})
	}
}

// Mend undoes Cut, Lose and Still.
func (p *Proxy) Mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut, p.lose = false, nil
	if p.still != nil {
		close(p.still)
		p.still = nil
	}
}

// way is a connection that is read from, as far as the proxy lets it.
type way struct {
	net.Conn
	proxy *Proxy
}

func (w way) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	w.proxy.mu.Lock()
	still := w.proxy.still
	w.proxy.mu.Unlock()
	if still != nil {
		<-still
	}
	return n, err
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		if !p.keep(client) {
			continue
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil || !p.keep(server) {
			p.end(client)
			continue
		}
		p.running.Go(func() { p.carry(server, client) })
		p.running.Go(func() {
			_, _ = io.Copy(client, way{server, p})
			p.end(client, server)
		})
	}
}

// keep notes a connection; it closes it, and is false, where the way is cut.
func (p *Proxy) keep(conn net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut {
		_ = conn.Close()
		return false
	}
	p.conns[conn] = true
	return true
}

func (p *Proxy) end(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range conns {
		_ = conn.Close()
		delete(p.conns, conn)
	}
}

// carry takes what a client sends to the server.
func (p *Proxy) carry(server, client net.Conn) {
	defer p.end(client, server)
	if !p.nats {
		_, _ = io.Copy(server, way{client, p})
		return
	}
	in := bufio.NewReaderSize(way{client, p}, 64<<10)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return
		}
		message, lost, err := p.message(line, in)
		if err != nil {
			return
		}
		if lost {
			continue
		}
		if _, err := server.Write(message); err != nil {
			return
		}
	}
}

// message completes what line begins by its payload, where it has one, and tells whether it is to be lost.
func (p *Proxy) message(line []byte, in io.Reader) (whole []byte, lost bool, err error) {
	verb, rest, _ := bytes.Cut(bytes.TrimRight(line, "\r\n"), []byte(" "))
	if verb := string(bytes.ToUpper(verb)); verb != "PUB" && verb != "HPUB" {
		return line, false, nil
	}
	fields := strings.Fields(string(rest)) // subject, perhaps reply and header size, size
	if len(fields) < 2 {
		return nil, false, fmt.Errorf("no publish: %q", line)
	}
	size, err := strconv.Atoi(fields[len(fields)-1])
	if err != nil {
		return nil, false, err
	}
	whole = append(line, make([]byte, size+len("\r\n"))...)
	if _, err := io.ReadFull(in, whole[len(line):]); err != nil {
		return nil, false, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, prefix := range p.lose {
		lost = lost || strings.HasPrefix(fields[0], prefix)
	}
	return whole, lost, nil
}

// Ways are the proxies between one process and what it talks to.
type Ways struct {
	NATS     []*Proxy // one for each server
	Postgres *Proxy
}

// KVLost loses all that the process sends to the bucket of leases, and nothing else.
func (w *Ways) KVLost() {
	for _, p := range w.NATS {
		p.Lose("$KV.leases.", "$JS.API.STREAM.MSG.GET.KV_leases", "$JS.API.DIRECT.GET.KV_leases")
	}
}

// Mend mends all of them.
func (w *Ways) Mend() {
	for _, p := range append([]*Proxy{w.Postgres}, w.NATS...) {
		p.Mend()
	}
}

// Through gives the service of this name proxies of its own, from its next start on.
func (s *System) Through(name string) *Ways {
	s.t.Helper()
	w := &Ways{Postgres: newProxy(s.t, s.postgresAddress(), false)}
	for _, port := range s.natsPorts() {
		w.NATS = append(w.NATS, newProxy(s.t, fmt.Sprintf("127.0.0.1:%d", port), true))
	}
	if s.ways == nil {
		s.ways = map[string]*Ways{}
	}
	s.ways[name] = w
	return w
}

// environ is the environment that leads a service through its proxies; empty where it has none.
func (w *Ways) environ(s *System) []string {
	if w == nil {
		return nil
	}
	var ports []int
	for _, p := range w.NATS {
		ports = append(ports, p.Port())
	}
	database := strings.Replace(s.Postgres.URL("postgres"), s.postgresAddress(), fmt.Sprintf("127.0.0.1:%d", w.Postgres.Port()), 1)
	return []string{"SHOP_URL=" + database, "TRIBUTARY_NATS_URL=" + natsURL(ports)}
}
