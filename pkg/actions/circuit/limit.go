package circuit

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Limit is how much an endpoint may be asked for, by each process.
type Limit struct {
	Name        string // of the endpoint, scheme://host:port, or the circuit
	Rate        string // calls in a time: 100/s, 600/m, 1000/h; empty for no bound
	Concurrency int    // calls at the same time; 0 for no bound
}

// limits are those of all endpoints; they do not change but for what was taken of the rates.
type limits map[string]*limit

type limit struct {
	concurrency int
	gap         time.Duration // between two calls; 0 for no bound
	burst       time.Duration // how far calls may be ahead of their times

	mu   sync.Mutex
	next time.Duration // of the clock: the time of the next call
}

func newLimits(list []Limit) (limits, error) {
	all := make(limits, len(list))
	for i, given := range list {
		at := "endpoints[" + strconv.Itoa(i) + "]"
		if given.Name == "" {
			return nil, fmt.Errorf("%s.name must be set", at)
		}
		if _, twice := all[given.Name]; twice {
			return nil, fmt.Errorf("%s.name must be another than those before, got %q", at, given.Name)
		}
		if given.Concurrency < 0 {
			return nil, fmt.Errorf("%s.concurrency must be at least 0, got %d", at, given.Concurrency)
		}
		gap, err := ParseRate(given.Rate)
		if err != nil {
			return nil, fmt.Errorf("%s.rate %w", at, err)
		}
		// A tenth of a second's worth may come at once, so that a high rate is reached whatever timers do.
		all[given.Name] = &limit{concurrency: given.Concurrency, gap: gap, burst: max(100*time.Millisecond-gap, 0)}
	}
	return all, nil
}

// ParseRate reads 100/s, 600/m or 1000/h, and gives the time between two calls; 0 for an empty text.
func ParseRate(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	count, unit, _ := strings.Cut(text, "/")
	per, known := map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour}[unit]
	n, err := strconv.ParseInt(count, 10, 32)
	if err != nil || n < 1 || !known {
		return 0, fmt.Errorf("must be a number of calls in a time, such as 100/s, 600/m or 1000/h, got %q", text)
	}
	return max(per/time.Duration(n), 1), nil
}

// take takes the time of a call, or tells how long to wait for one.
func (l *limit) take(now time.Duration) (wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.next-now > l.burst {
		return l.next - now - l.burst
	}
	l.next = max(l.next, now) + l.gap
	return 0
}

// Most gives how many calls of a circuit may be under way at the same time, of so many that there is room for: what is
// configured, and after it was closed a part that doubles until Ramp is over.
func (c *Circuits) Most(name string, slots int) int {
	if c == nil || name == "" {
		return slots
	}
	most := slots
	if l, ok := c.limits[name]; ok && l.concurrency > 0 {
		most = min(most, l.concurrency)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	there, ok := c.all[name]
	if !ok || there.closed == 0 || c.options.Ramp == 0 {
		return most
	}
	since := c.clock() - there.closed
	steps := bits.Len(uint(max(slots-1, 1))) // doublings from 1 to all
	step := int(int64(since) * int64(steps) / int64(c.options.Ramp))
	if step >= steps {
		return most
	}
	return min(most, 1<<step)
}

// Step is how often Most may give another answer while a circuit's ramp lasts; 0 where it does not.
func (c *Circuits) Step(name string, slots int) time.Duration {
	if c == nil || name == "" || c.Most(name, slots) >= slots {
		return 0
	}
	return max(c.options.Ramp/time.Duration(bits.Len(uint(max(slots-1, 1)))+1), time.Millisecond)
}

// Take takes one call from the rate of an endpoint, or tells how long to wait for one.
func (c *Circuits) Take(name string) (wait time.Duration) {
	if c == nil {
		return 0
	}
	l, ok := c.limits[name]
	if !ok || l.gap == 0 {
		return 0
	}
	return l.take(c.clock())
}
