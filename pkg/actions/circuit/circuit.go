// Package circuit keeps calls from endpoints that are down, and paces those to endpoints that are up.
//
// There is one circuit for each endpoint, or for each name that actions share. It opens when more than half of at least
// 20 calls within 30 s have failed; then nothing is called for a while, a few probes are let through, and it closes when
// they succeed. Sony's gobreaker counts; what it says is shared:
//
//   - The state lies in KV circuits, a record for each circuit that is, or lately was, not closed. It is changed by
//     compare-and-swap alone, and everybody follows it by a watch: who hears that a circuit is open need not fail by
//     itself. Processes also tell each other how many calls of theirs have failed, so that 20 calls are 20 in all.
//   - Probing has one owner at a time, who has written so into the record, for as long as its lease lasts. A probe is
//     reserved before it is sent. One that is cut short is given back; one that never reports is given back with the lease.
//   - While KV is away each process goes on by what it has seen itself.
//   - What an operator forces open stays so until it is reset, or its time is over.
//
// A call that the endpoint has answered in a way that no attempt can mend (retry.IsPermanent), and one that we have cut
// short ourselves, says nothing of the endpoint, and does not count.
//
// The package performs no call and keeps nothing back: who asks and is told no defers the call, charges nothing for it,
// and holds no slot.
package circuit

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tributary-dev/tributary/internal/natskv"
	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/retry"
)

// Options are what Circuits may be given. A zero value takes the default.
type Options struct {
	FailurePercent int           // above which a circuit opens; 50
	MinCalls       int           // within Window, below which none opens; 20
	Window         time.Duration // 30 s
	OpenFor        time.Duration // until the first probe; 10 s
	Probes         int           // that have to succeed; 5
	Ramp           time.Duration // after a circuit has closed, until its endpoint gets all the slots again; 5 s
	Owner          string        // names this process among all
	Limits         []Limit
	Log            *slog.Logger
	Metrics        *Metrics
}

func (o *Options) fill() error {
	o.FailurePercent = cmp.Or(o.FailurePercent, 50)
	o.MinCalls = cmp.Or(o.MinCalls, 20)
	o.Window = cmp.Or(o.Window, 30*time.Second)
	o.OpenFor = cmp.Or(o.OpenFor, 10*time.Second)
	o.Probes = cmp.Or(o.Probes, 5)
	o.Ramp = cmp.Or(o.Ramp, 5*time.Second)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = NewMetrics(nil)
	}
	const mostProbes = math.MaxInt32
	switch {
	case o.FailurePercent < 1 || o.FailurePercent > 100:
		return fmt.Errorf("circuits.failure_percent must be 1 to 100, got %d", o.FailurePercent)
	case o.MinCalls < 1:
		return fmt.Errorf("circuits.min_calls must be at least 1, got %d", o.MinCalls)
	case o.Window < time.Second:
		return fmt.Errorf("circuits.window must be at least 1s, got %s", o.Window)
	case o.OpenFor < 0:
		return fmt.Errorf("circuits.open_for must be at least 0s, got %s", o.OpenFor)
	case o.Probes < 1 || o.Probes > mostProbes:
		return fmt.Errorf("circuits.probes must be at least 1, got %d", o.Probes)
	case o.Ramp < 0:
		return fmt.Errorf("circuits.ramp must be at least 0s, got %s", o.Ramp)
	case o.Owner == "":
		return errors.New("circuits: the process has no name")
	}
	return nil
}

// State is how a circuit stands.
type State string

// The states.
const (
	Closed  State = "closed"
	Probing State = "probing" // one process lets a few calls through
	Open    State = "open"
)

// Name gives the circuit of a request, or nothing where it has none: what is done in NATS itself fails with NATS.
func Name(r *actions.Request) string {
	switch {
	case r.Circuit != "":
		return r.Circuit
	case r.Type == "nats" || r.Type == "cache" || r.Type == "log":
		return ""
	default:
		return r.Endpoint
	}
}

// Circuits are those that this process calls through, and those that others have told of. It is safe for concurrent use.
// A nil one lets every call through.
type Circuits struct {
	bucket  *natskv.Bucket
	options Options
	log     *slog.Logger
	metrics *Metrics
	began   time.Time
	limits  limits

	kick chan struct{} // one place: something is to be told to the others

	unwell atomic.Int32 // circuits that are not closed; written under mu. While it is 0, who only asks needs no lock

	mu        sync.Mutex
	all       map[string]*circuit // by name; guarded by mu, with all that they hold
	listeners []func(name string)
	told      map[string]map[string]tally // what others have said of their calls: by process, then by circuit
	mine      map[string]tally            // what this process has to say
	untold    bool                        // mine has changed since
}

