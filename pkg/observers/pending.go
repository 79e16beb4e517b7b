package observers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/retry"
)

// An observer with lookups is resolved where its effects run, not where its events are judged: a question may take its time.
// Until then its actions' requests are of type actions.Pending, and hold the observer itself, so that whoever resolves one,
// now or as a job, does so by the generation that judged the event. A condition that reads no lookup is judged before.

// ErrNoAnswer is the error of a Fetch that was told that there is nothing.
var ErrNoAnswer = errors.New("there is no answer")

// Fetch asks a question and gives the answer, JSON. It errs with ErrNoAnswer where there is none; an error marked
// retry.Permanent is final, every other may pass.
type Fetch func(ctx context.Context, q Lookup) ([]byte, error)

// pendingBody is the body of a pending request.
type pendingBody struct {
	Observer json.RawMessage `json:"observer"` // its canonical form
	Action   string          `json:"action"`
}

// LooksUp tells whether the observer has lookups, so that its actions render pending requests.
func (o *Observer) LooksUp() bool { return len(o.lookups) > 0 }

// later tells whether the condition can be judged only with what lookups answer.
func (o *Observer) later() bool { return o.when != nil && o.when.ReadsLookups() }

// setPending makes the bodies of the actions' pending requests, of what was read.
func (o *Observer) setPending() error {
	if !o.LooksUp() {
		return nil
	}
	spec, err := marshal(o.spec)
	if err != nil {
		return fmt.Errorf("write observer %s: %w", o.Name, err)
	}
	for _, a := range o.Actions {
		a.observer = o
		if a.pending, err = marshal(pendingBody{spec, a.Name}); err != nil {
			return fmt.Errorf("write action %s/%s: %w", o.Name, a.Name, err)
		}
	}
	return nil
}

// pendingRequest is what stands for a request until its lookups are answered.
func (a *Action) pendingRequest() actions.Request {
	return actions.Request{
		Type: actions.Pending, Endpoint: pendingEndpoint(a.observer.lookups), Body: a.pending,
		Timeout: lookupTime(a.observer.lookups) + a.Timeout,
	}
}

// Pending is an action whose request is pending, and the event that it is for.
type Pending struct {
	Action *Action
	View   *View
}

// Known finds what the body of a pending request was parsed to before, or parses it; it may remember nothing.
type Known func(body []byte, parse func() (*Action, error)) (*Action, error)

// ParsePending reads a pending request, and the event of which it was made.
func ParsePending(request actions.Request, subject string, event []byte, known Known) (Pending, error) {
	fail := func(err error) (Pending, error) { return Pending{}, fmt.Errorf("read pending request: %w", err) }
	action, err := known(request.Body, func() (*Action, error) { return parsePending(request.Body) })
	if err != nil {
		return fail(err)
	}
	address, err := events.ParseAddress(subject)
	if err != nil {
		return fail(err)
	}
	parsed, err := events.Parse(event)
	if err != nil {
		return fail(err)
	}
	return Pending{action, NewView(address, event, parsed)}, nil
}

func parsePending(text []byte) (*Action, error) {
	var body pendingBody
	if err := json.Unmarshal(text, &body); err != nil {
		return nil, err
	}
	set, err := Parse("pending", fmt.Appendf(nil, `{"observers":[%s]}`, body.Observer))
	if err != nil {
		return nil, err
	}
	for _, o := range set.Observers() {
		for _, a := range o.Actions {
			if a.Name == body.Action && o.LooksUp() {
				return a, nil
			}
		}
	}
	return nil, fmt.Errorf("it holds no action %q with lookups", body.Action)
}

// Resolve asks the lookups, judges the condition where that waits for them, and renders the request. It errs with
// actions.ErrNotDue, with *actions.RenderError, or as fetch did.
func (p Pending) Resolve(ctx context.Context, fetch Fetch) (actions.Request, error) {
	o := p.Action.observer
	view, err := o.lookUp(ctx, p.View, fetch)
	if err != nil {
		return actions.Request{}, err
	}
	if o.later() {
		ok, err := o.Holds(view)
		if err != nil {
			return actions.Request{}, &actions.RenderError{Condition: true, Err: err}
		}
		if !ok {
			return actions.Request{}, actions.ErrNotDue
		}
	}
	request, err := p.Action.Render(view)
	if err != nil {
		return actions.Request{}, &actions.RenderError{Err: err}
	}
	return request, nil
}

// Holds tells whether the condition holds for a view with the answers of the observer's lookups; it does where there is none.
func (o *Observer) Holds(v *View) (bool, error) {
	if o.when == nil {
		return true, nil
	}
	ok, err := o.when.Eval(v.input)
	if err != nil {
		return false, fmt.Errorf("evaluate when of %s: %w", o.Name, err)
	}
	return ok, nil
}

// Answer is what one lookup of an event came to.
type Answer struct {
	Question Lookup
	Answer   []byte // JSON; null where there is none
	Err      error
}

// LookUp gives the view of an event with the answers of the observer's lookups, and each of them, the one that failed last.
func (o *Observer) LookUp(ctx context.Context, v *View, fetch Fetch) (*View, []Answer, error) {
	var answers []Answer
	view, err := o.lookUp(ctx, v, func(ctx context.Context, q Lookup) ([]byte, error) {
		answer, err := fetch(ctx, q)
		answers = append(answers, Answer{q, answer, err})
		return answer, err
	})
	return view, answers, err
}

func (o *Observer) lookUp(ctx context.Context, v *View, fetch Fetch) (*View, error) {
	answered := &View{address: v.address, raw: v.raw, input: v.input, sequence: v.sequence, answered: true}
	// What fails here fails before the condition, if that waits for it.
	unrendered := func(s *lookup, err error) error {
		return &actions.RenderError{Condition: o.later(), Err: fmt.Errorf("lookup %s: %w", s.plain.Name, err)}
	}
	for _, step := range o.lookups {
		question, err := step.render(answered.input)
		if err != nil {
			return nil, unrendered(step, err)
		}
		answer, err := step.ask(ctx, question, fetch)
		switch {
		case err == nil:
		case errors.Is(err, ErrNoAnswer), retry.IsPermanent(err):
			return nil, unrendered(step, err)
		default:
			return nil, fmt.Errorf("lookup %s: %w", step.plain.Name, err)
		}
		if answered.input, err = answered.input.WithLookup(step.plain.Name, answer); err != nil {
			return nil, unrendered(step, err)
		}
	}
	return answered, nil
}

// ask asks, and says what becomes of no answer, and of an error.
func (s *lookup) ask(ctx context.Context, q Lookup, fetch Fetch) ([]byte, error) {
	answer, err := fetch(ctx, q)
	switch {
	case err == nil:
		return answer, nil
	case errors.Is(err, ErrNoAnswer) && s.required, ctx.Err() != nil:
		return nil, err
	case errors.Is(err, ErrNoAnswer), s.forgiving:
		return nullAnswer, nil
	default:
		return nil, err
	}
}
