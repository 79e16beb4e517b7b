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
	Limit  most      `default:"20" help:"At most so many; ${default} where it is not given." placeholder:"N"`
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
			Source: c.Source, Entity: c.Entity, Op: events.Op(c.Op), Since: c.Since.Time, From: c.From, Limit: int(c.Limit) + 1,
		})
		list, more := cut(c.Limit, list)
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
		p.rest(more)
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

// dueText tells when a job is due.
func dueText(p *printer, due time.Time) string {
	if due.Before(p.now) {
		return "due since " + p.when(due)
	}
	return "due " + p.when(due)
}
