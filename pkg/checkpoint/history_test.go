package checkpoint_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/tributary-dev/tributary/internal/pgtest"
	"github.com/tributary-dev/tributary/pkg/checkpoint"
	"github.com/tributary-dev/tributary/pkg/events"
)

// call is what a client asked, and answer what it heard.
type (
	call struct {
		source string
		save   bool
		to     saved // of a save
	}
	answer struct {
		err   error // of a save; errUnknown where it may have come, or come later
		found saved // by a read
	}
	saved struct{ epoch, place uint64 }
)

var errUnknown = errors.New("no answer")

// register is what a source's checkpoint promises to be: a place that never goes back, neither does the epoch.
var register = porcupine.Model{
	Partition: func(ops []porcupine.Operation) (parts [][]porcupine.Operation) {
		bySource := map[string][]porcupine.Operation{}
		for _, op := range ops {
			source := op.Input.(call).source
			bySource[source] = append(bySource[source], op)
		}
		for _, part := range bySource {
			parts = append(parts, part)
		}
		return parts
	},
	Init: func() any { return saved{} },
	Step: func(state, input, output any) (bool, any) {
		now, in, out := state.(saved), input.(call), output.(answer)
		if !in.save {
			return out.found == now, now
		}
		stale, backwards := in.to.epoch < now.epoch, in.to.place < now.place
		switch {
		case errors.Is(out.err, checkpoint.ErrStale):
			return stale, now
		case errors.Is(out.err, checkpoint.ErrBackwards):
			return backwards && !stale, now
		case out.err == nil:
			return !stale && !backwards, in.to
		case stale || backwards:
			return true, now // without an answer, and without an effect: refused, or never come, which may be at the very end
		default:
			return true, in.to
		}
	},
}

// client is a store under test.
type client interface {
	Save(ctx context.Context, c checkpoint.Checkpoint) error
	Get(ctx context.Context, source string) (checkpoint.Saved, error)
}

// forgetful saves whatever comes: a store that the check must tell from ours.
type forgetful struct {
	*checkpoint.Store
}

func (f forgetful) Save(ctx context.Context, c checkpoint.Checkpoint) error {
	now, err := f.Get(ctx, c.Source)
	if err == nil && (c.Epoch < now.Epoch || c.Commit < now.Commit) {
		c.Incarnation = now.Incarnation + 1 // which our store takes for a new beginning
		c.Epoch = now.Epoch
	}
	return f.Store.Save(ctx, c)
}

// PostgreSQL is killed and started again while stores save and read; calls without an answer may have come.
func TestHistoriesOfCheckpointsAreLinearizable(t *testing.T) {
	cases := map[string]struct {
		client func(s *checkpoint.Store) client
		want   porcupine.CheckResult
	}{
		"of our store":                  {func(s *checkpoint.Store) client { return s }, porcupine.Ok},
		"of a store that does not look": {func(s *checkpoint.Store) client { return forgetful{s} }, porcupine.Illegal},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ops, unknown := recordSaves(t, c.client)
			t.Logf("%d operations, %d without an answer", len(ops), unknown)
			if got := porcupine.CheckOperationsTimeout(register, ops, 30*time.Second); got != c.want {
				t.Errorf("the history is %s, want %s", got, c.want)
			}
			if unknown == 0 {
				t.Error("every call was answered: nothing was tried")
			}
		})
	}
}

// recordSaves has three stores save and read two sources, each by several callers, over two crashes of PostgreSQL.
func recordSaves(t *testing.T, wrap func(*checkpoint.Store) client) (ops []porcupine.Operation, unknown int) {
	const stores, callers, crashes, between = 3, 3, 2, 150
	server := pgtest.Server(t, map[string]string{"fsync": "off"})
	begin := time.Now()
	now := func() int64 { return time.Since(begin).Nanoseconds() }
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	var mu sync.Mutex
	did := make(chan struct{}, 1)
	note := func(client int, in call, called int64, out answer) {
		returned := now()
		mu.Lock()
		defer mu.Unlock()
		if out.err == errUnknown {
			returned = int64(time.Hour)
			unknown++
		}
		ops = append(ops, porcupine.Operation{ClientId: client, Input: in, Call: called, Output: out, Return: returned})
		select {
		case did <- struct{}{}:
		default:
		}
	}
	for n := range stores {
		store := open(t, server.URL("postgres"))
		if err := store.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
		s := wrap(store)
		for caller := range callers {
			running.Go(func() {
				for ctx.Err() == nil {
					one(ctx, s, n*callers+caller, now, note)
				}
			})
		}
	}
	count := func() int { mu.Lock(); defer mu.Unlock(); return len(ops) }
	for crash := 1; crash <= crashes+1; crash++ {
		for target := count() + between; count() < target; {
			<-did
		}
		if crash > crashes {
			break
		}
		if err := server.Kill(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := server.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	running.Wait()
	return ops, unknown
}

// one saves or reads once.
func one(ctx context.Context, s client, id int, now func() int64, note func(int, call, int64, answer)) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	in := call{source: []string{"shop", "web"}[rand.IntN(2)]}
	called := now()
	if rand.IntN(3) == 0 {
		found, err := s.Get(ctx, in.source)
		switch {
		case err == nil:
			note(id, in, called, answer{found: saved{found.Epoch, uint64(found.Commit)}})
		case errors.Is(err, checkpoint.ErrNotFound):
			note(id, in, called, answer{})
		} // any other says nothing
		return
	}
	elapsed := uint64(called / int64(5*time.Millisecond))
	in.save, in.to = true, saved{epoch: 1 + elapsed/20 - min(elapsed/20, rand.Uint64N(2)), place: 1 + elapsed + rand.Uint64N(10)}
	c := first()
	c.Source, c.Epoch, c.Commit, c.Index = in.source, in.to.epoch, events.LSN(in.to.place), 0
	c.End = c.Commit + 1
	err := s.Save(ctx, c)
	if err != nil && !errors.Is(err, checkpoint.ErrStale) && !errors.Is(err, checkpoint.ErrBackwards) {
		err = errUnknown
	}
	note(id, in, called, answer{err: err})
	for err == errUnknown && ctx.Err() == nil { // many such calls would fit anything, and no check would end
		if _, found := s.Get(ctx, in.source); found == nil || errors.Is(found, checkpoint.ErrNotFound) {
			return
		}
	}
}
