package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/tributary-dev/tributary/internal/inspect"
	"github.com/tributary-dev/tributary/pkg/events"
)

type eventsCommand struct {
	List    eventsListCommand    `cmd:"" help:"List events, newest first."`
	Show    eventsShowCommand    `cmd:"" help:"Print one event."`
	Explain eventsExplainCommand `cmd:"" help:"Tell which observers match an event, why others do not, and what became of each action."`
}

type eventsListCommand struct {
	Source string    `help:"Of this source." placeholder:"NAME"`
	Entity string    `help:"Of this table, application's entity.type, or prefix of logical messages; * stands for a whole part." placeholder:"SCHEMA.TABLE"`
	Op     operation `help:"insert, update, delete, truncate, snapshot or message." placeholder:"OP"`
	Since  since     `help:"Stored since then: 15m, 36h, 7d, 2026-11-23." placeholder:"WHEN"`
	From   uint64    `help:"From this sequence of EVENTS on, oldest first." placeholder:"SEQUENCE"`
	Limit  most      `default:"20" help:"At most so many." placeholder:"N"`
}

// Help is shown below the flags.
func (eventsListCommand) Help() string {
	return `With -o json: a list of {sequence, stored, subject, source, entity, op, id, event}; event
is the whole envelope. A sequence names an event to show and explain as well as its id.

Examples:
  tributary events list --source shop --entity public.orders --since 15m
  tributary events list --from 1200 --limit 100 -o json`
}

// Run lists events.
func (c *eventsListCommand) Run(in *Invocation) error {
	return in.look(func(ctx context.Context, d *deployment) error {
		list, err := d.Events(ctx, inspect.EventQuery{
			Source: c.Source, Entity: c.Entity, Op: events.Op(c.Op), Since: c.Since.Time, From: c.From, Limit: int(c.Limit),
		})
		switch {
		case errors.Is(err, inspect.ErrQuery):
			return usage("%v", err)
		case err != nil:
			return err
		case in.wantsJSON():
			return in.json(list)
		}
		p := in.text()
		if len(list) == 0 {
			p.line("No event is of that kind.")
		}
		var rows [][]string
		for _, e := range list {
			rows = append(rows, []string{strconv.FormatUint(e.Sequence, 10), stamp(e.Stored), p.age(e.Stored), e.Source,
				e.Parsed.PartitionKey, string(e.Op)})
		}
		p.table([]column{{title: "SEQUENCE", right: true}, {title: "STORED"}, {title: "AGE", right: true}, {title: "SOURCE", cut: true},
			{title: "KEY", cut: true}, {title: "OP"}}, rows)
		return p.err
	})
}

type eventsShowCommand struct {
	Event string `arg:"" help:"The event's id, its sequence in EVENTS, or the key of one of its effects."`
}

// Help is shown below the flags.
func (eventsShowCommand) Help() string {
	return `With -o json: {sequence, stored, subject, source, entity, op, id, event}.

Examples:
  tributary events show 1234
  tributary events show shop-1-0000000016B37488-771-3
  tributary events show 1234 -o json | jq .event.data.after`
}

// Run prints an event.
func (c *eventsShowCommand) Run(in *Invocation) error {
	return in.look(func(ctx context.Context, d *deployment) error {
		e, err := d.Event(ctx, c.Event)
		if err != nil {
			return err
		}
		if in.wantsJSON() {
			return in.json(e)
		}
		p := in.text()
		printEvent(p, e)
		p.line("")
		p.raw(pretty(e.Event))
		return p.err
	})
}

func printEvent(p *printer, e *inspect.StoredEvent) {
	p.field("Event", e.ID)
	p.field("Sequence", fmt.Sprintf("%d of EVENTS, partition %d", e.Sequence, e.Address.Partition))
	p.field("Subject", e.Subject)
	p.field("Time", p.when(e.Parsed.Time))
	stored := stamp(e.Stored)
	if delay := e.Stored.Sub(e.Parsed.Time); !e.Parsed.Time.IsZero() && delay > 0 {
		stored += ", " + duration(delay) + " later"
	}
	p.field("Stored", stored)
	if id := e.EffectID(); id != e.ID {
		p.field("Effects of", id)
	}
}

// pretty indents JSON, and leaves what is none as it is.
func pretty(data []byte) string {
	var out bytes.Buffer
	if err := json.Indent(&out, data, "", "  "); err != nil {
		return string(data)
	}
	return out.String()
}

