package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tributary-dev/tributary/internal/terminal"
	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/deadletter"
)

type dlqCommand struct {
	List     dlqListCommand     `cmd:"" help:"List dead letters, newest first."`
	Show     dlqShowCommand     `cmd:"" help:"Print one dead letter: its attempts, its request, its event."`
	Retry    dlqRetryCommand    `cmd:"" help:"Try the action of dead letters again."`
	RetryAll dlqRetryAllCommand `cmd:"" name:"retry-all" help:"Try the actions of all dead letters of a kind again."`
	Remove   dlqRemoveCommand   `cmd:"" help:"Remove dead letters for good, undone."`
	Stats    dlqStatsCommand    `cmd:"" help:"Count dead letters by reason, observer and action."`
}

// letterFilter selects dead letters.
type letterFilter struct {
	Reason   reason `help:"permanent, exhausted, crashed, condition, render, oversize, undecodable, mapping or orphaned." placeholder:"REASON"`
	Observer string `help:"Of this observer." placeholder:"NAME"`
	Action   string `help:"Of this action." placeholder:"NAME"`
	Since    since  `help:"Given up since then: 15m, 36h, 7d, 2026-11-23." placeholder:"WHEN"`
}

func (f letterFilter) filter() deadletter.Filter {
	return deadletter.Filter{Reason: deadletter.Reason(f.Reason), Observer: f.Observer, Action: f.Action, Since: f.Since.Time}
}

func (f letterFilter) empty() bool { return f.filter() == deadletter.Filter{} }

// letterView is a dead letter in short.
type letterView struct {
	Sequence  uint64            `json:"sequence"` // in DEADLETTERS: names it in commands
	Stored    time.Time         `json:"stored"`
	Reason    deadletter.Reason `json:"reason"`
	EffectKey string            `json:"effect_key,omitempty"`
	EventID   string            `json:"event_id,omitempty"`
	Source    string            `json:"source,omitempty"`
	Observer  string            `json:"observer,omitempty"`
	Action    string            `json:"action,omitempty"`
	Subject   string            `json:"subject,omitempty"` // that the event, or the input, came under
	Attempts  int               `json:"attempts"`
	Retries   int               `json:"retries"` // how often it was tried again after it had died
	Error     string            `json:"error,omitempty"`
	Damaged   string            `json:"damaged,omitempty"` // why it can't be read
}

func viewLetter(e deadletter.Entry) letterView {
	r := &e.Record
	view := letterView{
		Sequence: e.Sequence, Stored: e.Stored.UTC(), Reason: r.Reason, EffectKey: r.EffectKey, EventID: r.EventID, Source: r.Source,
		Observer: r.Observer, Action: r.Action, Subject: r.Subject, Attempts: len(r.Attempts), Retries: r.Round, Error: r.Error,
	}
	if e.Err != nil {
		view.Damaged = e.Err.Error()
	}
	return view
}

type dlqListCommand struct {
	letterFilter
	Limit most `default:"20" help:"At most so many; ${default} where it is not given." placeholder:"N"`
}

// Help is shown below the flags.
func (dlqListCommand) Help() string {
	return `With -o json: a list of {sequence, stored, reason, effect_key, event_id, source, observer,
action, subject, attempts, retries, error}. The sequence names a dead letter.

Examples:
  tributary dlq list --reason exhausted --since 24h
  tributary dlq list --observer order-shipped -o json`
}

// Run lists dead letters.
func (c *dlqListCommand) Run(in *Invocation) error {
	return in.look(func(ctx context.Context, d *deployment) error {
		list, err := deadletter.Newest(ctx, d.JS, c.filter(), int(c.Limit)+1)
		if err != nil {
			return err
		}
		list, more := cut(c.Limit, list)
		if in.wantsJSON() {
			views := []letterView{}
			for _, e := range list {
				views = append(views, viewLetter(e))
			}
			return in.json(views)
		}
		p := in.text()
		if len(list) == 0 {
			p.line("There is no dead letter of that kind.")
		}
		var rows [][]string
		for _, e := range list {
			text := e.Record.Error
			if e.Err != nil {
				text = e.Err.Error()
			}
			rows = append(rows, []string{strconv.FormatUint(e.Sequence, 10), stamp(e.Stored), p.age(e.Stored), string(e.Record.Reason),
				actionName(&e.Record), text})
		}
		p.table([]column{{title: "LETTER", right: true}, {title: "STORED"}, {title: "AGE", right: true}, {title: "REASON"},
			{title: "ACTION", cut: true}, {title: "ERROR", cut: true, tail: true}}, rows)
		p.rest(more)
		return p.err
	})
}

func actionName(r *deadletter.Record) string {
	switch {
	case r.Observer == "":
		return "-"
	case r.Action == "":
		return r.Observer
	default:
		return r.Observer + "/" + r.Action
	}
}

