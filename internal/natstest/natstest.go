// Package natstest gives each test NATS servers of its own, in process and in milliseconds: the real server, with
// JetStream on files of the test's temporary directory.
//
// Whatever is started here ends with the test, connections before servers.
package natstest

import (
	"errors"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/internal/dev/natsserver"
	"github.com/tributary-dev/tributary/internal/freeport"
)

// Server is a server of one test. Its methods belong to the test's goroutine, but for URL.
type Server struct {
	options natsserver.Options
	running *natsserver.Server
	url     string
}

// Start starts a server on a free port of 127.0.0.1. configure, where it is given, changes the server's options.
func Start(t testing.TB, configure ...func(*server.Options)) *Server {
	t.Helper()
	s := &Server{options: natsserver.Options{
		StoreDir: t.TempDir(),
		Configure: func(o *server.Options) {
			limits(o)
			for _, change := range configure {
				change(o)
			}
		},
	}}
	s.start(t)
	t.Cleanup(s.Stop)
	return s
}

// limits lets streams reserve what they are configured with, however small the machine's disk is.
func limits(o *server.Options) {
	o.JetStreamMaxStore = 1 << 42
	o.JetStreamMaxMemory = 1 << 34
}

func (s *Server) start(t testing.TB) {
	t.Helper()
	// A port that the system chose could be another's by the time of Restart.
	fixed := s.options.Port != 0
	for {
		if !fixed {
			var err error
			if s.options.Port, err = freeport.Get(); err != nil {
				t.Fatal(err)
			}
		}
		running, err := natsserver.Start(s.options)
		if errors.Is(err, natsserver.ErrPortTaken) && !fixed && t.Context().Err() == nil {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		s.running, s.url = running, running.URL()
		return
	}
}

// URL is what clients connect to; it stays the same over Restart.
func (s *Server) URL() string { return s.url }

// Stop stops the server and returns when it is down. Connections stay, and look for it.
func (s *Server) Stop() { s.running.Shutdown() }

// Restart stops the server, where it still runs, and starts it again on the same port and store.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	s.Stop()
	s.start(t)
}

// Conn connects to the server; the connection survives restarts, and ends with the test.
func (s *Server) Conn(t testing.TB, options ...nats.Option) *nats.Conn {
	t.Helper()
	return connect(t, s.url, options)
}

// JetStream gives JetStream on a connection of its own.
func (s *Server) JetStream(t testing.TB, options ...nats.Option) jetstream.JetStream {
	t.Helper()
	return newJetStream(t, s.Conn(t, options...))
}

func connect(t testing.TB, url string, options []nats.Option) *nats.Conn {
	t.Helper()
	options = append([]nats.Option{
		nats.MaxReconnects(-1),
		nats.ReconnectWait(reconnectWait),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}), // the default one prints
	}, options...)
	conn, err := nats.Connect(url, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	return conn
}

func newJetStream(t testing.TB, conn *nats.Conn) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	return js
}
