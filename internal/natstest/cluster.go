package natstest

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/tributary-dev/tributary/internal/freeport"
)

const (
	reconnectWait = 20 * time.Millisecond
	readyWithin   = time.Minute
)

// Servers is a cluster of one test, for streams with replicas.
type Servers []*Server

// Cluster starts n servers that know each other, and returns when JetStream has a leader.
func Cluster(t testing.TB, n int) Servers {
	t.Helper()
	routes := make([]*url.URL, n)
	for i := range routes {
		routes[i] = &url.URL{Scheme: "nats", Host: freeAddress(t)}
	}
	servers := make(Servers, n)
	for i := range servers {
		servers[i] = Start(t, func(o *server.Options) {
			o.ServerName = fmt.Sprintf("n%d", i+1)
			o.Cluster.Name = "test"
			o.Cluster.Host = routes[i].Hostname()
			_, _ = fmt.Sscan(routes[i].Port(), &o.Cluster.Port)
			o.Routes = routes
		})
	}
	js := servers.JetStream(t)
	deadline := time.Now().Add(readyWithin)
	again := func(try func() error) {
		t.Helper()
		for err := try(); err != nil; err = try() {
			if time.Now().After(deadline) {
				t.Fatalf("cluster of %d is not ready within %s: %v", n, readyWithin, err)
			}
			time.Sleep(reconnectWait)
		}
	}
	// A stream on all servers is the fact that says that each of them takes part.
	again(func() error {
		_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "READY", Replicas: n})
		return err
	})
	again(func() error {
		err := js.DeleteStream(t.Context(), "READY")
		if errors.Is(err, jetstream.ErrStreamNotFound) { // an answer was lost
			return nil
		}
		return err
	})
	return servers
}

// Leaks exempts goroutines of the server from goleak in tests that use a Cluster: a server that is stopped while it makes the
// replicas of a stream may leave a stream's store open (seen with 2.15.2, in one of twenty runs on a busy machine).
func Leaks() []goleak.Option {
	const path = "github.com/nats-io/nats-server/v2/server"
	return []goleak.Option{
		goleak.IgnoreAnyFunction(path + ".(*fileStore).flushStreamStateLoop"),
		goleak.IgnoreAnyFunction(path + "/ats.Register.func1"), // the clock of all stores
	}
}

// URL names all servers, with commas between.
func (s Servers) URL() string {
	urls := make([]string, len(s))
	for i, one := range s {
		urls[i] = one.URL()
	}
	return strings.Join(urls, ",")
}

// Conn connects to any of the servers; the connection moves to another one when its own stops.
func (s Servers) Conn(t testing.TB, options ...nats.Option) *nats.Conn {
	t.Helper()
	return connect(t, s.URL(), options)
}

// JetStream gives JetStream on a connection of its own.
func (s Servers) JetStream(t testing.TB, options ...nats.Option) jetstream.JetStream {
	t.Helper()
	return newJetStream(t, s.Conn(t, options...))
}

// freeAddress is for a route, which has to be known before its server starts.
func freeAddress(t testing.TB) string {
	t.Helper()
	port, err := freeport.Get()
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}