// findLetter finds a dead letter by its sequence, or the newest one of an effect key.
func findLetter(ctx context.Context, d *deployment, name string) (deadletter.Entry, error) {
	if sequence, err := strconv.ParseUint(name, 10, 64); err == nil {
		return deadletter.Get(ctx, d.JS, sequence)
	}
	var found *deadletter.Entry
	filter := deadletter.Filter{}
	if parts := strings.Split(name, "~"); len(parts) > 2 {
		filter.Observer = parts[len(parts)-2]
	}
	err := deadletter.Each(ctx, d.JS, filter, func(e deadletter.Entry) error {
		if e.Record.EffectKey == name || e.Record.ID == name {
			found = &e
		}
		return nil
	})
	if err == nil && found == nil {
		err = fmt.Errorf("%w: %s", deadletter.ErrNotFound, name)
	}
	if err != nil {
		return deadletter.Entry{}, err
	}
	return *found, nil
}

type dlqShowCommand struct {
	Letter string `arg:"" help:"The dead letter's sequence, or its effect key."`
}

// Help is shown below the flags.
func (dlqShowCommand) Help() string {
	return `With -o json: what dlq list has, and {effect{}, request{}, attempts_made[], event, raw, generation,
policy{}, lost{partition, from, to, effects, since}}; raw is an input that was no event, in base64;
lost is instead of an effect where EVENTS has dropped what waited: sequences, and at most so many
effects.

Examples:
  tributary dlq show 12
  tributary dlq show 12 -o json | jq .request.body`
}

// wholeLetter is all of a dead letter.
type wholeLetter struct {
	letterView
	Generation string               `json:"generation,omitempty"`
	Effect     *actions.Effect      `json:"effect,omitempty"`
	Request    *requestView         `json:"request,omitempty"`
	Made       []deadletter.Attempt `json:"attempts_made"`
	Policy     any                  `json:"policy,omitempty"`
	Event      any                  `json:"event,omitempty"`
	Raw        []byte               `json:"raw,omitempty"`
	Header     map[string][]string  `json:"header,omitempty"`
	Lost       *deadletter.Lost     `json:"lost,omitempty"`
}

// Run prints a dead letter.
func (c *dlqShowCommand) Run(in *Invocation) error {
	return in.look(func(ctx context.Context, d *deployment) error {
		e, err := findLetter(ctx, d, c.Letter)
		if err != nil {
			return err
		}
		r := &e.Record
		if in.wantsJSON() {
			whole := wholeLetter{
				letterView: viewLetter(e), Generation: r.Generation, Effect: r.Effect, Request: viewRequest(r.Request), Made: r.Attempts,
				Event: viewBytes(r.Event), Raw: r.Raw, Header: r.Header, Lost: r.Lost,
			}
			if r.Policy != nil {
				whole.Policy = r.Policy
			}
			return in.json(whole)
		}
		p := in.text()
		if e.Err != nil {
			p.line("Dead letter %d can't be read: %s", e.Sequence, clean(e.Err.Error()))
			return p.err
		}
		p.field("Dead letter", fmt.Sprintf("%d, %s", e.Sequence, r.Reason))
		p.field("Stored", p.when(e.Stored))
		p.field("Effect", r.EffectKey)
		p.field("Event", r.EventID)
		p.field("Subject", r.Subject)
		p.field("Action", strings.TrimPrefix(actionName(r), "-"))
		if r.Round > 0 {
			p.field("Retried", times(r.Round))
		}
		p.field("Error", r.Error)
		if r.Effect != nil {
			printRequest(p, r.Request)
		}
		if len(r.Attempts) > 0 {
			p.line("")
			printAttempts(p, r.Attempts)
		}
		if len(r.Raw) > 0 {
			p.line("")
			p.line("What came:")
			printBytes(p, r.Raw)
		} else if len(r.Event) > 0 && (r.Request == nil || string(r.Request.Body) != string(r.Event)) {
			p.line("")
			p.line("The event:")
			printBytes(p, r.Event)
		}
		return p.err
	})
}

type dlqRemoveCommand struct {
	Letters []string `arg:"" name:"letter" optional:"" help:"Sequences, or effect keys."`
	letterFilter
	All    bool `help:"All there are."`
	DryRun bool `help:"Change nothing, only tell what would be removed."`
	Yes    bool `help:"Do not ask."`
}

// Help is shown below the flags.
func (dlqRemoveCommand) Help() string {
	return `What is removed is gone, and its action will never be done. An action that is being tried again
goes on, and leaves a dead letter again if it fails. Where the observer's order is strict, the jobs that wait for
it go on. Before many are removed that are not named, somebody at a terminal is asked.

With -o json: {dry_run, removed, letters[{sequence, …}]}.

Examples:
  tributary dlq remove 12 13
  tributary dlq remove --reason undecodable --dry-run`
}

