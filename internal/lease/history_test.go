package lease_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/tributary-dev/tributary/internal/lease"
	"github.com/tributary-dev/tributary/internal/natstest"
)

// verb is what a client does to a lease.
type verb string

const (
	take verb = "take"
	end  verb = "end"
)

// mutex is what a lease promises to be: nobody, or the client with this number plus one, holds it.
var mutex = porcupine.Model{
	Init: func() any { return 0 },
	Step: func(state, input, client any) (bool, any) {
		holder, who := state.(int), client.(int)+1
		if input.(verb) == take {
			return holder == 0, who
		}
		return holder == who, 0
	},
}

// history is what clients saw, in nanoseconds since its start.
type history struct {
	start time.Time

	mu  sync.Mutex
	ops []porcupine.Operation // guarded by mu
}

func (h *history) now() int64 { return time.Since(h.start).Nanoseconds() }

// add notes an operation. One without an end may still take effect at any time.
func (h *history) add(client int, what verb, called, returned int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, porcupine.Operation{ClientId: client, Input: what, Call: called, Output: client, Return: returned})
}

// Servers that restart, some for longer than a lease lasts, lose leases, but give none to two.
func TestHistoriesOfALeaseAreThoseOfAMutex(t *testing.T) {
	cases := map[string]struct {
		key  func(client int) string
		want porcupine.CheckResult
	}{
		"one lease for all":          {func(int) string { return key }, porcupine.Ok},
		"each with one of its own":   {func(client int) string { return fmt.Sprint(key, client) }, porcupine.Illegal}, // so that the check is seen to fail
		"two that share, two do not": {func(client int) string { return fmt.Sprint(key, client/2) }, porcupine.Illegal},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ops, lost := record(t, c.key)
			t.Logf("%d operations, %d leases were lost", len(ops), lost)
			if got := porcupine.CheckOperationsTimeout(mutex, ops, 20*time.Second); got != c.want {
				t.Errorf("the history is %s, want %s", got, c.want)
			}
			if lost == 0 {
				t.Error("no lease was lost: nothing was tried")
			}
		})
	}
}

// record has four clients take a lease over and over while the server restarts.
func record(t *testing.T, key func(client int) string) (ops []porcupine.Operation, lost int) {
	const ttl, clients, restarts = time.Second, 4, 2
	server := natstest.Start(t)
	h := &history{start: time.Now()}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	long := make(chan struct{})
	for client := range clients {
		b := bucket(t, server)
		running.Go(func() {
			for ctx.Err() == nil {
				called, ended := h.now(), int64(0)
				err := lease.New(b, key(client), lease.Options{TTL: ttl}).Hold(ctx, func(ctx context.Context) error {
					h.add(client, take, called, h.now())
					work := time.Duration(rand.IntN(20)) * time.Millisecond
					if rand.IntN(20) == 0 { // one that a restart cuts off
						work = 2 * ttl
						select {
						case long <- struct{}{}:
						default:
						}
					}
					select {
					case <-time.After(work):
					case <-ctx.Done():
					}
					ended = h.now()
					return context.Cause(ctx)
				})
				if ended == 0 {
					continue
				}
				returned := h.now()
				if errors.Is(err, lease.ErrLost) {
					returned = int64(time.Hour) // it is free some time later
					h.mu.Lock()
					lost++
					h.mu.Unlock()
				}
				h.add(client, end, ended, returned)
			}
		})
	}
	for range restarts {
		<-long
		server.Stop()
		<-time.After(ttl + time.Duration(rand.IntN(300))*time.Millisecond)
		server.Restart(t)
	}
	stop()
	running.Wait()
	return h.ops, lost
}
