package worker_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	applied "github.com/tributary-dev/tributary/internal/generations"
	"github.com/tributary-dev/tributary/internal/natskv"
	"github.com/tributary-dev/tributary/pkg/dedupkv"
	"github.com/tributary-dev/tributary/pkg/worker"
)

// numbered is rules whose two actions tell which generation they are of.
func numbered(n int) string {
	return fmt.Sprintf(`
observers:
  - name: o
    actions:
      - {name: a, type: webhook, url: "http://generation-%[1]d.example/"}
      - {name: b, type: webhook, url: "http://generation-%[1]d.example/"}
`, n)
}

func TestNoEventIsJudgedByTwoGenerations(t *testing.T) {
	const workers, last = 3, 8
	r := newRig(t, 6, numbered(1))
	store := applied.Open(r.js)
	apply := func(n int) {
		if _, _, err := store.Apply(t.Context(), parse(t, numbered(n)), "the test"); err != nil {
			t.Fatal(err)
		}
	}
	apply(1)
	ctx, stop := context.WithCancel(t.Context())
	var following sync.WaitGroup
	t.Cleanup(func() {
		stop()
		following.Wait()
	})
	for i := range workers {
		rules, err := store.Follow(ctx, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		following.Go(func() { _ = rules.Run(ctx) }) // it gives nil at the end
		r.start(fmt.Sprintf("w%d", i), func(p *worker.Parts, _ *worker.Options) { p.Rules = rules })
	}
	for n := 2; n <= last; n++ {
		r.insert(keys(150, 30)...)
		apply(n)
		r.insert(keys(50, 30)...)
		eventually(t, "the workers keep up", func() bool { return r.sink.count() > 2*r.published-400 })
	}
	eventually(t, "the last generation is in force everywhere", func() bool {
		r.insert(keys(6, 6)...)
		r.settled()
		calls := r.sink.seen()
		for _, c := range calls[len(calls)-12:] {
			if !strings.Contains(c.request.URL, fmt.Sprintf("generation-%d.", last)) {
				return false
			}
		}
		return true
	})
	r.sink.once(t, 2*r.published)
	r.sink.inOrder(t)
	of, seen := make(map[string]string), make(map[string]bool)
	for _, c := range r.sink.seen() {
		seen[c.request.URL] = true
		if was, there := of[c.effect.EventID]; there && was != c.request.URL {
			t.Errorf("event %s went to %s and to %s", c.effect.EventID, was, c.request.URL)
		}
		of[c.effect.EventID] = c.request.URL
	}
	if len(seen) < last/2 {
		t.Errorf("only %d generations were seen under load", len(seen))
	}
}

// threeOf is numbered with three actions, so that what is claimed ahead ends within an event.
func threeOf(n int) string {
	return numbered(n) + fmt.Sprintf("      - {name: c, type: webhook, url: \"http://generation-%d.example/\"}\n", n)
}

func TestAnEventThatWasBegunIsFinishedByItsOwnGeneration(t *testing.T) {
	r := newRig(t, 1, threeOf(1))
	store := applied.Open(r.js)
	apply := func(n int) {
		if _, _, err := store.Apply(t.Context(), parse(t, threeOf(n)), "the test"); err != nil {
			t.Fatal(err)
		}
	}
	follow := func(p *worker.Parts, _ *worker.Options) {
		rules, err := store.Follow(t.Context(), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		p.Rules = rules // those of now
	}
	apply(1)
	hung, here := make(chan struct{}), make(chan struct{})
	var calls atomic.Int32
	r.sink.answer = func(ctx context.Context, _ call) error {
		ends := hung
		if calls.Add(1) <= 2 {
			ends = here
		}
		select {
		case <-ends:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	first := r.start("w1", follow, func(_ *worker.Parts, o *worker.Options) { o.Concurrency = 1 })
	r.insert(keys(500, 500)...)
	eventually(t, "all is in its lanes", func() bool { return first.counter("tributary_worker_events_total") == 500 })
	close(here) // there is room to claim more: 128 in all, two of which are done
	eventually(t, "the first worker has claimed what it may, in the middle of an event", func() bool { return halfClaimed(t, r) })
	first.kill()
	close(hung)
	apply(2)
	r.insert(keys(10, 10)...)
	r.start("w2", follow)
	eventually(t, "all is done", func() bool { return r.sink.count() >= 3*r.published })
	r.settled()
	of, seen := make(map[string]string), make(map[string]int)
	for _, c := range r.sink.seen() {
		seen[c.request.URL]++
		if was, there := of[c.effect.EventID]; there && was != c.request.URL {
			t.Errorf("event %s went to %s and to %s", c.effect.EventID, was, c.request.URL)
		}
		of[c.effect.EventID] = c.request.URL
	}
	if len(seen) != 2 || seen["http://generation-2.example/"] < 30 {
		t.Errorf("calls by generations: %v", seen)
	}
}

// halfClaimed tells whether there is an event of which some effects are claimed and some are not, behind many that are.
func halfClaimed(t *testing.T, r *rig) bool {
	t.Helper()
	store, err := dedupkv.New(natskv.Open(r.js, "dedup"), dedupkv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for commit := uint64(30); commit < 60; commit++ {
		claimed := 0
		for _, action := range []string{"a", "b", "c"} {
			_, there, err := store.Look(t.Context(), 0, effectKey(commit, "o", action))
			if err != nil {
				t.Fatal(err)
			}
			if there {
				claimed++
			}
		}
		if claimed > 0 && claimed < 3 {
			return true
		}
	}
	return false
}