// Run removes dead letters.
func (c *dlqRemoveCommand) Run(in *Invocation) error {
	if err := checkSelection(c.Letters, c.letterFilter, c.All); err != nil {
		return err
	}
	return in.work(func(d *deployment) error {
		if err := c.confirm(in, d); err != nil {
			return err
		}
		removed := []letterView{}
		err := in.eachLetter(d, c.Letters, c.filter(), func(ctx context.Context, e deadletter.Entry) error {
			if !c.DryRun {
				if err := d.Jobs.Remove(ctx, e); err != nil {
					return err
				}
			}
			removed = append(removed, viewLetter(e))
			return nil
		})
		if in.wantsJSON() {
			return errors.Join(err, in.json(map[string]any{"dry_run": c.DryRun, "removed": len(removed), "letters": removed}))
		}
		p := in.text()
		p.line("%s %s", count(len(removed), "dead letter", "dead letters"), done(c.DryRun, "removed"))
		return errors.Join(err, p.err)
	})
}

// confirm asks before letters go that were selected and not named, where somebody can be asked: scripts have said so.
func (c *dlqRemoveCommand) confirm(in *Invocation, d *deployment) error {
	if len(c.Letters) > 0 || c.DryRun || c.Yes || !terminal.Is(in.Stdin) {
		return nil
	}
	n := 0
	err := deadletter.Each(in.Ctx, d.JS, c.filter(), func(deadletter.Entry) error { n++; return nil })
	if err != nil || n == 0 {
		return err
	}
	return in.confirmed(false, count(n, "dead letter goes for good, undone.", "dead letters go for good, undone."))
}

func done(dryRun bool, what string) string {
	if dryRun {
		return "would be " + what
	}
	return what
}

func checkSelection(names []string, f letterFilter, all bool) error {
	switch {
	case len(names) == 0 && f.empty() && !all:
		return usage("name dead letters, or select them by --reason, --observer, --action, --since or --all")
	case len(names) > 0 && (!f.empty() || all):
		return usage("name dead letters or select them, not both")
	default:
		return nil
	}
}

// letterWithin bounds what is done to one dead letter.
const letterWithin = 15 * time.Second

// eachLetter calls do with the named dead letters, or those that a filter selects, and goes on behind errors: one that
// can't be done keeps none of the others back.
func (in *Invocation) eachLetter(d *deployment, names []string, f deadletter.Filter, do func(context.Context, deadletter.Entry) error) error {
	const (
		mostErrors = 20 // that are told; the rest would say no more
		mostLate   = 3  // NATS does not do its work: the rest would take as long
	)
	var errs []error
	untold, late := 0, 0
	try := func(e deadletter.Entry) {
		ctx, cancel := context.WithTimeout(in.Ctx, letterWithin)
		defer cancel()
		err := do(ctx, e)
		switch {
		case err == nil:
		case len(errs) < mostErrors || len(names) > 0:
			errs = append(errs, fmt.Errorf("dead letter %d: %w", e.Sequence, err))
		default:
			untold++
		}
		if err != nil && ctx.Err() != nil {
			late++
		}
	}
	for _, name := range names {
		ctx, cancel := context.WithTimeout(in.Ctx, letterWithin)
		e, err := findLetter(ctx, d, name)
		cancel()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		try(e)
	}
	if len(names) == 0 {
		err := deadletter.Each(in.Ctx, d.JS, f, func(e deadletter.Entry) error {
			try(e)
			if in.Ctx.Err() != nil {
				return context.Cause(in.Ctx)
			}
			if late >= mostLate {
				return errors.New("too many dead letters took too long")
			}
			return nil
		})
		if untold > 0 {
			errs = append(errs, fmt.Errorf("and %d more", untold))
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

type dlqStatsCommand struct{ letterFilter }

// Help is shown below the flags.
func (dlqStatsCommand) Help() string {
	return `With -o json: a list of {reason, observer, action, count, oldest, newest}, most first.

Examples:
  tributary dlq stats --since 24h`
}

// Run counts dead letters.
func (c *dlqStatsCommand) Run(in *Invocation) error {
	return in.look(func(ctx context.Context, d *deployment) error {
		groups, err := deadletter.Stats(ctx, d.JS, c.filter())
		if err != nil {
			return err
		}
		if in.wantsJSON() {
			return in.json(groups)
		}
		p := in.text()
		total := 0
		var rows [][]string
		for _, g := range groups {
			total += g.Count
			name := actionName(&deadletter.Record{Observer: g.Observer, Action: g.Action})
			rows = append(rows, []string{strconv.Itoa(g.Count), string(g.Reason), name, stamp(g.Oldest), p.age(g.Oldest), p.age(g.Newest)})
		}
		p.table([]column{{title: "COUNT", right: true}, {title: "REASON"}, {title: "ACTION", cut: true}, {title: "OLDEST"}, {title: "AGE", right: true},
			{title: "NEWEST", right: true}}, rows)
		p.line("%s in all", count(total, "dead letter", "dead letters"))
		return p.err
	})
}
