package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/tributary-dev/tributary/internal/inspect"
	"github.com/tributary-dev/tributary/pkg/observers"
	"github.com/tributary-dev/tributary/pkg/trace"
)

type eventsExplainCommand struct {
	Event string `arg:"" help:"The event's id, its sequence in EVENTS, or the key of one of its effects."`
	All   bool   `help:"Show the observers for other sources, entities and operations too."`
	rulesFlag
}

// Help is shown below the flags.
func (eventsExplainCommand) Help() string {
	return `The observers are those of the configuration, as they are now. What they made of the event
when it was evaluated, and each attempt, is read from TRACES (kept for traces.max_age and
traces.max_bytes), and from the jobs (jobs.keep after their end) and DEADLETTERS.

With -o json: {event, generation, settled, evaluations[{at, by, generation, matched, false,
failed, more}], traced_since, observers[{observer, matches, failed, wants, error, judged,
effects[{action, key, state, claim, job, dead_letters[], steps[{at, by, outcome, reason,
attempt{round, number, started, ended, status, error}, next}]}]}]}; failed is source, entity,
op or condition; state is pending, under_way, done, job, dead, dropped or settled.

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
	printEvaluations(p, x)
	others := 0
	for _, f := range x.Observers {
		if !f.Matches && f.Failed != "condition" && f.Judged == "" && !f.Gone && !c.All {
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
	case f.Gone:
		p.line("%s: is not among the observers any more", f.Observer)
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
	if then := judgedText(f); then != "" {
		p.paragraph("  ", "when it was evaluated, "+then)
	}
	for _, effect := range f.Effects {
		name := effect.Action
		if name == "" {
			name = "(condition)"
		}
		p.paragraph("  ", name+": "+effectText(p, effect))
		for _, step := range effect.Steps {
			printStep(p, step)
		}
	}
}

// printEvaluations tells who evaluated the event and when, or that nothing of it is on record.
func printEvaluations(p *printer, x *inspect.Explanation) {
	for _, e := range x.Evaluations {
		p.field("Evaluated", fmt.Sprintf("%s by %s, generation %s", fine(e.At), e.By, e.Generation))
	}
	switch {
	case len(x.Evaluations) > 0:
	case x.Partial:
		p.field("Evaluated", "not found among the first traces since it was stored: there are too many")
	case time.Since(x.Event.Stored) < inspect.RecordedWithin && !x.Settled:
		p.field("Evaluated", "not on record yet: no worker has come to it, or its trace is on its way")
	case x.TracedSince.IsZero() || x.TracedSince.After(x.Event.Stored):
		p.field("Evaluated", "not on record: traces from then are not kept")
	default:
		p.field("Evaluated", "not on record (not yet, or left out by traces.sample)")
	}
}

// judgedText tells what an observer made of the event at its time, where that differs from what it would make of it now.
func judgedText(f inspect.ObserverFinding) string {
	now := ""
	switch {
	case f.Matches:
		now = inspect.JudgedMatches
	case f.Error != "":
		now = inspect.JudgedFailed
	case f.Failed == observers.StepCondition:
		now = inspect.JudgedFalse
	}
	if f.Judged == now {
		return ""
	}
	switch f.Judged {
	case inspect.JudgedMatches:
		return "it matched"
	case inspect.JudgedFalse:
		return "its condition was false"
	case inspect.JudgedFailed:
		return "its condition failed"
	default:
		return ""
	}
}

// fine is stamp to the millisecond.
func fine(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000Z") }

// printStep tells one thing that has become of an effect: when and by whom, what, and what was wrong.
func printStep(p *printer, s inspect.Step) {
	p.paragraph("    ", fine(s.At)+" "+s.By)
	var parts []string
	if s.Attempt != nil {
		parts = append(parts, attemptText(s.Attempt))
	}
	if text := outcomeText(s); text != "" {
		parts = append(parts, text)
	}
	if s.Begun > 1 {
		parts = append(parts, "begun "+times(s.Begun))
	}
	p.paragraph("      ", strings.Join(parts, ": "))
	if !s.Next.IsZero() {
		p.paragraph("      ", "again at "+fine(s.Next))
	}
	if s.Attempt != nil && s.Attempt.Error != "" {
		p.paragraph("      ", s.Attempt.Error)
	}
	if s.Error != "" {
		p.paragraph("      ", s.Error)
	}
}

func attemptText(a *inspect.Attempt) string {
	text := fmt.Sprintf("attempt %d", a.Number)
	if a.Round > 0 {
		text += fmt.Sprintf(" of round %d", a.Round)
	}
	if !a.Ended.IsZero() {
		text += ", " + a.Ended.Sub(a.Started).Round(100*time.Microsecond).String()
	}
	if a.Status != 0 {
		text += fmt.Sprintf(", status %d", a.Status)
	}
	return text
}

func outcomeText(s inspect.Step) string {
	switch s.Outcome {
	case trace.Handed:
		return "handed to the jobrunners"
	case trace.Again:
		return "failed"
	case trace.Dead:
		if s.Reason != "" {
			return "dead (" + s.Reason + ")"
		}
		return "dead"
	case trace.NotDue:
		return "nothing to do: its condition is false, with what was looked up"
	case trace.Parked:
		return "parked until its circuit closes"
	case trace.Skipped:
		return "skipped, it was settled before"
	case trace.DryRun:
		return "dry run, nothing was sent"
	default:
		return string(s.Outcome)
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
	case inspect.EffectDryRun:
		return "dry run: nothing was sent"
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
	if e.Claim != nil && e.Claim.Worker != "" {
		text := " by " + e.Claim.Worker
		if e.Claim.Begun > 1 {
			text += ", begun " + times(e.Claim.Begun)
		}
		return text
	}
	for _, s := range e.Steps {
		if s.Outcome == trace.Done && s.By != "" {
			return " by " + s.By
		}
	}
	return ""
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}
