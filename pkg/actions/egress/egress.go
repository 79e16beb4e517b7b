// Package egress is the way out for everything that speaks HTTP for an action. It judges the address that is
// connected to, after names are resolved, so that neither a URL nor a DNS answer leads into the deployment's own
// networks, unless actions.allow_private names them.
//
// It promises that a request is sent once, that no proxy of the environment is used, that TLS is 1.2 or newer and goes by the
// rules of actions.tls, and that connections are reused. It does not judge names, ports or paths.
package egress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"code.dny.dev/ssrf"

	"github.com/tributary-dev/tributary/pkg/retry"
)

// Options of a transport. The zero value refuses every address that is not public.
type Options struct {
	AllowPrivate []netip.Prefix // actions.allow_private: networks that are not public, and allowed
	Concurrency  int            // most requests at one time, all of which may go to one host; 0 means 64
	TLS          *TLS           // nil for the system's roots, and no certificate of ours

	resolver *net.Resolver // nil for the system's
}

const (
	defaultConcurrency = 64
	connectTimeout     = 10 * time.Second

	// Common servers close a connection that was idle for 5 seconds. Ours goes first, since a request that meets the
	// closing can't be told from one that was received, and costs an attempt.
	idleTimeout = 4 * time.Second
)

// NewTransport makes the transport that actions share. HTTP/2 stays off: one connection for all requests to a host would let
// one slow answer hold the others.
func NewTransport(o Options) *Transport {
	concurrency := o.Concurrency
	if concurrency <= 0 {
		concurrency = defaultConcurrency
	}
	dialer := NewDialer(o.AllowPrivate)
	dialer.resolver = o.resolver
	return &Transport{
		dial:    dialer.DialContext,
		dialTLS: dialer.dialTLS(o.TLS),
		most:    4 * concurrency,
		perHost: concurrency,
		idleFor: idleTimeout,
		idle:    make(map[origin][]*conn),
	}
}

// Dialer connects to public addresses, and to those that are allowed besides. It is safe for concurrent use.
type Dialer struct {
	guard    *ssrf.Guardian
	allow    []netip.Prefix
	resolver *net.Resolver // nil for the system's
}

// NewDialer makes a dialer; allow are the networks of actions.allow_private.
func NewDialer(allow []netip.Prefix) *Dialer {
	d := &Dialer{guard: ssrf.New(ssrf.WithAnyNetwork(), ssrf.WithAnyPort())}
	for _, prefix := range allow {
		d.allow = append(d.allow, unmap(prefix))
	}
	return d
}

// DialContext connects like net.Dialer.DialContext. Where every address of the host is refused, the error is a
// *RefusedError, marked retry.Permanent.
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	var tried atomic.Bool // an address that is not refused: its fault may pass
	dialer := net.Dialer{
		Timeout:  connectTimeout,
		Resolver: d.resolver,
		ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
			err := d.judge(host, address)
			if err == nil {
				tried.Store(true)
			}
			return err
		},
	}
	conn, err := dialer.DialContext(ctx, network, address)
	if err == nil {
		return conn, nil
	}
	var refused *RefusedError
	if errors.As(err, &refused) && !tried.Load() {
		return nil, retry.Permanent(refused)
	}
	return nil, err
}

// judge refuses address, which is an address and port about to be connected to for host.
func (d *Dialer) judge(host, address string) error {
	parsed, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("judge address of %q: %w", host, err)
	}
	addr := parsed.Addr().WithZone("").Unmap()
	for _, prefix := range d.allow {
		if prefix.Contains(addr) && (prefix.IsSingleIP() || !slices.Contains(metadata, addr)) {
			return nil
		}
	}
	if d.guard.SafeAddr(addr) == nil {
		return nil
	}
	return &RefusedError{Host: host, Addr: addr}
}

// unmap makes a prefix of IPv4 addresses from one that is written as IPv4-mapped IPv6.
func unmap(prefix netip.Prefix) netip.Prefix {
	const mapped = 128 - 32
	if addr := prefix.Addr(); addr.Is4In6() && prefix.Bits() >= mapped {
		return netip.PrefixFrom(addr.Unmap(), prefix.Bits()-mapped)
	}
	return prefix
}

// MaxBody is how much of an answer is read.
const MaxBody = 64 << 10

// Drain reads an answer's body to its end, so that the connection can be used again, and closes it. A body beyond
// MaxBody costs the connection instead.
func Drain(body io.ReadCloser) {
	if body == http.NoBody {
		return
	}
	_, _ = io.CopyN(io.Discard, body, MaxBody+1) // the answer is known by its status; what follows decides nothing
	_ = body.Close()
}
