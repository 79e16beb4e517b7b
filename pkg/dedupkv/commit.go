package dedupkv

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tributary-dev/tributary/internal/natskv"
)

// between is the least time between the beginnings of two writes where the last was for at least busy ops: under load it
// makes groups larger, and who is alone does not wait.
const (
	between = 2 * time.Millisecond
	busy    = 8
)

const cleanWithin = time.Second

// Run writes, until ctx ends: then it gives those that wait the cause, and so it does with those that come later. It
// may be called once.
func (l *Ledger) Run(ctx context.Context) {
	pause := time.NewTimer(between)
	defer pause.Stop()
	for {
		select {
		case <-l.wake:
		case <-ctx.Done():
			l.close(context.Cause(ctx))
			return
		}
		if rest := between - time.Since(l.wrote); rest > 0 && l.last >= busy {
			pause.Reset(rest)
			select {
			case <-pause.C:
			case <-ctx.Done():
			}
		}
		for g := l.take(); g != nil; g = l.take() {
			l.commit(ctx, g)
		}
	}
}

// take gives the next group; a change of owners is a group of its own. It gives nil where nobody waits.
func (l *Ledger) take() *group {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.next
	if !g.waiting {
		return nil
	}
	for i, op := range g.ops {
		if op.kind != opOwn {
			continue
		}
		n := max(i, 1)
		if n == len(g.ops) {
			break
		}
		first := &group{ops: g.ops[:n:n], waiting: true, done: make(chan struct{})}
		for _, op := range first.ops {
			op.group = first
		}
		g.ops = g.ops[n:]
		return first
	}
	l.next = newGroup()
	return g
}

func (l *Ledger) close(err error) {
	l.mu.Lock()
	l.closed = err
	g := l.next
	l.next = newGroup()
	l.mu.Unlock()
	g.end(err)
}

// commit carries a group out.
func (l *Ledger) commit(ctx context.Context, g *group) {
	if g.ops[0].kind == opOwn {
		g.end(l.own(g.ops[0].taking))
		return
	}
	if !l.owned {
		g.end(l.why)
		return
	}
	for _, op := range g.ops {
		if l.apply(op) {
			l.unsaved = true
		}
	}
	if !l.unsaved {
		g.end(nil)
		return
	}
	l.last = len(g.ops)
	l.metrics.group.Observe(float64(len(g.ops)))
	err := l.seal(ctx, false)
	if err == nil {
		err = l.write(ctx)
	}
	if errors.Is(err, natskv.ErrConflict) {
		l.disown(ErrLost)
		err = ErrLost
	}
	g.end(err)
	l.clean(ctx)
}

// disown notes that the record is not ours: what was known of it may be wrong.
func (l *Ledger) disown(why error) {
	l.owned, l.why = false, why
	l.epoch++
}

// own reads what the last owner left, and writes it in the name of the new one. It ends with the context of who asked:
// by then the partition may be somebody else's.
func (l *Ledger) own(t *taking) error {
	ctx := t.ctx
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	l.want = t.owner
	for {
		err := l.ownOnce(ctx, t.still)
		if err == nil {
			break
		}
		if !errors.Is(err, natskv.ErrConflict) {
			return err
		}
	}
	t.estate = Estate{Reached: l.state.reachedNow(), Judged: l.state.judged.clone()}
	l.clean(ctx)
	return nil
}

func (l *Ledger) ownOnce(ctx context.Context, still func(context.Context) error) error {
	there, err := l.store.bucket.Get(ctx, l.key)
	if err != nil && !errors.Is(err, natskv.ErrNotFound) {
		return err
	}
	if still != nil {
		if err := still(ctx); err != nil {
			return err
		}
	}
	if !l.owned || l.revision != there.Revision {
		l.disown(ErrUnowned)
		if err := l.inherit(ctx, there); err != nil {
			return err
		}
		// Whether the events of what is settled come again is not known, so it may be that nobody forgets them.
		if err := l.seal(ctx, true); err != nil {
			return err
		}
	}
	if err := l.write(ctx); err != nil {
		return err
	}
	l.owned = true
	return nil
}

// inherit takes over what is stored.
func (l *Ledger) inherit(ctx context.Context, there natskv.Entry) error {
	l.revision = there.Revision
	s := newState(l.state.partition)
	if there.Revision > 0 {
		h, err := decodeHead(there.Value, s.partition)
		if err != nil {
			return fmt.Errorf("decode %s: %w", l.key, err)
		}
		l.writes = h.writes
		if s, err = l.open(ctx, h); err != nil {
			return err
		}
	}
	l.state = s
	return nil
}

// open makes the state of a stored record: all that is begun was begun by somebody else.
func (l *Ledger) open(ctx context.Context, h head) (state, error) {
	now := time.Now()
	s := h.state
	s.inherit(now, l.store.options.Hold)
	for _, g := range s.segments {
		stored, err := l.store.bucket.Get(ctx, l.key+"."+g.name)
		if errors.Is(err, natskv.ErrNotFound) {
			g.left = 0
			continue
		}
		if err != nil {
			return state{}, err
		}
		entries, err := decodeSegment(stored.Value)
		if err != nil {
			return state{}, fmt.Errorf("decode %s.%s: %w", l.key, g.name, err)
		}
		g.revision = stored.Revision
		g.left = 0
		for id, result := range entries {
			s.sealed[id] = sealed{result, g}
			g.left++
		}
	}
	s.drop(now)
	return s, nil
}

// write stores the state. It errs with natskv.ErrConflict where somebody else has.
func (l *Ledger) write(ctx context.Context) error {
	l.wrote = time.Now()
	l.unsaved = true
	l.writes++
	value := l.state.encode(l.writes, l.want)
	revision, err := l.store.bucket.Swap(ctx, l.key, value, l.revision, 0)
	l.metrics.seconds.Observe(time.Since(l.wrote).Seconds())
	if err != nil {
		return err
	}
	l.revision, l.unsaved = revision, false
	return nil
}

// seal moves what is settled out of the head: what a new owner found there, with the segments that have become small,
// or else once it is much.
func (l *Ledger) seal(ctx context.Context, inherited bool) error {
	if n := len(l.state.settled); n == 0 || !inherited && n < sealAt {
		return nil
	}
	now := time.Now()
	if inherited {
		l.state.gather()
	} else {
		l.state.drop(now)
	}
	l.sealed++
	g := &segment{
		name: fmt.Sprintf("%d-%d-%d", l.revision, now.UnixMilli(), l.sealed), left: len(l.state.settled),
		until: now.Add(l.store.options.Hold).Unix(),
	}
	revision, err := l.store.bucket.Create(ctx, l.key+"."+g.name, encodeSegment(l.state.settled), l.store.options.Hold)
	if errors.Is(err, natskv.ErrConflict) {
		return fmt.Errorf("seal: key %s.%s is there already", l.key, g.name) // no conflict of the head
	}
	if err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	g.revision = revision
	l.state.seal(g)
	return nil
}

// clean removes the segments that the stored head does not name any more. One that it misses goes by itself.
func (l *Ledger) clean(ctx context.Context) {
	if l.unsaved || len(l.purge)+len(l.state.empty) == 0 {
		return
	}
	l.purge = append(l.purge, l.state.empty...)
	l.state.empty = nil
	ctx, cancel := context.WithTimeout(ctx, cleanWithin)
	defer cancel()
	for len(l.purge) > 0 {
		g := l.purge[0]
		if err := l.store.bucket.Delete(ctx, l.key+"."+g.name, g.revision); err != nil {
			return // a later write tries again
		}
		l.purge = l.purge[1:]
	}
}
