package cli

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/tributary-dev/tributary/pkg/observers"
)

// errNotAsked is what lookups answer that are only shown.
var errNotAsked = errors.New("not asked")

// testedLookup is one question of an observer.
type testedLookup struct {
	Name   string          `json:"name"`
	Type   string          `json:"type"`
	URL    string          `json:"url"`
	Select string          `json:"select,omitempty"`
	Args   json.RawMessage `json:"args,omitempty"`
	Key    string          `json:"key"`
	Asked  bool            `json:"asked"`
	Answer json.RawMessage `json:"answer,omitempty"`
	Error  string          `json:"error,omitempty"`
}

// lookUp shows the lookups of an observer, asks them where fetch does, and gives what follows from the answers: the view with
// them, and whether the condition that waited for them holds. Where they are not asked the view is the one that was given.
func (o *testedObserver) lookUp(ctx context.Context, f observers.Finding, view *observers.View, fetch observers.Fetch) *observers.View {
	answered, answers, err := f.Observer.LookUp(ctx, view, fetch)
	for _, a := range answers {
		q := a.Question
		shown := testedLookup{Name: q.Name, Type: q.Type, URL: q.URL, Select: q.Select, Key: q.Key, Asked: !errors.Is(a.Err, errNotAsked), Answer: a.Answer}
		if len(q.Args) > 0 {
			args := make([]json.RawMessage, len(q.Args))
			for i, arg := range q.Args {
				args[i] = arg
			}
			shown.Args, _ = json.Marshal(args) // JSON always has JSON
		}
		if a.Err != nil && shown.Asked {
			shown.Error = a.Err.Error()
		}
		o.Lookups = append(o.Lookups, shown)
	}
	switch {
	case errors.Is(err, errNotAsked):
		o.Waits = f.Lookups
		return view
	case err != nil:
		o.Matches, o.Error = false, err.Error()
		return nil
	case !f.Lookups:
		return answered
	}
	holds, err := f.Observer.Holds(answered)
	if err != nil {
		o.Error = err.Error()
	}
	if !holds {
		o.Matches, o.Failed = false, observers.StepCondition
		return nil
	}
	return answered
}

func (l *testedLookup) show(p *printer) {
	p.line("  lookup %s", l.Name)
	p.paragraph("    ", l.Type+" "+l.URL)
	if l.Select != "" {
		p.paragraph("    ", l.Select)
	}
	if len(l.Args) > 0 {
		p.paragraph("    ", "args "+string(l.Args))
	}
	switch {
	case !l.Asked:
		p.line("    not asked: --lookups asks it, and those behind it")
	case l.Error != "":
		p.paragraph("    ", "error: "+l.Error)
	default:
		p.block(pretty(l.Answer))
	}
}
