package circuit

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"
)

// circuit is one of them, guarded by the mutex of all.
type circuit struct {
	name    string
	state   State
	breaker *breaker // what counts: calls while it is closed, probes while it is probed here; else the last one
	opened  time.Time
	closed  time.Duration // of the clock, when it was closed; 0 where it was never open
	ready   time.Duration // of the clock, from when on an open one may be probed; never, where it is forced
	never   bool
	told    bool          // that it is ready, to those who listen
	lease   time.Duration // of the clock, until which this process probes it
	failed  time.Duration // when a call failed last
	probed  time.Duration // when a probe here ended last; 0 while none has

	wish     wish
	record   record // the last that was heard of
	revision uint64 // its
}

// wish is what this process has to do about the record.
type wish int

const (
	wishNone  wish = iota
	wishOpen       // it has opened here
	wishProbe      // somebody here asks for a probe
	wishClose      // the probes have succeeded
)

// breaker is gobreaker's, for one state of a circuit: it is replaced when the state changes.
type breaker struct {
	*gobreaker.TwoStepCircuitBreaker[struct{}]
	armed  bool         // what it does from now on counts
	turned atomic.Int32 // the gobreaker.State that it turned to first; half-open: it has not
}

const notTurned = int32(gobreaker.StateHalfOpen)

func (b *breaker) turn(to gobreaker.State) {
	if b.armed {
		b.turned.CompareAndSwap(notTurned, int32(to)) //nolint:gosec // there are three
	}
}

const buckets = 10 // of a window

// settings are those of both kinds of breakers.
func (o *Options) settings(b *breaker) gobreaker.Settings {
	return gobreaker.Settings{
		MaxRequests:   uint32(o.Probes), //nolint:gosec // checked by fill
		IsExcluded:    func(err error) bool { return errors.Is(err, errNotMade) },
		OnStateChange: func(_ string, _, to gobreaker.State) { b.turn(to) },
	}
}

// count makes the breaker of a closed circuit.
func (c *circuit) count(o Options) {
	b := &breaker{armed: true}
	b.turned.Store(notTurned)
	settings := o.settings(b)
	settings.Interval, settings.BucketPeriod = o.Window, max(o.Window/buckets, time.Millisecond)
	settings.Timeout = time.Hour * 24 * 365 // it is replaced before
	settings.ReadyToTrip = func(n gobreaker.Counts) bool {
		calls := n.TotalFailures + n.TotalSuccesses
		return int64(calls) >= int64(o.MinCalls) && int64(n.TotalFailures)*100 > int64(calls)*int64(o.FailurePercent)
	}
	b.TwoStepCircuitBreaker = gobreaker.NewTwoStepCircuitBreaker[struct{}](settings)
	c.breaker = b
}

// probe makes the breaker of a circuit that is probed here: gobreaker's own, half-open.
func (c *circuit) probe(o Options) {
	b := &breaker{}
	b.turned.Store(notTurned)
	settings := o.settings(b)
	settings.Timeout = time.Nanosecond
	settings.ReadyToTrip = func(gobreaker.Counts) bool { return true }
	b.TwoStepCircuitBreaker = gobreaker.NewTwoStepCircuitBreaker[struct{}](settings)
	if done, err := b.Allow(); err == nil {
		done(errors.New("it begins open"))
	}
	for b.State() != gobreaker.StateHalfOpen { // a nanosecond
		time.Sleep(time.Microsecond)
	}
	b.armed = true
	c.breaker, c.probed = b, 0
}

// lull is how long nobody makes a call before the probes that were made decide: else an endpoint that few of this process's
// effects are for would stay shut for the others' until the lease ends.
const lull = time.Second

// lulls tells whether all probes that were made here have succeeded, fewer than it takes, and no other came.
func (c *circuit) lulls(now time.Duration) bool {
	if c.state != Probing || c.probed == 0 || now-c.probed < lull {
		return false
	}
	counts := c.breaker.Counts()
	return counts.TotalSuccesses > 0 && counts.TotalSuccesses == counts.Requests
}

func (c *circuit) ripe(now time.Duration) bool { return !c.never && now >= c.ready }

// counted takes in that a call has ended, and what gobreaker makes of it.
func (c *Circuits) counted(there *circuit, b *breaker, err error) {
	changed := false
	c.mu.Lock()
	if !errors.Is(err, errNotMade) {
		if err != nil {
			there.failed = c.clock()
		}
		c.note(there, err)
		if there.state == Probing && b == there.breaker {
			there.probed = max(c.clock(), 1)
		}
	}
	// The breaker may be an older one than the circuit's: then its turn is of no interest any more.
	if b == there.breaker {
		changed = c.turn(there, b)
	}
	c.mu.Unlock()
	if changed {
		c.tell(there.name)
	}
}

// turn follows the breaker of a circuit, where that has turned. The caller holds mu.
func (c *Circuits) turn(there *circuit, b *breaker) bool {
	turned := gobreaker.State(b.turned.Load())
	switch {
	case there.state == Closed && turned == gobreaker.StateOpen:
		c.open(there, c.options.OpenFor)
		there.wish = wishOpen
		c.metrics.opened.Inc()
		c.log.Warn("circuit opens: calls are deferred", "circuit", there.name)
	case there.state == Probing && turned == gobreaker.StateOpen:
		c.open(there, c.options.OpenFor)
		there.wish = wishOpen
		c.log.Info("probe has failed: circuit stays open", "circuit", there.name)
	case there.state == Probing && turned == gobreaker.StateClosed:
		c.close(there)
		there.wish = wishClose
		c.log.Info("circuit closes", "circuit", there.name)
	default:
		return false
	}
	c.signal()
	return true
}

// open notes that a circuit is open, and may be probed after some time. The caller holds mu.
func (c *Circuits) open(there *circuit, probeIn time.Duration) {
	if there.state == Closed {
		there.opened = time.Now()
	}
	there.state, there.ready, there.never, there.told = Open, c.clock()+probeIn, false, false
	c.measure()
}

// close notes that a circuit is closed. The caller holds mu.
func (c *Circuits) close(there *circuit) {
	if there.state != Closed {
		there.closed = max(c.clock(), 1)
	}
	there.state = Closed
	there.count(c.options)
	delete(c.mine, there.name)
	for _, said := range c.told {
		delete(said, there.name)
	}
	c.measure()
}
