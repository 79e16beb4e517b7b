package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/tributary-dev/tributary/internal/generations"
	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/observers"
)

type observersCommand struct {
	Validate observersValidateCommand `cmd:"" help:"Check files of observers."`
	List     observersListCommand     `cmd:"" help:"List observers."`
	Test     observersTestCommand     `cmd:"" help:"Show what observers would do for an event, and do nothing."`
	Diff     observersDiffCommand     `cmd:"" help:"Show what a file would change of the observers in force."`
	Apply    observersApplyCommand    `cmd:"" help:"Put observers in force, for workers that have no file of their own."`
	Pause    observersPauseCommand    `cmd:"" help:"Let what an observer is to do wait."`
	Resume   observersResumeCommand   `cmd:"" help:"Let a paused observer go on."`
	Schema   observersSchemaCommand   `cmd:"" help:"Print the JSON Schema of files of observers."`
}

// rulesFlag is a key of the configuration, as in Globals.
type rulesFlag struct {
	Observers string `help:"The file or folder of observers, where it is not the configured one." placeholder:"PATH"`
}

// observers loads the observers of the configuration, or those that were applied where it names none.
func (in *Invocation) observers() (set *observers.Set, err error) {
	if in.Config.Observers != "" {
		return observers.Load(in.Config.Observers)
	}
	err = in.look(func(ctx context.Context, d *deployment) error {
		set, _, err = generations.Open(d.JS).Load(ctx)
		if errors.Is(err, generations.ErrNone) {
			err = errors.New("no observers are configured, and none have been applied: name a file in the key observers, as in --observers FILE")
		}
		return err
	})
	return set, err
}

type observersValidateCommand struct {
	Paths []string `arg:"" name:"path" optional:"" help:"Files or folders; the configured one if none is given."`
}

// Help is shown below the flags.
func (observersValidateCommand) Help() string {
	return `What is wrong is shown with its line and column; exit status 1. With -o json: a list of {path, observers,
generation, error}.

Examples:
  tributary observers validate observers.yaml
  tributary observers validate --config tributary.yaml`
}

// validated is what was found in one file or folder.
type validated struct {
	Path       string `json:"path"`
	Observers  int    `json:"observers"`
	Generation string `json:"generation,omitempty"`
	Error      string `json:"error,omitempty"`
}

// Run validates observers.
func (c *observersValidateCommand) Run(in *Invocation) error {
	paths := c.Paths
	if len(paths) == 0 {
		if in.Config.Observers == "" {
			return usage("name a file or folder of observers, or configure the key observers")
		}
		paths = []string{in.Config.Observers}
	}
	results := []validated{}
	var errs []error
	for _, path := range paths {
		set, err := observers.Load(path)
		if err != nil {
			errs = append(errs, err)
			results = append(results, validated{Path: path, Error: err.Error()})
			continue
		}
		results = append(results, validated{Path: path, Observers: len(set.Observers()), Generation: set.Generation()})
	}
	if in.wantsJSON() {
		return errors.Join(append(errs, in.json(results))...)
	}
	p := in.text()
	for _, r := range results {
		if r.Error == "" {
			p.line("%s: %s, generation %s", r.Path, count(r.Observers, "observer", "observers"), r.Generation)
		}
	}
	return errors.Join(append(errs, p.err)...)
}

type observersListCommand struct {
	Path string `arg:"" optional:"" help:"A file or folder; if none is given, the configured one, else what was applied."`
}

// Help is shown below the flags.
func (observersListCommand) Help() string {
	return `With -o json: {generation, observers[]}, each with every key of the file and its defaults.

Examples:
  tributary observers list --config tributary.yaml
  tributary observers list observers.yaml -o json | jq '.observers[].name'`
}

