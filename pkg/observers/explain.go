package observers

import (
	"fmt"
	"slices"

	"github.com/tributary-dev/tributary/pkg/events"
)

// Step is what an observer is asked about an event, in this order.
type Step string

// The steps.
const (
	StepSource    Step = "source"
	StepEntity    Step = "entity"
	StepOp        Step = "op"
	StepCondition Step = "condition"
)

// Finding is what one observer makes of one event.
type Finding struct {
	Observer *Observer
	Matches  bool
	Failed   Step  // where it does not match: at which step
	Err      error // where its condition failed rather than being false
	Lookups  bool  // its condition needs what lookups answer, and was not asked
}

// Explain asks every observer about an event, sorted by name. Match gives the same answer where it finds something, and
// asks fewer.
func (s *Set) Explain(v *View) []Finding {
	list := make([]Finding, 0, len(s.observers))
	for _, o := range s.observers {
		f := Finding{Observer: o}
		f.Failed = o.mismatch(v.address)
		f.Lookups = f.Failed == "" && o.later()
		if f.Failed == "" && o.when != nil && !f.Lookups {
			ok, err := o.when.Eval(v.input)
			if err != nil {
				err = fmt.Errorf("evaluate when of %s: %w", o.Name, err)
			}
			if f.Err = err; !ok || err != nil {
				f.Failed = StepCondition
			}
		}
		f.Matches = f.Failed == ""
		list = append(list, f)
	}
	return list
}

func (o *Observer) mismatch(a events.Address) Step {
	switch m := &o.match; {
	case !matches(m.source, a.Source):
		return StepSource
	case !matches(m.entity, a.Entity()):
		return StepEntity
	case len(m.ops) > 0 && !slices.Contains(m.ops, a.Op):
		return StepOp
	default:
		return ""
	}
}

// Match is which events an observer is for, by their address; what is empty matches everything.
func (o *Observer) Match() (source, entity string, ops []events.Op) {
	return o.match.source, o.match.entity, slices.Clone(o.match.ops)
}

// Concerns tells whether the observer is for events at an address, whatever its condition says of them.
func (o *Observer) Concerns(a events.Address) bool { return o.mismatch(a) == "" }

// When is the condition as it was written; empty where there is none.
func (o *Observer) When() string { return o.spec.When }

// asking is a compiled text or expression.
type asking interface{ AsksForChange() bool }

// AsksForChange tells whether the observer calls changed, changed_to or changed_from in its condition or in an action:
// updates of its tables have to come with their whole old row then.
func (o *Observer) AsksForChange() bool {
	if o.when != nil && o.when.AsksForChange() {
		return true
	}
	for _, step := range o.lookups {
		if slices.ContainsFunc(step.expressions(), asking.AsksForChange) {
			return true
		}
	}
	return slices.ContainsFunc(o.Actions, func(a *Action) bool {
		return a.cached != nil && a.cached.key != nil && a.cached.key.AsksForChange() || slices.ContainsFunc(a.template.expressions(), asking.AsksForChange)
	})
}

func (t *logTemplate) expressions() []asking { return []asking{t.message} }

func (t *webhookTemplate) expressions() []asking {
	list := []asking{t.url}
	for _, h := range t.headers {
		if h.text != nil {
			list = append(list, h.text)
		}
	}
	if t.body != nil {
		list = append(list, t.body)
	}
	return list
}
