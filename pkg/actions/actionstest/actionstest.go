// Package actionstest is the one suite that every action passes: the contract of actions.Action, run against the real
// other side, or one in process that speaks its protocol.
package actionstest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/retry"
)

// What a fixture puts into its requests, and what no error and no outcome may show.
const (
	Payload = "payload-4f1c" // within the body, wherever data of an event goes
	Secret  = "secret-9d2e"  // within what a reference to a secret gives
)

// Fault is a way in which the other side does not do what it is asked.
type Fault string

// The faults.
const (
	Refuses Fault = "refuses" // for good: no attempt can mend it
	Fails   Fault = "fails"   // for now
	Hangs   Fault = "hangs"   // does not answer until the test ends
)

// Fixture is one action with the other side that it works upon.
type Fixture struct {
	Action  actions.Action
	Request actions.Request

	// Keys gives the idempotency keys that the other side has got, in any order; nil where it learns none, for the
	// reason in Lacks["keys"].
	Keys func() []string

	// Faults set the other side up, or give the request that brings the fault about. A fault that can't happen is
	// left out, for the reason in Lacks.
	Faults map[Fault]func(t *testing.T) actions.Request
	Lacks  map[string]string
}

// Run runs the suite; make makes a fresh fixture for each of its tests.
func Run(t *testing.T, newFixture func(t *testing.T) Fixture) {
	t.Run("an effect is done", func(t *testing.T) {
		f := newFixture(t)
		f.succeed(t, effectOf("one"))
	})
	t.Run("the effect key goes with each attempt", func(t *testing.T) { testKey(t, newFixture(t)) })
	t.Run("effects at the same time stay apart", func(t *testing.T) { testConcurrent(t, newFixture(t)) })
	t.Run("a context that ended begins nothing", func(t *testing.T) { testEnded(t, newFixture(t)) })
	t.Run("a hung other side is left when the time is over", func(t *testing.T) { testHangs(t, newFixture(t)) })
	t.Run("what is refused for good is permanent", func(t *testing.T) { testFault(t, newFixture(t), Refuses, true) })
	t.Run("what fails for now may be tried again", func(t *testing.T) { testFault(t, newFixture(t), Fails, false) })
	t.Run("a request of nothing is an error or nothing, and no panic", func(t *testing.T) {
		f := newFixture(t)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		outcome, err := f.Action.Do(ctx, effectOf("empty"), actions.Request{Type: f.Request.Type, Timeout: time.Second})
		conceals(t, outcome, err)
	})
}

// patience is for what is to happen, and never waited for in full where it does.
const patience = 20 * time.Second

func effectOf(name string) actions.Effect {
	id := "shop-1-0000000016B37488-771-" + name
	return actions.Effect{
		Key: id + "~order-shipped~tell", EventID: id, Sequence: "0000000016B37488.0000000003", Observer: "order-shipped", Action: "tell",
	}
}

func (f *Fixture) succeed(t *testing.T, effect actions.Effect) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	outcome, err := f.Action.Do(ctx, effect, f.Request)
	if err != nil {
		t.Errorf("effect %s: %v", effect.Key, err)
	}
	conceals(t, outcome, err)
}

func testKey(t *testing.T, f Fixture) {
	f.skipWithout(t, "keys", f.Keys != nil)
	effect := effectOf("twice")
	for range 2 {
		f.succeed(t, effect)
	}
	keys := f.Keys()
	if len(keys) == 0 || slices.ContainsFunc(keys, func(key string) bool { return key != effect.Key }) {
		t.Errorf("the other side got the keys %q, want only %q", keys, effect.Key)
	}
}

func testConcurrent(t *testing.T, f Fixture) {
	const effects = 24
	var all sync.WaitGroup
	var want []string
	for i := range effects {
		effect := effectOf(fmt.Sprint(i))
		want = append(want, effect.Key)
		all.Go(func() { f.succeed(t, effect) })
	}
	all.Wait()
	f.skipWithout(t, "keys", f.Keys != nil)
	got := slices.Sorted(slices.Values(f.Keys()))
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the other side got the keys %q, want %q", got, want)
	}
}

func testEnded(t *testing.T, f Fixture) {
	f.skipWithout(t, "context", f.Lacks["context"] == "")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	outcome, err := f.Action.Do(ctx, effectOf("ended"), f.Request)
	if err == nil || retry.IsPermanent(err) {
		t.Errorf("an attempt of no time gave %v, want an error that is not permanent", err)
	}
	conceals(t, outcome, err)
	if f.Keys != nil && len(f.Keys()) > 0 {
		t.Errorf("the other side got the keys %q of an attempt of no time", f.Keys())
	}
}

func testHangs(t *testing.T, f Fixture) {
	const timeout = 150 * time.Millisecond
	request := f.request(t, Hangs)
	request.Timeout = timeout
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	begun := time.Now()
	outcome, err := f.Action.Do(ctx, effectOf("hung"), request)
	if took := time.Since(begun); took > patience/4 {
		t.Errorf("the attempt was left after %s, its time was %s", took, timeout)
	}
	if !errors.Is(err, context.DeadlineExceeded) || retry.IsPermanent(err) {
		t.Errorf("the attempt gave %v, want a deadline that is exceeded, and not permanent", err)
	}
	conceals(t, outcome, err)
}

func testFault(t *testing.T, f Fixture, fault Fault, permanent bool) {
	request := f.request(t, fault)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	outcome, err := f.Action.Do(ctx, effectOf("failed"), request)
	if err == nil || retry.IsPermanent(err) != permanent {
		t.Errorf("the other side %s, and the attempt gave %v, want an error with permanent %t", fault, err, permanent)
	}
	conceals(t, outcome, err)
}

// request brings a fault about, or skips the test where it can't happen.
func (f *Fixture) request(t *testing.T, fault Fault) actions.Request {
	t.Helper()
	bring, ok := f.Faults[fault]
	f.skipWithout(t, string(fault), ok)
	return bring(t)
}

// skipWithout skips a test that the fixture has a reason not to be put to.
func (f *Fixture) skipWithout(t *testing.T, what string, there bool) {
	t.Helper()
	if there {
		return
	}
	if f.Lacks[what] == "" {
		t.Fatalf("the fixture lacks %q and gives no reason", what)
	}
	t.Skip(f.Lacks[what])
}

// conceals fails the test where an attempt shows what it was made of.
func conceals(t *testing.T, outcome actions.Outcome, err error) {
	t.Helper()
	shown := outcome.Detail
	if err != nil {
		shown += " " + err.Error()
	}
	for _, hidden := range []string{Payload, Secret} {
		if strings.Contains(shown, hidden) {
			t.Errorf("%q is shown in %q", hidden, shown)
		}
	}
}
