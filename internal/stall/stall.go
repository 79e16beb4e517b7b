// Package stall lets a test hold a bound on a duration without failing for what the machine did meanwhile: the time in which
// goroutines or processes were ready and did not run is not the product's.
//
// On a quiet machine a bound is sharp; on one that is overloaded it gives way, and the figure is printed all the same. What can be
// counted or ordered needs none of this.
package stall

import (
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

const (
	pause = 5 * time.Millisecond
	usual = 2 * time.Millisecond // timers are late by as much on any machine

	// What is waited for passes through several goroutines and processes, each of which is held up like the one that measures.
	hops = 4
)

// Watch measures a duration, and the machine in it.
type Watch struct {
	t        testing.TB
	begun    time.Time
	pressure time.Duration // what the system had counted then
	late     atomic.Int64  // nanoseconds
}

// Begin starts to measure; the test's end ends it.
func Begin(t testing.TB) *Watch {
	w := &Watch{t: t, begun: time.Now(), pressure: pressure()}
	ended, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		w.sample(ended)
	}()
	t.Cleanup(func() {
		close(ended)
		<-done
	})
	return w
}

func (w *Watch) sample(ended <-chan struct{}) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		begun := time.Now()
		select {
		case <-ended:
			return
		case <-timer.C:
		}
		if late := time.Since(begun) - pause; late > usual {
			w.late.Add(int64(late))
		}
		timer.Reset(pause)
	}
}

// Within fails the test if, since Begin, more than limit has passed without the machine's stalls. It prints what has passed.
func (w *Watch) Within(limit time.Duration, what string) {
	w.t.Helper()
	took := time.Since(w.begun)
	stalled := hops*time.Duration(w.late.Load()) + pressure() - w.pressure
	text := fmt.Sprintf("%s: %v; the machine's stalls: %v", what, took.Round(time.Millisecond), stalled.Round(time.Millisecond))
	if took > limit+stalled {
		w.t.Errorf("%s; want at most %v", text, limit)
		return
	}
	w.t.Log(text)
}

// pressure is how long, since the system's start, anything waited for a processor or a disk; 0 where the system does not say
// (https://docs.kernel.org/accounting/psi.html).
func pressure() time.Duration {
	var sum time.Duration
	for _, resource := range []string{"cpu", "io"} {
		text, err := os.ReadFile("/proc/pressure/" + resource)
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(text), "total=")
		var microseconds int64
		if _, err := fmt.Sscan(rest, &microseconds); err == nil {
			sum += time.Duration(microseconds) * time.Microsecond
		}
	}
	return sum
}