// Run lists observers.
func (c *observersListCommand) Run(in *Invocation) error {
	if c.Path != "" {
		in.Config.Observers = c.Path
	}
	set, err := in.observers()
	if err != nil {
		return err
	}
	if in.wantsJSON() {
		var source struct {
			Generation string            `json:"generation"`
			Observers  []json.RawMessage `json:"observers"`
		}
		if err := json.Unmarshal(set.Source(), &source); err != nil {
			return fmt.Errorf("read the observers' canonical form: %w", err)
		}
		source.Generation = set.Generation()
		return in.json(source)
	}
	p := in.text()
	var rows [][]string
	for _, o := range set.Observers() {
		var names []string
		for _, a := range o.Actions {
			names = append(names, a.Name+" ("+a.Type+")")
		}
		rows = append(rows, []string{o.Name + modeText(o), matchText(o), o.When(), strings.Join(names, ", ")})
	}
	p.table([]column{{title: "OBSERVER", cut: true}, {title: "FOR"}, {title: "WHEN", cut: true}, {title: "ACTIONS", cut: true}}, rows)
	p.line("%s, generation %s", count(len(rows), "observer", "observers"), set.Generation())
	return p.err
}

// modeText says where an observer is not live.
func modeText(o *observers.Observer) string {
	switch {
	case o.Paused:
		return " (paused)"
	case o.DryRun:
		return " (dry run)"
	default:
		return ""
	}
}

func matchText(o *observers.Observer) string {
	source, entity, ops := o.Match()
	parts := []string{}
	if source != "" {
		parts = append(parts, source)
	}
	if entity != "" {
		parts = append(parts, entity)
	}
	if len(ops) > 0 {
		parts = append(parts, strings.ReplaceAll(list(ops), ", ", ","))
	}
	if len(parts) == 0 {
		return "everything"
	}
	return strings.Join(parts, " ")
}

type observersTestCommand struct {
	Event   string `arg:"" help:"A file with an event's envelope, or with what events show -o json prints; - for standard input; or an event's id, or its sequence in EVENTS."`
	Subject string `help:"The subject that the event of a file came under, where that can't be told from it." placeholder:"SUBJECT"`
	Lookups bool   `help:"Ask the observers' lookups, which is all that is asked of anybody; else they are only shown."`
	rulesFlag
}

// Help is shown below the flags.
func (observersTestCommand) Help() string {
	return `Nothing is sent, stored or changed. With -o json: {generation, subject, id, observers[{observer, matches,
paused, dry_run, failed, wants, error, requests[{action, async, request{}, error}]}]}.

Examples:
  tributary observers test event.json --observers observers.yaml
  tributary events show 1234 -o json | tributary observers test - --observers observers.yaml
  tributary observers test 1234 --config tributary.yaml`
}

// tested is what a set of observers makes of an event.
type tested struct {
	Generation string           `json:"generation"`
	Subject    string           `json:"subject"`
	ID         string           `json:"id"`
	Observers  []testedObserver `json:"observers"`
}

type testedObserver struct {
	Observer string          `json:"observer"`
	Matches  bool            `json:"matches"`
	Paused   bool            `json:"paused,omitempty"`
	DryRun   bool            `json:"dry_run,omitempty"`
	Lookups  []testedLookup  `json:"lookups,omitempty"`
	Waits    bool            `json:"waits,omitempty"` // its condition needs lookups that were not asked
	Failed   observers.Step  `json:"failed,omitempty"`
	Wants    string          `json:"wants,omitempty"` // the condition, where it failed or is false
	Error    string          `json:"error,omitempty"`
	Requests []testedRequest `json:"requests,omitempty"`
}

type testedRequest struct {
	Action  string       `json:"action"`
	Async   bool         `json:"async,omitempty"`
	Request *requestView `json:"request,omitempty"`
	Error   string       `json:"error,omitempty"`
	print   func(p *printer)
}

// Run tests observers.
func (c *observersTestCommand) Run(in *Invocation) error {
	set, err := in.observers()
	if err != nil {
		return err
	}
	address, raw, event, err := c.event(in)
	if err != nil {
		return err
	}
	fetch := observers.Fetch(func(context.Context, observers.Lookup) ([]byte, error) { return nil, errNotAsked })
	if c.Lookups {
		ask, end, err := in.Lookups(in.Config)
		if err != nil {
			return err
		}
		defer end()
		fetch = ask
	}
	result := test(in.Ctx, set, address, raw, event, fetch)
	if in.wantsJSON() {
		return in.json(result)
	}
	return result.show(in.text())
}

