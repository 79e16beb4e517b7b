package circuit

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/tributary-dev/tributary/internal/natskv"
	"github.com/tributary-dev/tributary/pkg/events"
)

// tally is how many calls of a process have ended since some began to fail, and how many have failed.
type tally struct {
	Calls    int `json:"calls"`
	Failures int `json:"failures"`
}

// callsRecord is what a process says of its calls: only of circuits where some have failed within the window.
type callsRecord struct {
	V        int              `json:"v"`
	By       string           `json:"by"`
	Circuits map[string]tally `json:"circuits"`
}

const (
	keepCalls = time.Minute
	mostCalls = 1000 // that one record adds to a circuit
)

// note counts a call for the others. The caller holds mu.
func (c *Circuits) note(there *circuit, err error) {
	if there.state != Closed {
		return
	}
	t, failing := c.mine[there.name]
	if err == nil && !failing {
		return
	}
	t.Calls++
	if err != nil {
		t.Failures++
		c.untold = true
		c.signal()
	}
	c.mine[there.name] = t
}

// tellCalls tells the others what this process has seen fail.
func (c *Circuits) tellCalls(ctx context.Context) {
	c.mu.Lock()
	now := c.clock()
	for name := range c.mine {
		if there := c.all[name]; there == nil || now-there.failed > c.options.Window {
			delete(c.mine, name)
		}
	}
	if !c.untold {
		c.mu.Unlock()
		return
	}
	c.untold = false
	value, err := json.Marshal(callsRecord{V: recordVersion, By: c.options.Owner, Circuits: c.mine})
	c.mu.Unlock()
	if err == nil {
		// One that is lost is made good by the next, which says the same and more.
		err = c.bucket.PutAsync(callsPrefix+events.KVKey(c.options.Owner), value, keepCalls)
	}
	if err != nil && ctx.Err() == nil {
		c.log.Debug("calls are not told", "error", err)
	}
}

var errTheirs = errors.New("a call of another process has failed")

// hearCalls counts what another process has seen. What it said before this one began to listen is old.
func (c *Circuits) hearCalls(change *natskv.Change, fresh bool) {
	var said callsRecord
	if change.Removed || json.Unmarshal(change.Entry.Value, &said) != nil || said.V != recordVersion || said.By == c.options.Owner {
		return
	}
	var changed []string
	c.mu.Lock()
	before := c.told[said.By]
	c.told[said.By] = said.Circuits
	for name, now := range said.Circuits {
		was := before[name]
		if now.Calls < was.Calls || now.Failures < was.Failures { // it counts anew
			was = tally{}
		}
		there := c.of(name)
		if !fresh || there.state != Closed {
			continue
		}
		failures := min(now.Failures-was.Failures, mostCalls)
		calls := min(now.Calls-was.Calls, mostCalls)
		b := there.breaker
		for i := range calls {
			if done, err := b.Allow(); err == nil && i < failures {
				done(errTheirs)
			} else if err == nil {
				done(nil)
			}
		}
		if failures > 0 {
			there.failed = c.clock()
		}
		if c.turn(there, b) {
			changed = append(changed, name)
		}
	}
	c.mu.Unlock()
	for _, name := range changed {
		c.tell(name)
	}
}