// New gives Circuits that share their state through a bucket when they run.
func New(bucket *natskv.Bucket, options Options) (*Circuits, error) {
	if err := options.fill(); err != nil {
		return nil, err
	}
	paced, err := newLimits(options.Limits)
	if err != nil {
		return nil, err
	}
	return &Circuits{
		bucket: bucket, options: options, log: options.Log, metrics: options.Metrics, began: time.Now(), limits: paced,
		kick: make(chan struct{}, 1), all: make(map[string]*circuit), told: make(map[string]map[string]tally),
		mine: make(map[string]tally),
	}, nil
}

// clock is monotonic.
func (c *Circuits) clock() time.Duration { return time.Since(c.began) }

// OnChange calls do, with the circuit's name, whenever one opens, closes, or is ready for probes. It is called from many
// goroutines, and must not block. Register before Run.
func (c *Circuits) OnChange(do func(name string)) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.listeners = append(c.listeners, do)
}

func (c *Circuits) tell(name string) {
	c.mu.Lock()
	listeners := c.listeners
	c.mu.Unlock()
	for _, do := range listeners {
		do(name)
	}
}

func (c *Circuits) signal() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// of finds a circuit. The caller holds mu.
func (c *Circuits) of(name string) *circuit {
	there, ok := c.all[name]
	if !ok {
		there = &circuit{name: name, state: Closed}
		there.count(c.options)
		c.all[name] = there
	}
	return there
}

// State tells how a circuit stands here.
func (c *Circuits) State(name string) State {
	if c == nil || name == "" || c.unwell.Load() == 0 {
		return Closed
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if there, ok := c.all[name]; ok {
		return there.state
	}
	return Closed
}

// Shut tells whether it is no use to ask for a call now: the circuit is open, and not ready for probes, or another process
// probes it.
func (c *Circuits) Shut(name string) bool {
	if c == nil || name == "" || c.unwell.Load() == 0 {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	there, ok := c.all[name]
	return ok && there.state == Open && !there.ripe(c.clock())
}

// AllClosed tells whether no circuit is known to be open.
func (c *Circuits) AllClosed() bool { return c == nil || c.unwell.Load() == 0 }

// Opened tells since when a circuit that is not closed is so; zero where it is closed.
func (c *Circuits) Opened(name string) time.Time {
	if c == nil || name == "" || c.unwell.Load() == 0 {
		return time.Time{}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if there, ok := c.all[name]; ok && there.state != Closed {
		return there.opened
	}
	return time.Time{}
}

// Answer says whether a call may be made.
type Answer int

// The answers.
const (
	Yes   Answer = iota
	Later        // it may be allowed within a moment: whether this process probes is being settled
	No           // until OnChange tells of the circuit
)

// Enter asks for a call. Where the answer is Yes the caller makes it, or not, and reports to Done of the Pass, whatever
// becomes of it.
func (c *Circuits) Enter(name string) (*Pass, Answer) {
	if c == nil || name == "" {
		return nil, Yes
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	there := c.of(name)
	if there.state == Open {
		if !there.ripe(c.clock()) {
			return nil, No
		}
		there.wish = wishProbe
		c.signal()
		return nil, Later
	}
	b := there.breaker
	done, err := b.Allow()
	if err != nil { // all the probes are out; or it has just opened
		return nil, No
	}
	return &Pass{circuits: c, circuit: there, breaker: b, done: done}, Yes
}

// Pass is the right to one call. A nil one is a call without a circuit.
type Pass struct {
	circuits *Circuits
	circuit  *circuit
	breaker  *breaker
	once     sync.Once
	done     func(error)
}

// errNotMade marks a call that says nothing of its endpoint.
var errNotMade = errors.New("the call was not made, or was cut short")

// Return gives the pass back: no call was made, or we have cut it short. After Done it does nothing.
func (p *Pass) Return() {
	if p != nil {
		p.report(errNotMade)
	}
}

// Done reports how the call ended.
func (p *Pass) Done(err error) {
	if p == nil {
		return
	}
	if retry.IsPermanent(err) || errors.Is(err, actions.ErrUnknownType) {
		err = errNotMade
	}
	p.report(err)
}

func (p *Pass) report(err error) {
	p.once.Do(func() {
		p.done(err)
		p.circuits.counted(p.circuit, p.breaker, err)
	})
}
