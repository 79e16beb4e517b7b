package circuit_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/tributary-dev/tributary/internal/natskv"
	"github.com/tributary-dev/tributary/internal/natstest"
	"github.com/tributary-dev/tributary/internal/stall"
	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/actions/circuit"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/retry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const name = "https://carrier.example:443"

var errDown = errors.New("connection refused")

type world struct {
	t      *testing.T
	server *natstest.Server
	bucket *natskv.Bucket
}

func newWorld(t *testing.T) *world {
	t.Helper()
	server := natstest.Start(t)
	js := server.JetStream(t)
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: "KV_circuits", Subjects: []string{"$KV.circuits.>"}, MaxMsgsPerSubject: 1, AllowMsgTTL: true, AllowRollup: true,
		DenyDelete: true, Discard: jetstream.DiscardNew,
	}); err != nil {
		t.Fatal(err)
	}
	return &world{t: t, server: server, bucket: natskv.Open(js, events.BucketCircuits)}
}

// start runs the circuits of a process until the test ends.
func (w *world) start(owner string, change ...func(*circuit.Options)) *circuit.Circuits {
	w.t.Helper()
	options := circuit.Options{Owner: owner, OpenFor: 100 * time.Millisecond, Probes: 3, Ramp: 50 * time.Millisecond}
	for _, f := range change {
		f(&options)
	}
	c, err := circuit.New(natskv.Open(w.server.JetStream(w.t), events.BucketCircuits), options)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = c.Run(ctx) })
	w.t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return c
}

// call makes one call, if it may.
func call(c *circuit.Circuits, err error) bool {
	pass, answer := c.Enter(name)
	if answer != circuit.Yes {
		return false
	}
	pass.Done(err)
	return true
}

func await(t *testing.T, fact string, holds func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for !holds() {
		select {
		case <-look.C:
		case <-deadline:
			t.Fatalf("never: %s", fact)
		}
	}
}

func is(c *circuit.Circuits, state circuit.State) func() bool {
	return func() bool { return c.State(name) == state }
}

func slow(o *circuit.Options) { o.OpenFor = time.Hour }

func TestWhatOpensACircuit(t *testing.T) {
	ok, gone := error(nil), retry.Permanent(errors.New("410 Gone"))
	repeat := func(n int, results ...error) []error {
		var list []error
		for range n {
			list = append(list, results...)
		}
		return list
	}
	cases := map[string]struct {
		calls []error
		want  circuit.State
	}{
		"twenty failures":                        {repeat(20, errDown), circuit.Open},
		"nineteen do not":                        {repeat(19, errDown), circuit.Closed},
		"half of many does not":                  {repeat(50, ok, errDown), circuit.Closed},
		"more than half of many":                 {append(repeat(30, ok, errDown), errDown, errDown), circuit.Open},
		"permanent outcomes do not count":        {repeat(100, gone), circuit.Closed},
		"nor hide failures":                      {append(repeat(100, gone), repeat(20, errDown)...), circuit.Open},
		"a timeout counts":                       {repeat(20, fmt.Errorf("send: %w", context.DeadlineExceeded)), circuit.Open},
		"a type that nobody serves counts not":   {repeat(50, fmt.Errorf("%w: fax", actions.ErrUnknownType)), circuit.Closed},
		"a good history of the window does":      {append(repeat(100, ok), repeat(50, errDown)...), circuit.Closed},
		"but not once more than half has failed": {append(repeat(30, ok), repeat(31, errDown)...), circuit.Open},
	}
	for title, test := range cases {
		t.Run(title, func(t *testing.T) {
			c, err := circuit.New(nil, circuit.Options{Owner: "p"}) // it shares nothing
			if err != nil {
				t.Fatal(err)
			}
			for _, result := range test.calls {
				call(c, result)
			}
			if got := c.State(name); got != test.want {
				t.Errorf("it is %s, want %s", got, test.want)
			}
		})
	}
}

func TestOthersHearOfAnOpenCircuitAndNeedNotFail(t *testing.T) {
	w := newWorld(t)
	first := w.start("p1", slow)
	var others []*circuit.Circuits
	for i := range 9 {
		others = append(others, w.start(fmt.Sprint("p", i+2), slow))
	}
	for range 20 {
		call(first, errDown)
	}
	began := stall.Begin(t)
	for _, c := range others {
		await(t, "another process has it open", func() bool { return c.Shut(name) })
	}
	began.Within(500*time.Millisecond, "all had heard")
	list, err := circuit.List(t.Context(), w.bucket)
	if err != nil || len(list) != 1 || list[0].State != circuit.Open || list[0].By != "p1" {
		t.Errorf("listed: %+v, %v", list, err)
	}
}

func TestCallsOfAllProcessesCountTogether(t *testing.T) {
	w := newWorld(t)
	var all []*circuit.Circuits
	for i := range 10 {
		all = append(all, w.start(fmt.Sprint("p", i), slow))
	}
	calls := 0
	round := time.NewTicker(50 * time.Millisecond) // ten processes make 200 calls a second
	defer round.Stop()
	for open := false; !open; <-round.C {
		open = true
		for _, c := range all {
			if call(c, errDown) {
				calls++
				open = false
			}
		}
	}
	if calls > 100 { // each by itself, they would make 200
		t.Errorf("%d calls failed until all ten had it open", calls)
	}
}

