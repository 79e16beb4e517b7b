package circuit

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/tributary-dev/tributary/internal/natskv"
)

const (
	lookEvery  = 50 * time.Millisecond // for circuits that are ready for probes, and what there is to tell
	askWithin  = 500 * time.Millisecond
	watchPause = 200 * time.Millisecond

	// probeLease is how long one process probes. It outlasts what most requests take; a probe that takes longer, or never
	// ends, is given back then.
	probeLease = 30 * time.Second
)

// Run shares the state of the circuits until ctx ends, and returns when nothing that it started is left.
func (c *Circuits) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { c.follow(ctx, statePrefix+"*", c.hearState) })
	wg.Go(func() { c.follow(ctx, callsPrefix+"*", c.hearCalls) })
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for ctx.Err() == nil {
		c.ripen()
		c.fulfil(ctx)
		c.tellCalls(ctx)
		select {
		case <-ctx.Done():
		case <-ticker.C:
		case <-c.kick:
		}
	}
	wg.Wait()
	return nil
}

// follow watches keys, again and again.
func (c *Circuits) follow(ctx context.Context, pattern string, hear func(change *natskv.Change, fresh bool)) {
	failing := false
	for ctx.Err() == nil {
		fresh := false // what comes first was written before
		err := c.bucket.Watch(ctx, pattern, func(change *natskv.Change) error {
			if change == nil {
				fresh, failing = true, false
				return nil
			}
			hear(change, fresh)
			return nil
		})
		if ctx.Err() != nil {
			return
		}
		if !failing {
			c.log.Warn("circuits are not shared for now", "error", err)
		}
		failing = true
		select {
		case <-ctx.Done():
		case <-time.After(watchPause):
		}
	}
}

// ripen tells of circuits that have become ready for probes, and takes probes back that have outlived their lease.
func (c *Circuits) ripen() {
	var names []string
	c.mu.Lock()
	now := c.clock()
	for name, there := range c.all {
		switch {
		case there.lulls(now):
			c.close(there)
			there.wish = wishClose
			names = append(names, name)
			c.log.Info("circuit closes", "circuit", name)
		case there.state == Probing && now >= there.lease:
			c.open(there, 0)
		}
		if there.state == Open && !there.told && there.ripe(now) {
			there.told = true
			names = append(names, name)
		}
	}
	c.mu.Unlock()
	for _, name := range names {
		c.tell(name)
	}
}

// fulfil does what there is to do about the records.
func (c *Circuits) fulfil(ctx context.Context) {
	type task struct {
		there *circuit
		wish  wish
	}
	var tasks []task
	c.mu.Lock()
	for _, there := range c.all {
		if there.wish != wishNone {
			tasks = append(tasks, task{there, there.wish})
		}
	}
	c.mu.Unlock()
	for _, t := range tasks {
		within, cancel := context.WithTimeout(ctx, askWithin)
		err := c.write(within, t.there, t.wish)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err == nil || errors.Is(err, natskv.ErrConflict): // then there is something new: look again
		case t.wish == wishProbe: // KV is away: each goes on by itself
			c.begin(t.there)
		default:
			c.log.Debug("circuit is not told of", "circuit", t.there.name, "error", err)
		}
	}
}

// write brings one wish to the record.
func (c *Circuits) write(ctx context.Context, there *circuit, wish wish) error {
	r, revision, err := get(ctx, c.bucket, there.name)
	if err != nil {
		return err
	}
	now := time.Now().UTC()
	next := record{Name: there.name, Epoch: r.Epoch + 1, Opened: r.Opened, By: c.options.Owner}
	if next.Opened.IsZero() || r.State == Closed {
		next.Opened = now
	}
	theirs := r.By != c.options.Owner
	c.mu.Lock()
	news := revision > there.revision // what it says was written since it was heard of last
	c.mu.Unlock()
	switch wish {
	case wishNone:
		return nil
	case wishOpen:
		if r.Forced || theirs && r.State != Closed && (news || r.Until.After(now)) { // they have seen the same
			c.adopt(there, r, revision)
			return nil
		}
		next.State, next.Until = Open, now.Add(c.options.OpenFor)
	case wishProbe:
		busy := r.Until.After(now) && (theirs || r.State != Probing)
		// A closed one that is no news was closed before it opened here, which could not be told.
		if r.State != Closed && (busy || r.Forced && r.Until.IsZero()) || r.State == Closed && news {
			c.adopt(there, r, revision)
			return nil
		}
		next.State, next.Until = Probing, now.Add(probeLease)
	case wishClose:
		if r.Forced {
			c.adopt(there, r, revision)
			return nil
		}
		next.State, next.Opened = Closed, time.Time{}
	}
	written, err := swap(ctx, c.bucket, next, revision)
	if err != nil {
		return err
	}
	c.mu.Lock()
	there.record, there.revision = next, max(written, there.revision)
	if there.wish == wish {
		there.wish = wishNone
	}
	c.mu.Unlock()
	if wish == wishProbe {
		c.begin(there)
	}
	return nil
}

// begin lets probes through here.
func (c *Circuits) begin(there *circuit) {
	c.mu.Lock()
	if there.wish == wishProbe {
		there.wish = wishNone
	}
	begins := there.state == Open && there.ripe(c.clock())
	if begins {
		there.state, there.lease = Probing, c.clock()+probeLease
		there.probe(c.options)
		c.measure()
	}
	c.mu.Unlock()
	if begins {
		c.log.Info("circuit is probed", "circuit", there.name)
		c.tell(there.name)
	}
}

func (c *Circuits) hearState(change *natskv.Change, _ bool) {
	if change.Removed {
		return
	}
	r, err := decode(change.Entry.Value)
	if err != nil {
		c.log.Warn("circuit is not understood", "key", change.Key, "error", err)
		return
	}
	c.mu.Lock()
	there, known := c.all[r.Name]
	if !known && r.State != Closed {
		there = c.of(r.Name)
	}
	c.mu.Unlock()
	if there != nil && r.By != c.options.Owner {
		c.adopt(there, r, change.Entry.Revision)
	}
}

// adopt goes by what another process, or a person, has written.
func (c *Circuits) adopt(there *circuit, r record, revision uint64) {
	c.mu.Lock()
	if revision < there.revision || revision == there.revision && there.wish == wishNone {
		c.mu.Unlock()
		return
	}
	before := there.state
	there.record, there.revision, there.wish = r, revision, wishNone
	switch r.State {
	case Closed:
		if before != Closed {
			c.close(there)
		}
	case Open, Probing:
		left := time.Until(r.Until)
		if !r.Forced {
			left = min(left, max(c.options.OpenFor, probeLease)) // clocks differ
		}
		c.open(there, max(left, 0))
		there.never = r.Forced && r.Until.IsZero()
		if !r.Opened.IsZero() {
			there.opened = r.Opened
		}
	}
	after := there.state
	c.mu.Unlock()
	if before != after {
		c.log.Info("circuit is "+string(after), "circuit", r.Name, "by", r.By)
	}
	c.tell(there.name)
}
