package worker

import (
	"cmp"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/deadletter"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/jobs"
	"github.com/tributary-dev/tributary/pkg/observers"
)

type rules interface {
	// Current gives the generation in force.
	Current() *observers.Set
	// At gives an older generation; false where it is not known any more.
	At(generation string) (*observers.Set, bool)
}

// FixedRules are the one generation of rules that are read at the start.
type FixedRules struct{ set *observers.Set }

// Fixed gives rules that do not change.
func Fixed(set *observers.Set) FixedRules { return FixedRules{set} }

// Current gives the set.
func (f FixedRules) Current() *observers.Set { return f.set }

// At gives the set where it is that generation.
func (f FixedRules) At(generation string) (*observers.Set, bool) {
	return f.set, generation == f.set.Generation()
}

// judge finds out what is due because of an event.
func (w *Worker) judge(p *partition, e *entry) {
	if e.event == nil {
		return
	}
	id := e.address.EffectID(e.event)
	set := w.rulesFor(p, e)
	list, judgement := dueOf(set, e)
	w.traceJudgement(p, e, id, set, &judgement)
	for _, d := range list {
		e.add(p, events.EffectKey(id, d.observer, cmp.Or(d.action, noAction)), d)
	}
	e.settled = len(e.effects) == 0
}

// rulesFor gives the generation that judges an event: the one in force, but for events of which an earlier owner of the partition
// has claimed effects. An event that is half done must not be finished by other rules than it was begun by.
func (w *Worker) rulesFor(p *partition, e *entry) *observers.Set {
	current := w.rules.Current()
	p.mu.Lock()
	generation, begun := p.judged.Of(p.made, e.stream)
	p.mu.Unlock()
	if !begun || generation == current.Generation() {
		return current
	}
	set, known := w.rules.At(generation)
	if !known {
		w.log.Warn("event may have been begun by rules that are not known any more, and is judged by the present ones",
			"event", e.event.ID, "generation", generation, "present", current.Generation())
		return current
	}
	return set
}

// noAction stands for an action in the key of an effect that is due because a condition failed. No action has it.
const noAction = "_"

// dueOf judges an event by one generation.
func dueOf(set *observers.Set, e *entry) ([]*due, observers.Judgement) {
	view := observers.NewView(e.address, e.data, e.event)
	judgement := set.Judge(view)
	list := make([]*due, 0, len(judgement.Matches)) // more where observers have several actions
	for _, match := range judgement.Matches {
		o := match.Observer
		if match.Err != nil && !o.Paused {
			d := dueFor(set, o)
			d.reason, d.err = deadletter.Condition, match.Err
			list = append(list, d)
			continue
		}
		for _, action := range o.Actions {
			d := dueFor(set, o)
			list = append(list, d)
			d.action, d.async = action.Name, action.Async
			d.ordered = o.Order != observers.OrderNone && !action.Async
			if o.Paused {
				d.resting = true
				continue
			}
			d.lane = laneOf(o, action.Name, e)
			if d.request, d.err = action.Render(view); d.err != nil {
				d.reason = deadletter.Render
			}
			if d.request.Type == actions.Pending {
				d.pending = observers.Pending{Action: action, View: view}
			}
		}
	}
	return list, judgement
}

// dueFor gives what is the same for all that an observer wants.
func dueFor(set *observers.Set, o *observers.Observer) *due {
	return &due{
		observer: o.Name, generation: set.Generation(), policy: o.Retry, onFailure: jobs.OnFailure(o.OnFailure), dryRun: o.DryRun,
	}
}

// rejudge replaces what is due by what an older generation has for the same effect: whoever began it first may have
// sent that, and the same key must not come with other bytes. Its place in the lanes stays.
func (w *Worker) rejudge(x *effect, generation string) {
	set, ok := w.rules.At(generation)
	if ok {
		list, _ := dueOf(set, x.entry)
		for _, d := range list {
			if d.observer == x.due.observer && d.action == x.due.action {
				x.due = d
				return
			}
		}
	}
	w.log.Warn("effect was begun by rules that are not known any more, and goes on by the present ones",
		"effect", x.key, "generation", generation, "present", x.due.generation)
}
