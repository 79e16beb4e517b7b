// Package natsserver runs a NATS server with JetStream inside of this process, for `tributary dev` and for tests.
//
// It promises that Start returns a server that takes requests, or an error that says what to change, and that after
// Shutdown nothing of the server runs any more and its store can be opened again. It relies on the store directory
// being on a local file system. It does not do what a deployment needs: no clusters, no TLS, no accounts.
package natsserver

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// DefaultPort is the port that NATS clients expect.
const DefaultPort = server.DEFAULT_PORT

// ErrPortTaken is the error of Start where something else listens on the port.
var ErrPortTaken = errors.New("the port is taken")

// ErrStoreInUse is the error of Start where another server has the store directory.
var ErrStoreInUse = errors.New("the store is in use by another server")

// Options says where the server listens and stores. The zero value listens on a free port of 127.0.0.1 and needs only
// a StoreDir.
type Options struct {
	StoreDir string       // made if missing; required
	Host     string       // 127.0.0.1 by default
	Port     int          // 0 for a free one
	Name     string       // of the server; its id by default
	Log      *slog.Logger // takes the server's warnings and errors; none by default

	// Configure changes what else the server can be told, after all the above.
	Configure func(*server.Options)
}

// Server is a running server.
type Server struct {
	nats *server.Server
	lock *os.File // held on the store until Shutdown
}

const readyWithin = 10 * time.Second

// Start starts a server and returns once it takes connections and JetStream is up. It errors with ErrPortTaken and
// ErrStoreInUse.
func Start(options Options) (*Server, error) {
	if options.StoreDir == "" {
		return nil, errors.New("start NATS server: StoreDir is empty")
	}
	if err := os.MkdirAll(options.StoreDir, 0o700); err != nil {
		return nil, fmt.Errorf("start NATS server: make its store: %w", err)
	}
	lock, err := lockFile(filepath.Join(options.StoreDir, "nats.lock"))
	if err != nil {
		return nil, fmt.Errorf("start NATS server: store %s: %w", options.StoreDir, err)
	}
	nats, err := start(options)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start NATS server: %w", err), lock.Close())
	}
	return &Server{nats: nats, lock: lock}, nil
}

func start(options Options) (*server.Server, error) {
	opts := &server.Options{
		ServerName: options.Name,
		Host:       options.Host,
		Port:       options.Port,
		JetStream:  true,
		StoreDir:   options.StoreDir,
		NoSigs:     true,

		DisableJetStreamBanner: true,
	}
	if opts.Host == "" {
		opts.Host = "127.0.0.1"
	}
	if opts.Port == 0 {
		opts.Port = server.RANDOM_PORT
	}
	if options.Configure != nil {
		options.Configure(opts)
	}
	nats, err := server.NewServer(opts)
	if err != nil {
		return nil, err
	}
	log := &logger{slog: options.Log}
	nats.SetLoggerV2(log, false, false, false)
	nats.Start()
	err = log.fatal()
	if err == nil && !nats.ReadyForConnections(readyWithin) {
		err = fmt.Errorf("not ready within %s", readyWithin)
	}
	if err != nil {
		nats.Shutdown()
		nats.WaitForShutdown()
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%w: something else listens on %s:%d", ErrPortTaken, opts.Host, options.Port)
	}
	if err != nil {
		return nil, err
	}
	return nats, nil
}

// URL is what clients connect to.
func (s *Server) URL() string { return s.nats.ClientURL() }

// Shutdown stops the server and returns once it is down and its store free. It may be called again.
func (s *Server) Shutdown() {
	s.nats.Shutdown()
	s.nats.WaitForShutdown()
	_ = s.lock.Close() // a second Close is an error that says nothing
}
