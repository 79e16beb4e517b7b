package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Receivers are three services that want webhooks, each on a path of one address.
type Receivers struct {
	listener net.Listener // closed by Run, or by Close where Run is never called

	mu      sync.Mutex
	figures Figures
	turned  map[string]bool // idempotency keys that the carrier has turned away once
	orders  int             // that the carrier was told of
	delays  []time.Duration // from commit to webhook, of the last ones
}

// Figures are what came so far.
type Figures struct {
	Taken   int // webhooks that were answered with 200
	Refused int // calls that were answered with 503, by the carrier
	Broken  int // calls that were answered with 500, by the accounting
	Again   int // of Taken: those that were refused before

	Half time.Duration // half of the last webhooks of the warehouse came within this time of their commit
}

const (
	mostDelays = 1000
	mostBody   = 1 << 20
)

// Listen takes a free port of this machine. Run serves it.
func Listen() (*Receivers, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for webhooks: %w", err)
	}
	return &Receivers{listener: listener, turned: map[string]bool{}}, nil
}

// URL is where they listen.
func (r *Receivers) URL() string { return "http://" + r.listener.Addr().String() }

// Close gives up the port of receivers that are not run.
func (r *Receivers) Close() error { return r.listener.Close() }

// Run serves until ctx ends.
func (r *Receivers) Run(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /warehouse", r.warehouse)
	mux.HandleFunc("POST /carrier", r.carrier)
	mux.HandleFunc("POST /accounting", r.accounting)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(r.listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("receive webhooks: %w", err)
	case <-ctx.Done():
	}
	// What is under way is answered; the services, which end at the same time, wait for it.
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		_ = server.Close() // an error says that a connection was closed already
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("receive webhooks: %w", err)
	}
	return nil
}

// Figures gives what came so far.
func (r *Receivers) Figures() Figures {
	r.mu.Lock()
	defer r.mu.Unlock()
	figures := r.figures
	if n := len(r.delays); n > 0 {
		sorted := slices.Sorted(slices.Values(r.delays))
		figures.Half = sorted[n/2]
	}
	return figures
}

// warehouse takes everything.
func (r *Receivers) warehouse(w http.ResponseWriter, request *http.Request) {
	var event struct {
		Time time.Time `json:"time"`
	}
	err := json.NewDecoder(io.LimitReader(request.Body, mostBody)).Decode(&event)
	if err != nil {
		http.Error(w, "no event", http.StatusBadRequest)
		return
	}
	delay := time.Since(event.Time)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.figures.Taken++
	r.delays = append(r.delays, delay)
	r.delays = r.delays[max(0, len(r.delays)-mostDelays):]
}

// carrier turns every third order away once, the first one among them.
func (r *Receivers) carrier(w http.ResponseWriter, request *http.Request) {
	key := request.Header.Get("Idempotency-Key")
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.turned[key] {
		delete(r.turned, key)
		r.figures.Taken++
		r.figures.Again++
		return
	}
	r.orders++
	if r.orders%3 == 1 {
		r.turned[key] = true
		r.figures.Refused++
		http.Error(w, "overloaded, try again", http.StatusServiceUnavailable)
		return
	}
	r.figures.Taken++
}

// accounting is broken.
func (r *Receivers) accounting(w http.ResponseWriter, _ *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.figures.Broken++
	http.Error(w, "division by zero", http.StatusInternalServerError)
}