func test(ctx context.Context, set *observers.Set, address events.Address, raw []byte, event *events.Event, fetch observers.Fetch) *tested {
	result := &tested{Generation: set.Generation(), Subject: address.Subject(), ID: event.ID, Observers: []testedObserver{}}
	view := observers.NewView(address, raw, event)
	for _, f := range set.Explain(view) {
		o := testedObserver{Observer: f.Observer.Name, Matches: f.Matches, Failed: f.Failed, Paused: f.Observer.Paused, DryRun: f.Observer.DryRun}
		if f.Err != nil {
			o.Error = f.Err.Error()
		}
		if f.Failed == observers.StepCondition || f.Matches {
			o.Wants = f.Observer.When()
		}
		seen := view
		if f.Matches && f.Observer.LooksUp() {
			seen = o.lookUp(ctx, f, view, fetch)
		}
		if f.Matches && seen != nil {
			for _, action := range f.Observer.Actions {
				o.Requests = append(o.Requests, render(action, seen))
			}
		}
		result.Observers = append(result.Observers, o)
	}
	return result
}

func render(action *observers.Action, view *observers.View) testedRequest {
	request, err := action.Render(view)
	r := testedRequest{Action: action.Name, Async: action.Async}
	if err != nil {
		r.Error = err.Error()
		r.print = func(p *printer) { p.paragraph("  ", "can't be rendered: "+err.Error()) }
		return r
	}
	if request.Type == actions.Pending {
		r.print = func(p *printer) { p.line("  rendered when its lookups are answered") }
		return r
	}
	r.Request = viewRequest(&request)
	r.print = func(p *printer) { printRequest(p, &request) }
	return r
}

// event reads the event from where the argument says.
func (c *observersTestCommand) event(in *Invocation) (events.Address, []byte, *events.Event, error) {
	fail := func(err error) (events.Address, []byte, *events.Event, error) {
		return events.Address{}, nil, nil, err
	}
	var text []byte
	var err error
	if c.Event == "-" {
		text, err = io.ReadAll(in.Stdin)
	} else {
		text, err = os.ReadFile(c.Event)
	}
	if errors.Is(err, fs.ErrNotExist) && !strings.ContainsAny(c.Event, "/.\\") {
		var address events.Address
		var raw []byte
		var event *events.Event
		err := in.look(func(ctx context.Context, d *deployment) error {
			e, err := d.Event(ctx, c.Event)
			if err == nil {
				address, raw, event = e.Address, e.Event, e.Parsed
			}
			return err
		})
		return address, raw, event, err
	}
	if err != nil {
		return fail(fmt.Errorf("read the event: %w", err))
	}
	subject := c.Subject
	var stored struct {
		Subject string          `json:"subject"`
		Event   json.RawMessage `json:"event"`
	}
	if err := json.Unmarshal(text, &stored); err == nil && len(stored.Event) > 0 {
		text = stored.Event
		if subject == "" {
			subject = stored.Subject
		}
	}
	event, err := events.Parse(text)
	if err != nil {
		return fail(fmt.Errorf("read the event of %s: %w", c.Event, err))
	}
	address, err := addressOf(subject, event)
	if err != nil {
		return fail(fmt.Errorf("%s: %w", c.Event, err))
	}
	return address, text, event, nil
}

// addressOf tells where an event came from: by its subject, or by what Tributary itself wrote into it.
func addressOf(subject string, e *events.Event) (events.Address, error) {
	if subject != "" {
		return events.ParseAddress(subject)
	}
	source, ours := strings.CutPrefix(e.Source, events.SourcePrefix)
	row, err := e.Row()
	if ours && err == nil {
		return events.Address{Source: source, Schema: row.Schema, Table: row.Table + row.Prefix, Op: row.Op}, nil
	}
	if entity, kind, ok := strings.Cut(e.Type, "."); ours && ok {
		return events.Address{Source: source, Schema: entity, Table: kind, Op: events.OpMessage}, nil
	}
	return events.Address{}, errors.New("where it came from can't be told from the event: " +
		"say it with --subject events.000.<source>.<entity>.<type>.message")
}
