package indexer_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/pkg/indexer"
)

// named is an index that says which one it is; empty: it does not answer.
type named struct{ atomic.Pointer[string] }

func (n *named) be(name string) *named {
	n.Store(&name)
	return n
}

func (n *named) identity(context.Context) (string, error) {
	if name := *n.Load(); name != "" {
		return name, nil
	}
	return "", errors.New("nobody answers")
}

func (n *named) options() indexer.Options {
	return indexer.AskingEvery(indexer.Options{Identity: n.identity}, 10*time.Millisecond)
}

func TestAnotherIndexIsFilledFromTheBeginning(t *testing.T) {
	r := newRig(t)
	r.publish(20)
	r.start(new(named).be("a").options()).stop()
	first := r.start(new(named).be("a").options())
	r.settled(20)
	first.stop()
	if n := r.metric("restarts_total") + r.metric("duplicates_total"); n > 0 {
		t.Errorf("the same index was begun again: %v", n)
	}

	r.index = newMemory() // a folder that was emptied, or a new cluster
	r.publish(5)
	second := r.start(new(named).be("b").options())
	r.settled(25)
	second.stop()
	if n := r.metric("restarts_total"); n != 1 {
		t.Errorf("it was begun %v times again, want once", n)
	}
	if got := r.consumer().Config.Metadata[indexer.IndexKey]; got != "b" {
		t.Errorf("the consumer is for %q", got)
	}
}

// A consumer from before identities were kept may be another index's: all is offered again, and nothing is there twice.
func TestAnIndexOfUnknownIdentityIsFilledAgain(t *testing.T) {
	r := newRig(t)
	r.publish(20)
	old := r.start(indexer.Options{})
	r.settled(20)
	old.stop()
	r.start(new(named).be("a").options())
	r.eventually("all are offered again", func() bool { return r.metric("duplicates_total") == 20 })
	r.settled(20)
}

func TestAnIndexThatBecomesAnotherWhileItRunsIsFilledAgain(t *testing.T) {
	r := newRig(t)
	index := new(named).be("a")
	x := r.start(index.options())
	r.publish(20)
	r.settled(20)
	index.be("")
	r.publish(1)
	r.settled(21) // who does not say which one it is is the same
	index.be("b")
	r.publish(1)
	r.eventually("all are offered again", func() bool { return r.metric("duplicates_total") >= 21 })
	r.settled(22)
	r.eventually("it is ready", func() bool { ok, _ := x.ready.is(); return ok })
	if n := r.metric("restarts_total"); n != 1 {
		t.Errorf("it was begun %v times again, want once", n)
	}
}

// Two indexers of different indices do not take the events from each other for ever: who started last has them.
func TestIndexersOfTwoIndicesDoNotFight(t *testing.T) {
	r := newRig(t)
	r.publish(5)
	first := r.start(new(named).be("a").options())
	r.settled(5)
	r.start(new(named).be("b").options())
	r.eventually("the first says that it has no events", func() bool {
		ok, why := first.ready.is()
		return !ok && strings.Contains(why, "another indexer has the events, for another index: b, and this one's is a")
	})
	r.publish(5)
	r.settled(10)
	if n := r.metric("restarts_total"); n != 1 {
		t.Errorf("it was begun %v times again, want once", n)
	}
}

func TestSeveralIndexersOfAnotherIndexBeginItOnceTogether(t *testing.T) {
	r := newRig(t)
	r.publish(50)
	r.start(new(named).be("a").options()).stop()
	for range 3 {
		r.start(new(named).be("b").options())
	}
	r.settled(50)
}

// parts are the months of an index.
type parts struct {
	atomic.Pointer[map[string]string]
}

func (p *parts) be(months map[string]string) { p.Store(&months) }

func (p *parts) get(context.Context) (map[string]string, error) {
	if months := *p.Load(); months != nil {
		return months, nil
	}
	return nil, errors.New("it is not told")
}

func TestWhatIsRemovedFromAnIndexIsFilledAgain(t *testing.T) {
	now := indexer.MonthOf(time.Now())
	for name, c := range map[string]struct {
		before, after map[string]string
		keep          time.Duration
		again         bool
	}{
		"a month that is removed":                      {map[string]string{now: "u1"}, map[string]string{}, 0, true},
		"a month that is replaced":                     {map[string]string{now: "u1"}, map[string]string{now: "u2"}, time.Hour, true},
		"one of two":                                   {map[string]string{"2999.01": "u0", now: "u1"}, map[string]string{"2999.01": "u0"}, 0, true},
		"not one more":                                 {map[string]string{now: "u1"}, map[string]string{"2999.01": "u0", now: "u1"}, 0, false},
		"not one that retention removes":               {map[string]string{"2020.01": "u0", now: "u1"}, map[string]string{now: "u1"}, time.Hour, false},
		"not one that EVENTS has nothing of":           {map[string]string{"2020.01": "u0", now: "u1"}, map[string]string{now: "u1"}, 0, false},
		"nor where the index does not tell its months": {map[string]string{now: "u1"}, nil, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // the index is asked once in a second
			for _, runs := range []bool{true, false} {
				r := newRig(t)
				var months parts
				months.be(c.before)
				options := new(named).be("a").options()
				options.Parts, options.Keep = months.get, c.keep
				x := r.start(options)
				r.publish(20)
				r.settled(20)
				if !runs {
					x.stop()
				}
				months.be(c.after)
				if !runs {
					r.start(options)
				}
				if c.again {
					r.eventually("all are offered again", func() bool { return r.metric("duplicates_total") >= 20 })
				}
				want := c.after
				if want == nil {
					want = c.before
				}
				r.eventually("the months are noted", func() bool {
					noted := r.consumer().Config.Metadata[indexer.PartsKey]
					return len(strings.Fields(noted)) == len(want) && (want[now] == "" || strings.Contains(noted, now+"="+want[now]))
				})
				r.publish(1)
				r.settled(21)
				if n := r.metric("restarts_total"); (n == 1) != c.again || n > 1 {
					t.Errorf("while it runs %t: begun %v times again, want it %t", runs, n, c.again)
				}
			}
		})
	}
}
