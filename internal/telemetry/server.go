package telemetry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Options of a Server. All are needed but PProf.
type Options struct {
	Service  string // names the address file
	Listen   string // host:port; port 0 takes a free one
	StateDir string // gets <service>.addr; made where it is missing
	PProf    bool   // serve /debug/pprof
	Registry *prometheus.Registry
	Ready    *Ready
	Log      *slog.Logger
}

// Server serves /metrics, /livez, /readyz, and /debug/pprof where that was asked for.
type Server struct {
	options  Options
	listener net.Listener // closed by Run, or by Close where Run is never called
}

// goodbye bounds the wait for requests that are being answered at the end.
const goodbye = 2 * time.Second

// Listen takes the address, so that a wrong or taken one is known before the service begins. Run serves it.
func Listen(o Options) (*Server, error) {
	if err := o.Registry.Register(o.Ready); err != nil {
		return nil, fmt.Errorf("register the metric of readiness: %w", err)
	}
	listener, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return nil, fmt.Errorf("http.listen: %w", err)
	}
	return &Server{options: o, listener: listener}, nil
}

// Addr is the address that was taken, as host:port.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Close gives up the address of a Server that is not run.
func (s *Server) Close() error { return s.listener.Close() }

// Run serves until ctx ends, and returns nil then. While it runs, the file <service>.addr in the state directory holds the
// address and a line end.
func (s *Server) Run(ctx context.Context) error {
	defer s.listener.Close()
	remove, err := s.writeAddress()
	if err != nil {
		return err
	}
	defer remove()
	s.options.Log.Info("serving metrics and health", "address", s.Addr())
	server := &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       time.Minute,
		ErrorLog:          slog.NewLogLogger(s.options.Log.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(s.listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve metrics and health: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbye)
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		err = server.Close()
		if err != nil {
			s.options.Log.Warn("close the server of metrics and health", "error", err)
		}
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics and health: %w", err)
	}
	return nil
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.options.Registry, promhttp.HandlerOpts{Registry: s.options.Registry}))
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("ok\n"))
	})
	mux.HandleFunc("GET /readyz", s.readyz)
	if s.options.PProf {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	return mux
}

// readyz answers 200 or 503, and each condition with its reason.
func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	all, ready := s.options.Ready.Conditions()
	w.Header().Set("Content-Type", "application/json")
	if !ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(Readiness{ready, all}) // an error says that the asker has gone
}

// Readiness is what /readyz answers.
type Readiness struct {
	Ready      bool        `json:"ready"`
	Conditions []Condition `json:"conditions"`
}

// AskReady asks the service at address, host:port, for its readiness. It errs where there is no answer.
func AskReady(ctx context.Context, client *http.Client, address string) (Readiness, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/readyz", nil)
	if err != nil {
		return Readiness{}, fmt.Errorf("ask for readiness: %w", err)
	}
	request.Close = true // asked once, so no connection is kept
	response, err := client.Do(request)
	if err != nil {
		return Readiness{}, fmt.Errorf("ask for readiness: %w", err)
	}
	defer response.Body.Close()
	var readiness Readiness
	if err := json.NewDecoder(response.Body).Decode(&readiness); err != nil {
		return Readiness{}, fmt.Errorf("ask for readiness: status %d: %w", response.StatusCode, err)
	}
	return readiness, nil
}

// writeAddress writes the address file whole, and gives what removes it, unless another process has written its own since.
func (s *Server) writeAddress() (remove func(), err error) {
	dir := s.options.StateDir
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make state_dir: %w", err)
	}
	path, text := filepath.Join(dir, s.options.Service+".addr"), s.Addr()+"\n"
	fresh := fmt.Sprintf("%s.%d", path, os.Getpid())
	if err := errors.Join(os.WriteFile(fresh, []byte(text), 0o644), os.Rename(fresh, path)); err != nil {
		return nil, fmt.Errorf("write the address to state_dir: %w", err)
	}
	return func() {
		if now, err := os.ReadFile(path); err != nil || string(now) != text {
			return
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.options.Log.Warn("remove the address file", "error", err)
		}
	}, nil
}
