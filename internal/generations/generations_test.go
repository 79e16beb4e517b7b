package generations

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/tributary-dev/tributary/internal/natstest"
	"github.com/tributary-dev/tributary/pkg/observers"
	"github.com/tributary-dev/tributary/streams"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func setUp(t *testing.T) (*Store, jetstream.JetStream) {
	t.Helper()
	js := natstest.Start(t).JetStream(t)
	if _, err := streams.Apply(t.Context(), js, streams.Options{}); err != nil {
		t.Fatal(err)
	}
	return Open(js), js
}

// named makes a set of observers with these names, whose actions say message.
func named(t *testing.T, message string, names ...string) *observers.Set {
	t.Helper()
	var b strings.Builder
	b.WriteString("observers:\n")
	for _, name := range names {
		fmt.Fprintf(&b, "  - {name: %s, when: 'op != \"delete\"', actions: [{name: say, type: log, message: %q}]}\n", name, message)
	}
	if len(names) == 0 {
		b.WriteString("  []\n")
	}
	set, err := observers.Parse("observers.yaml", []byte(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func apply(t *testing.T, s *Store, set *observers.Set) Current {
	t.Helper()
	current, changed, err := s.Apply(t.Context(), set, "somebody")
	if err != nil || !changed {
		t.Fatalf("apply: changed %t, %v", changed, err)
	}
	return current
}

func TestWhatWasAppliedIsLoaded(t *testing.T) {
	s, _ := setUp(t)
	if _, _, err := s.Load(t.Context()); !errors.Is(err, ErrNone) {
		t.Errorf("before: %v", err)
	}
	for _, set := range []*observers.Set{named(t, "one", "a", "b"), named(t, "two", "b", "c"), named(t, "three"), named(t, "four", "a")} {
		applied := apply(t, s, set)
		loaded, current, err := s.Load(t.Context())
		if err != nil || loaded.Generation() != set.Generation() || current.Number != applied.Number || current.Observers != len(set.Observers()) {
			t.Errorf("loaded %+v, %v", current, err)
		}
		again, changed, err := s.Apply(t.Context(), set, "somebody else")
		if err != nil || changed || again.By != "somebody" {
			t.Errorf("the same again: %+v, %t, %v", again, changed, err)
		}
	}
}

func TestOfThoseWhoApplyAtOnceEachIsWholeOrRefused(t *testing.T) {
	s, _ := setUp(t)
	const many = 8
	var applying sync.WaitGroup
	results := make([]error, many)
	sets := make([]*observers.Set, many)
	for i := range many {
		sets[i] = named(t, fmt.Sprint("by ", i), "a", "b", "c")
		applying.Go(func() { _, _, results[i] = s.Apply(context.WithoutCancel(t.Context()), sets[i], "") })
	}
	applying.Wait()
	loaded, current, err := s.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	applied := 0
	for i, err := range results {
		switch {
		case err == nil:
			applied++
		case !errors.Is(err, ErrConflict):
			t.Errorf("apply %d: %v", i, err)
		case loaded.Generation() == sets[i].Generation():
			t.Errorf("apply %d was refused, and is in force", i)
		}
	}
	if applied == 0 || len(current.Previous) != applied-1 {
		t.Errorf("%d were applied, and %d lie behind the last", applied, len(current.Previous))
	}
}

func TestOldGenerationsAreForgotten(t *testing.T) {
	s, js := setUp(t)
	var last Current
	for i := range 3 * kept {
		last = apply(t, s, named(t, fmt.Sprint(i), "a", "b"))
	}
	if len(last.Previous) != kept {
		t.Errorf("%d are kept, want %d", len(last.Previous), kept)
	}
	for _, earlier := range last.Previous {
		if _, err := s.load(t.Context(), earlier); err != nil {
			t.Errorf("generation %d: %v", earlier.Number, err)
		}
	}
	kv, err := js.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	info, err := kv.Info(t.Context(), jetstream.WithSubjectFilter(subjects+">"))
	if err != nil {
		t.Fatal(err)
	}
	if want := 1 + 3*(kept+1); len(info.State.Subjects) != want { // current; and a reservation and two observers each
		t.Errorf("there are %d keys, want %d", len(info.State.Subjects), want)
	}
}

func TestDamagedGenerationIsRefused(t *testing.T) {
	s, js := setUp(t)
	current := apply(t, s, named(t, "x", "a", "b"))
	kv, err := js.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	if err := kv.Purge(t.Context(), jetstream.WithPurgeSubject(subjects+numbered(current.Number)+".a")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Load(t.Context()); !errors.Is(err, ErrDamaged) {
		t.Errorf("got %v", err)
	}
	if _, err := s.Follow(t.Context(), slog.New(slog.DiscardHandler)); !errors.Is(err, ErrDamaged) {
		t.Errorf("got %v", err)
	}
}

func TestFollowersSwapAndRememberWhatWasBefore(t *testing.T) {
	s, _ := setUp(t)
	rules, err := s.Follow(t.Context(), slog.New(slog.DiscardHandler))
	if err != nil || len(rules.Current().Observers()) != 0 {
		t.Fatalf("before: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := rules.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	defer running.Wait()
	defer cancel()
	sets := make([]*observers.Set, 3)
	for i := range sets {
		sets[i] = named(t, fmt.Sprint(i), "a")
		apply(t, s, sets[i])
		deadline := time.After(30 * time.Second)
		for rules.Current().Generation() != sets[i].Generation() {
			select {
			case <-deadline:
				t.Fatalf("generation %d is not followed", i)
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
	late, err := s.Follow(t.Context(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]*Rules{"who followed all along": rules, "who came late": late} {
		for i, set := range sets {
			if was, ok := r.At(set.Generation()); !ok || was.Generation() != set.Generation() {
				t.Errorf("%s does not know generation %d", name, i)
			}
		}
		if _, ok := r.At("0000000000000000"); ok {
			t.Errorf("%s knows what never was", name)
		}
	}
}