func TestOneProcessProbesAndAllClose(t *testing.T) {
	w := newWorld(t)
	a, b := w.start("a"), w.start("b")
	for range 20 {
		call(a, errDown)
	}
	await(t, "b has heard", func() bool { return b.State(name) == circuit.Open })
	var passes []*circuit.Pass
	await(t, "the probes are out", func() bool {
		for _, c := range []*circuit.Circuits{a, b} {
			if pass, answer := c.Enter(name); answer == circuit.Yes {
				passes = append(passes, pass)
			}
		}
		return len(passes) == 3
	})
	if a.State(name) == circuit.Probing && b.State(name) == circuit.Probing {
		t.Error("both probe")
	}
	if call(a, nil) || call(b, nil) {
		t.Error("a fourth probe is let through")
	}
	for _, pass := range passes {
		pass.Done(nil)
	}
	await(t, "a closes", is(a, circuit.Closed))
	await(t, "b closes", is(b, circuit.Closed))
}

func TestProbesThatSucceedCloseAndThoseThatFailOpen(t *testing.T) {
	w := newWorld(t)
	a, b := w.start("a"), w.start("b")
	for range 20 {
		call(a, errDown)
	}
	await(t, "a probe is let through", func() bool { return call(a, errDown) })
	await(t, "it is open again", is(a, circuit.Open))
	done := 0
	await(t, "three probes are done", func() bool {
		if call(a, nil) {
			done++
		}
		return done >= 3
	})
	await(t, "a closes", is(a, circuit.Closed))
	await(t, "b closes", is(b, circuit.Closed))
}

// Who has little to send must not keep the others waiting who have much.
func TestFewerProbesThanItTakesDecideWhereNoOtherComes(t *testing.T) {
	w := newWorld(t)
	a, b := w.start("a"), w.start("b")
	for range 20 {
		call(a, errDown)
	}
	await(t, "b hears", is(b, circuit.Open))
	await(t, "one probe succeeds", func() bool { return call(a, nil) })
	if a.State(name) != circuit.Probing {
		t.Error("one probe closed the circuit at once")
	}
	await(t, "a closes", is(a, circuit.Closed))
	await(t, "b closes", is(b, circuit.Closed))
}

func TestProbeThatIsCutShortIsGivenBack(t *testing.T) {
	w := newWorld(t)
	c := w.start("a")
	for range 20 {
		call(c, errDown)
	}
	cut := 0
	await(t, "ten probes are cut short", func() bool {
		if pass, answer := c.Enter(name); answer == circuit.Yes {
			pass.Return()
			cut++
		}
		return cut == 10
	})
	done := 0
	await(t, "three others succeed", func() bool {
		if call(c, nil) {
			done++
		}
		return done >= 3
	})
	await(t, "it closes", is(c, circuit.Closed))
}

func TestForcedCircuitStaysOpenUntilItIsReset(t *testing.T) {
	w := newWorld(t)
	c := w.start("a")
	if err := circuit.Force(t.Context(), w.bucket, name, "ann", 0); err != nil {
		t.Fatal(err)
	}
	await(t, "it is open", func() bool { return c.Shut(name) })
	never := time.After(300 * time.Millisecond) // three times as long as others wait for a probe
	for waiting := true; waiting; {
		select {
		case <-never:
			waiting = false
		default:
			if call(c, nil) {
				t.Fatal("a call is let through")
			}
		}
	}
	if err := circuit.Reset(t.Context(), w.bucket, name, "ann"); err != nil {
		t.Fatal(err)
	}
	await(t, "it is closed", is(c, circuit.Closed))
	if err := circuit.Force(t.Context(), w.bucket, name, "ann", 50*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	await(t, "it opens", is(c, circuit.Open))
	await(t, "it is probed when its time is over", func() bool { return call(c, nil) })
}

func TestWithoutKVEachGoesOnByItself(t *testing.T) {
	w := newWorld(t)
	c := w.start("a")
	w.server.Stop()
	for range 20 {
		call(c, errDown)
	}
	if c.State(name) != circuit.Open {
		t.Fatalf("it is %s", c.State(name))
	}
	done := 0
	await(t, "it is probed all the same", func() bool {
		if call(c, nil) {
			done++
		}
		return done >= 3
	})
	await(t, "it closes", is(c, circuit.Closed))
	w.server.Restart(t)
}

func TestRateAndConcurrencyAreBounded(t *testing.T) {
	c, err := circuit.New(nil, circuit.Options{Owner: "p", Limits: []circuit.Limit{{Name: name, Rate: "1000/m", Concurrency: 8}}})
	if err != nil {
		t.Fatal(err)
	}
	if most := c.Most(name, 64); most != 8 {
		t.Errorf("%d at the same time, want 8", most)
	}
	if most := c.Most("another", 64); most != 64 {
		t.Errorf("%d at the same time elsewhere, want 64", most)
	}
	taken := 0
	for range 100 {
		if c.Take(name) == 0 {
			taken++
		}
	}
	if taken > 3 || c.Take(name) <= 0 {
		t.Errorf("%d calls at once of 1000 in a minute", taken)
	}
	for _, bad := range []circuit.Limit{{Rate: "1/s"}, {Name: "x", Rate: "fast"}, {Name: "x", Rate: "0/s"}, {Name: "x", Rate: "1/d"}, {Name: "x", Concurrency: -1}} {
		if _, err := circuit.New(nil, circuit.Options{Owner: "p", Limits: []circuit.Limit{bad}}); err == nil {
			t.Errorf("limit %+v is taken", bad)
		}
	}
}
