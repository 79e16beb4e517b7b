package worker_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/jobs"
	"github.com/tributary-dev/tributary/pkg/observers"
	"github.com/tributary-dev/tributary/pkg/worker"
)

// swapped are rules that change while workers run.
type swapped struct {
	mu   sync.Mutex
	list []*observers.Set // the last one is in force
}

func (s *swapped) Current() *observers.Set {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.list[len(s.list)-1]
}

func (s *swapped) At(generation string) (*observers.Set, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, set := range s.list {
		if set.Generation() == generation {
			return set, true
		}
	}
	return nil, false
}

func (s *swapped) apply(set *observers.Set) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, set)
}

// pause applies the rules in force with one observer paused, or not.
func (s *swapped) pause(t testing.TB, observer string, paused bool) {
	t.Helper()
	set, err := s.Current().SetPaused(observer, paused)
	if err != nil {
		t.Fatal(err)
	}
	s.apply(set)
}

// by makes workers go by these rules.
func (s *swapped) by(p *worker.Parts, _ *worker.Options) { p.Rules = s }

func (r *rig) waiting(observer string) (effects int) {
	for _, parked := range r.ranges() {
		if parked.Observer == observer {
			effects += parked.Events
		}
	}
	return effects
}

const pausable = `
observers:
  - name: resting
    actions: [{name: a, type: webhook, url: "http://a.example/"}]
  - name: live
    actions: [{name: a, type: webhook, url: "http://b.example/"}]
`

func TestPausedObserverDoesItsWorkWhenItGoesOn(t *testing.T) {
	r := newRig(t, 2, pausable)
	rules := &swapped{list: []*observers.Set{r.rules}}
	rules.pause(t, "resting", true)
	w := r.start("w1", rules.by)
	r.insert(keys(200, 20)...)
	eventually(t, "the other observer goes on", func() bool { return len(r.sink.seenBy("live")) == 200 })
	eventually(t, "all of it is on record", func() bool { return r.waiting("resting") == 200 })
	w.stop()
	r.start("w2", rules.by)
	r.insert(keys(200, 20)...)
	eventually(t, "the other observer goes on", func() bool { return len(r.sink.seenBy("live")) == 400 })
	if n := len(r.sink.seenBy("resting")); n != 0 {
		t.Fatalf("a paused observer has begun %d effects", n)
	}
	rules.pause(t, "resting", false)
	r.insert(keys(100, 20)...)
	eventually(t, "all of it is done", func() bool { return len(r.sink.seenBy("resting")) >= 500 })
	eventually(t, "nothing waits", func() bool { return len(r.ranges()) == 0 })
	r.settled()
	r.sink.once(t, 1000)
	r.sink.inOrder(t)
}

func TestPausingStopsWhatHasNotBegun(t *testing.T) {
	r := newRig(t, 1, pausable)
	rules := &swapped{list: []*observers.Set{r.rules}}
	goOn := make(chan struct{})
	r.sink.answer = func(ctx context.Context, c call) error {
		if c.effect.Observer == "resting" {
			select {
			case <-goOn:
			case <-ctx.Done():
			}
		}
		return nil
	}
	r.start("w1", rules.by, func(_ *worker.Parts, o *worker.Options) { o.Concurrency = 4 })
	r.insert(keys(50, 50)...)
	eventually(t, "some of it has begun", func() bool { return len(r.sink.seenBy("resting")) == 3 }) // two thirds of the slots
	rules.pause(t, "resting", true)
	eventually(t, "the rest waits", func() bool { return r.waiting("resting") == 47 })
	close(goOn)
	eventually(t, "the other observer goes on", func() bool { return len(r.sink.seenBy("live")) == 50 })
	if n := len(r.sink.seenBy("resting")); n != 3 {
		t.Errorf("%d effects have begun, want 3", n)
	}
	rules.pause(t, "resting", false)
	r.settled()
	r.sink.once(t, 100)
	r.sink.inOrder(t)
}

func TestWhatCameDuringAPauseIsJudgedByTheRulesThatEndIt(t *testing.T) {
	const observer = `
observers:
  - name: o
    when: '%s'
    actions:
      - {name: a, type: webhook, url: "http://a.example/"}
      - {name: b, type: webhook, async: true, url: "http://a.example/"}
`
	r := newRig(t, 1, fmt.Sprintf(observer, "after.n > 100"))
	rules := &swapped{list: []*observers.Set{r.rules}}
	rules.pause(t, "o", true)
	w := r.start("w1", rules.by)
	r.insert(keys(6, 6)...)
	eventually(t, "all of it waits", func() bool { return r.waiting("o") == 12 })
	rules.apply(parse(t, fmt.Sprintf(observer, "after.n == 6 ? after.missing : after.n > 3")))
	r.settled()
	if got := len(r.sink.seen()); got != 2 {
		t.Errorf("%d effects have begun, want those of 4 and 5", got)
	}
	letters := r.deadLetters()
	if len(letters) != 1 || letters[0].Reason != "condition" || letters[0].EffectKey != effectKey(6, "o", "_") {
		t.Errorf("dead letters are %+v", letters)
	}
	for commit, want := range map[uint64]bool{3: false, 4: true, 5: true, 6: false} {
		_, err := jobs.NewStore(r.js, jobs.StoreOptions{}).Get(t.Context(), effectKey(commit, "o", "b"))
		if (err == nil) != want {
			t.Errorf("the asynchronous effect of %d: %v", commit, err)
		}
	}
	w.stop()
}

func TestRemovedObserverLetsGoOfWhatWaited(t *testing.T) {
	r := newRig(t, 1, pausable)
	rules := &swapped{list: []*observers.Set{r.rules}}
	rules.pause(t, "resting", true)
	r.start("w1", rules.by)
	r.insert(keys(20, 5)...)
	eventually(t, "all of it waits", func() bool { return r.waiting("resting") == 20 })
	rules.apply(parse(t, hook))
	r.insert("last")
	r.settled()
	if letters := r.deadLetters(); len(letters) != 0 || len(r.sink.seenBy("resting")) != 0 {
		t.Errorf("dead letters are %+v", letters)
	}
}

func TestObserverThatRunsDrySendsNothing(t *testing.T) {
	r := newRig(t, 1, `
observers:
  - name: dry
    dry_run: true
    actions:
      - {name: a, type: webhook, url: "http://a.example/"}
      - {name: b, type: webhook, async: true, url: "http://a.example/"}
      - {name: c, type: webhook, url: "http://a.example/${after.missing}"}
  - name: live
    actions: [{name: a, type: webhook, url: "http://a.example/"}]
`)
	w := r.start("w1")
	r.insert("k", "k")
	r.settled()
	if len(r.sink.seenBy("dry")) != 0 || len(r.sink.seenBy("live")) != 2 || len(r.deadLetters()) != 0 {
		t.Errorf("calls are %+v, dead letters %+v", r.sink.seen(), r.deadLetters())
	}
	stream, err := r.js.Stream(t.Context(), "KV_"+events.BucketJobs)
	if err != nil || stream.CachedInfo().State.Msgs != 0 {
		t.Errorf("there are jobs (%v)", err)
	}
	families, err := w.gather.Gather()
	if err != nil {
		t.Fatal(err)
	}
	told := 0.0
	for _, family := range families {
		for _, m := range family.GetMetric() {
			for _, label := range m.GetLabel() {
				if family.GetName() == "tributary_worker_effects_total" && label.GetValue() == "dry_run" {
					told += m.GetCounter().GetValue()
				}
			}
		}
	}
	if told != 6 {
		t.Errorf("%v effects are counted as dry runs, want 6", told)
	}
}