type eventsExplainCommand struct {
	Event string `arg:"" help:"The event's id, its sequence in EVENTS, or the key of one of its effects."`
	All   bool   `help:"Show the observers for other sources, entities and operations too."`
	rulesFlag
}

// Help is shown below the flags.
func (eventsExplainCommand) Help() string {
	return `The observers are those of the configuration, as they are now; what became of the
actions is read from the records that there are: the workers' (kept for dedup.window after
all before the event is settled), the jobs' (jobs.keep after their end) and DEADLETTERS.

With -o json: {event, generation, settled, observers[{observer, matches, failed, wants,
error, effects[{action, key, state, claim, job, dead_letters[]}]}]}; failed is source,
entity, op or condition; state is pending, under_way, done, job, dead, dropped or settled.

Examples:
  tributary events explain 1234 --config tributary.yaml
  tributary events explain shop-1-0000000016B37488-771-3 --observers observers.yaml`
}

// Run explains an event.
func (c *eventsExplainCommand) Run(in *Invocation) error {
	set, err := in.observers()
	if err != nil {
		return err
	}
	return in.look(func(ctx context.Context, d *deployment) error {
		e, err := d.Event(ctx, c.Event)
		if err != nil {
			return err
		}
		explanation, err := d.Explain(ctx, e, set)
		if err != nil {
			return err
		}
		if in.wantsJSON() {
			return in.json(explanation)
		}
		return c.print(in.text(), explanation)
	})
}

func (c *eventsExplainCommand) print(p *printer, x *inspect.Explanation) error {
	printEvent(p, &x.Event)
	p.field("Observers", fmt.Sprintf("%d, generation %s", len(x.Observers), x.Generation))
	others := 0
	for _, f := range x.Observers {
		if !f.Matches && f.Failed != "condition" && !c.All {
			others++
			continue
		}
		p.line("")
		printFinding(p, f)
	}
	if others > 0 {
		p.line("")
		p.line("%s for other events (--all shows why)", count(others, "observer is", "observers are"))
	}
	return p.err
}

func printFinding(p *printer, f inspect.ObserverFinding) {
	switch {
	case f.Matches:
		p.line("%s: matches", f.Observer)
	case f.Error != "":
		p.line("%s: its condition failed", f.Observer)
		p.paragraph("  ", f.Error)
	case f.Failed == "condition":
		p.line("%s: its condition is false", f.Observer)
		p.paragraph("  ", f.Wants)
	default:
		p.line("%s: does not match: %s is not %s", f.Observer, f.Failed, clean(f.Wants))
	}
	for _, effect := range f.Effects {
		name := effect.Action
		if name == "" {
			name = "(condition)"
		}
		p.paragraph("  ", name+": "+effectText(p, effect))
	}
}

func effectText(p *printer, e inspect.Effect) string {
	switch e.State {
	case inspect.EffectPending:
		return "pending: no worker has begun it"
	case inspect.EffectUnderWay:
		return fmt.Sprintf("under way: begun %s, last by %s", times(e.Claim.Begun), e.Claim.Worker)
	case inspect.EffectDone:
		if e.Job != nil {
			return fmt.Sprintf("done by its job, after %s: %s", count(len(e.Job.Attempts), "attempt", "attempts"), stamp(e.Job.Updated))
		}
		return "done" + by(e)
	case inspect.EffectJob:
		return "job " + short(e.Job.ID) + ": " + jobText(p, e.Job)
	case inspect.EffectDead:
		letter := e.DeadLetters[len(e.DeadLetters)-1]
		return fmt.Sprintf("dead letter %d, %s, of %s: %s", letter.Sequence, letter.Reason, p.when(letter.Stored), letter.Error)
	case inspect.EffectDropped:
		return "failed for good, and there is no dead letter any more: it was removed, or on_failure is log"
	case inspect.EffectUnknown:
		return "settled; how is not on record any more"
	case inspect.EffectNone:
		return "not on record"
	default:
		return string(e.State)
	}
}

func by(e inspect.Effect) string {
	if e.Claim == nil || e.Claim.Worker == "" {
		return ""
	}
	text := " by " + e.Claim.Worker
	if e.Claim.Begun > 1 {
		text += ", begun " + times(e.Claim.Begun)
	}
	return text
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// dueText tells when a job is due.
func dueText(p *printer, due time.Time) string {
	if due.Before(p.now) {
		return "due since " + p.when(due)
	}
	return "due " + p.when(due)
}
