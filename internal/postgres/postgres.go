// Package postgres finds PostgreSQL's binaries on a machine, fetches them where there are none, and runs a private server
// with them: for `tributary dev`, and for tests.
//
// A server listens on 127.0.0.1 alone, trusts whoever connects, and is ready for logical replication. It is a child of this
// process and, on Linux, ends with it, also after kill -9. PostgreSQL refuses to run as root, so for root it runs in a user
// namespace, in which our own id has another number: nothing has to be chowned.
//
// It is no way to run a database that other people need.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tributary-dev/tributary/internal/freeport"
)

// User is the superuser of every server that this package makes. It has no password.
const User = "postgres"

// Options of a server; the zero value of each but Dir works.
type Options struct {
	Dir      string            // the data directory; made, and filled by initdb, where it is missing or empty
	Port     int               // 0 takes a free one
	Settings map[string]string // of postgresql.conf; they override those of this package
	Log      io.Writer         // gets what the server writes; nil drops it, but for the last lines, which errors show
	NoSync   bool              // fsync off, for data that nobody will miss
}

// Server is a PostgreSQL server that runs as our child. Its methods are safe for concurrent use.
type Server struct {
	options  Options
	binaries Binaries

	mu      sync.Mutex // held while the server is started or ended
	port    int
	process *process // the last one that was started
}

// Start finds PostgreSQL (see Locate) and starts a server in o.Dir; it returns when the server takes connections. ctx bounds
// the start, not the server's life, which ends with Stop, with Kill, or with this process.
func Start(ctx context.Context, o Options) (*Server, error) {
	if o.Dir == "" {
		return nil, errors.New("start PostgreSQL: Options.Dir is empty")
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("start PostgreSQL: %w", err)
	}
	o.Dir = dir
	binaries, err := Locate(ctx)
	if err != nil {
		return nil, fmt.Errorf("start PostgreSQL: %w", err)
	}
	s := &Server{options: o, binaries: binaries, port: o.Port}
	if err := s.initialize(ctx); err != nil {
		return nil, err
	}
	if err := s.Resume(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// URL gives the address of a database of the server, for its superuser. It stays the same over restarts.
func (s *Server) URL(database string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := url.URL{Scheme: "postgres", User: url.User(User), Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)), Path: "/" + database, RawQuery: "sslmode=disable"}
	return u.String()
}

// Dir is the data directory.
func (s *Server) Dir() string { return s.options.Dir }

// Version of the server, such as 15.18.
func (s *Server) Version() string { return s.binaries.Version }

// Done is closed when the server that runs now has ended, for whatever reason.
func (s *Server) Done() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.process.ended
}

// Stop ends the server in order: connections are cut, transactions rolled back, and a checkpoint is written. When ctx ends
// first, the server is ended at once. It is nil if the server had ended before.
func (s *Server) Stop(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.process.end(ctx, fast)
}

// Kill ends the server as a crash would: no checkpoint, so that the next start has WAL to recover from.
func (s *Server) Kill(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.process.end(ctx, immediate)
}

// Resume starts the server again after Stop or Kill, on the same port. It does nothing if the server runs.
func (s *Server) Resume(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process.running() {
		return nil
	}
	// Somebody may take a free port between our asking for it and the server's binding it.
	const tries = 3
	for try := 1; ; try++ {
		port, err := s.choosePort()
		if err != nil {
			return err
		}
		p, err := s.launch(ctx, port)
		if err == nil {
			s.port, s.process = port, p
			return nil
		}
		if s.port != 0 || try == tries || ctx.Err() != nil {
			return fmt.Errorf("start PostgreSQL %s in %s: %w", s.binaries.Version, s.options.Dir, err)
		}
	}
}

func (s *Server) choosePort() (int, error) {
	if s.port != 0 {
		return s.port, nil
	}
	return freeport.Get() // not any free one: the server keeps its port while it is down
}

// launch starts the server process and waits until it takes connections.
func (s *Server) launch(ctx context.Context, port int) (*process, error) {
	settings := map[string]string{
		"listen_addresses":        "127.0.0.1",
		"port":                    strconv.Itoa(port),
		"unix_socket_directories": "",
		"wal_level":               "logical",
		"max_replication_slots":   "50",
		"max_wal_senders":         "50",
		"max_connections":         "200",
	}
	if s.options.NoSync {
		maps.Copy(settings, map[string]string{"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"})
	}
	maps.Copy(settings, s.options.Settings)
	args := []string{"-D", s.options.Dir}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		args = append(args, "-c", name+"="+settings[name])
	}
	p, err := spawn(s.binaries.path("postgres"), args, s.options.Log)
	if err != nil {
		return nil, err
	}
	if err := s.awaitReady(ctx, p); err != nil {
		return nil, errors.Join(err, p.end(ctx, immediate))
	}
	return p, nil
}

// awaitReady watches the lock file, in which the server itself says when it is ready (as pg_ctl does).
func (s *Server) awaitReady(ctx context.Context, p *process) error {
	const pidLine, statusLine = 0, 7
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		text, _ := os.ReadFile(filepath.Join(s.options.Dir, "postmaster.pid"))
		lines := strings.Split(string(text), "\n")
		if len(lines) > statusLine && lines[pidLine] == strconv.Itoa(p.pid) && strings.TrimSpace(lines[statusLine]) == "ready" {
			return nil
		}
		select {
		case <-p.ended:
			return p.failure()
		case <-ctx.Done():
			return fmt.Errorf("not ready yet: %w%s", context.Cause(ctx), p.output.quote())
		case <-tick.C:
		}
	}
}
