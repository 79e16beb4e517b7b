package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/tributary-dev/tributary/internal/natsread"
	"github.com/tributary-dev/tributary/pkg/jobs"
)

type jobsCommand struct {
	List   jobsListCommand   `cmd:"" help:"List jobs; those whose record changed last come first."`
	Show   jobsShowCommand   `cmd:"" help:"Print one job: its attempts, its request, its event."`
	Cancel jobsCancelCommand `cmd:"" help:"See to it that no further attempt begins."`
	RunNow jobsRunNowCommand `cmd:"" name:"run-now" help:"Make a job that waits due at once."`
}

// jobView is a job as scripts read it.
type jobView struct {
	ID string `json:"id"` // the effect key
	*jobs.Record
	Short   string       `json:"short"` // names it in commands, too
	Request *requestView `json:"request"`
	Event   any          `json:"event,omitempty"`
	Behind  string       `json:"behind,omitempty"` // the id of the job that it waits for
}

func viewJob(r *jobs.Record, behind string) jobView {
	return jobView{ID: r.ID, Record: r, Short: short(r.ID), Request: viewRequest(&r.Request), Event: viewBytes(r.Event), Behind: behind}
}

// short is a name for an effect key that fits in a table.
func short(id string) string {
	const digits = 5
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:digits])
}

type jobsListCommand struct {
	State    []state `help:"scheduled, ready, running, done, dead, cancelled or parked; several with commas." placeholder:"STATE"`
	Observer string  `help:"Of this observer." placeholder:"NAME"`
	Action   string  `help:"Of this action." placeholder:"NAME"`
	Event    string  `help:"Of the event with this id." placeholder:"ID"`
	Limit    most    `default:"20" help:"At most so many; ${default} where it is not given." placeholder:"N"`
}

// Help is shown below the flags.
func (jobsListCommand) Help() string {
	return `A job is one effect that is tried again, that is asynchronous, or that waits its turn behind such
a one of the same key, where the observer's order is strict. JOB is a short name for its id, the effect
key; commands take either.

With -o json: a list of {id, short, state, round, executions, attempts[], due, created,
updated, effect{}, request{}, policy{}, event, lane{key, when_dead}, behind, …}.

Examples:
  tributary jobs list --state parked
  tributary jobs list --state scheduled,running
  tributary jobs list --observer order-shipped --limit 100 -o json`
}

// Run lists jobs.
func (c *jobsListCommand) Run(in *Invocation) error {
	filter := jobs.Filter{Observer: c.Observer, Action: c.Action, EventID: c.Event}
	for _, s := range c.State {
		filter.States = append(filter.States, jobs.State(s))
	}
	return in.look(func(ctx context.Context, d *deployment) error {
		list, err := d.Jobs.Newest(ctx, filter, int(c.Limit)+1)
		if err != nil {
			return err
		}
		list, more := cut(c.Limit, list)
		queues := &queues{jobs: d.Jobs}
		views := []jobView{}
		for _, r := range list {
			behind, err := queues.behind(ctx, r)
			if err != nil {
				return err
			}
			views = append(views, viewJob(r, behind))
		}
		if in.wantsJSON() {
			return in.json(views)
		}
		p := in.text()
		if len(list) == 0 {
			p.line("No job is of that kind.")
		}
		var rows [][]string
		for _, view := range views {
			r := view.Record
			rows = append(rows, []string{short(r.ID), stateName(r), fmt.Sprintf("%d/%d", r.Executions, r.Policy.MaxAttempts),
				stamp(r.Due), p.age(r.Due), r.Effect.Observer + "/" + r.Effect.Action, remark(r, view.Behind)})
		}
		p.table([]column{{title: "JOB"}, {title: "STATE"}, {title: "TRIES", right: true}, {title: "DUE"}, {title: "AGE", right: true},
			{title: "ACTION", cut: true}, {title: "LAST ERROR", cut: true, tail: true}}, rows)
		p.rest(more)
		return p.err
	})
}

// stateName is a job's state, or that it waits for a circuit.
func stateName(r *jobs.Record) string {
	if r.Deferred != "" {
		return "deferred"
	}
	return string(r.State)
}

func lastError(r *jobs.Record) string {
	if r.State == jobs.Done || len(r.Attempts) == 0 {
		return ""
	}
	return r.Attempts[len(r.Attempts)-1].Error
}

// findJob finds a job by its id or its short name.
func findJob(ctx context.Context, d *deployment, name string) (*jobs.Record, error) {
	if strings.Contains(name, "~") {
		return d.Jobs.Get(ctx, name)
	}
	var found *jobs.Record
	_, err := d.Jobs.Each(ctx, jobs.Filter{}, func(r *jobs.Record) error {
		if short(r.ID) != name {
			return nil
		}
		found = r
		return natsread.ErrStop
	})
	if err == nil && found == nil {
		err = fmt.Errorf("%w: %s: `tributary jobs list` has their names; the record of one that ended stays for jobs.keep", jobs.ErrNotFound, name)
	}
	return found, err
}

type jobsShowCommand struct {
	Job string `arg:"" help:"The job's short name, or its id: the effect key."`
}

// Help is shown below the flags.
func (jobsShowCommand) Help() string {
	return `With -o json: the object that jobs list has.

Examples:
  tributary jobs show 3f09c2a17b
  tributary jobs show shop-1-0000000016B37488-771-3~order-shipped~tell-carrier -o json`
}

// Run prints a job.
func (c *jobsShowCommand) Run(in *Invocation) error {
	return in.look(func(ctx context.Context, d *deployment) error {
		r, err := findJob(ctx, d, c.Job)
		if err != nil {
			return err
		}
		behind, err := (&queues{jobs: d.Jobs}).behind(ctx, r)
		if err != nil {
			return err
		}
		if in.wantsJSON() {
			return in.json(viewJob(r, behind))
		}
		p := in.text()
		p.field("Job", short(r.ID))
		p.field("Id", r.ID)
		p.field("Event", r.Effect.EventID)
		p.field("Action", r.Effect.Observer+"/"+r.Effect.Action+", generation "+r.Generation)
		p.field("State", jobText(p, r))
		if r.Lane != nil {
			p.field("Order", laneText(r, behind))
		}
		p.field("Policy", fmt.Sprintf("%d attempts, %s from %s to %s, then %s", r.Policy.MaxAttempts, r.Policy.Strategy, r.Policy.Initial,
			r.Policy.Max, r.OnFailure))
		p.field("Created", p.when(r.Created))
		p.field("Updated", p.when(r.Updated))
		printRequest(p, &r.Request)
		if len(r.Attempts) > 0 {
			p.line("")
			printAttempts(p, r.Attempts)
		}
		return p.err
	})
}

// jobText says how a job stands.
func jobText(p *printer, r *jobs.Record) string {
	text := string(r.State)
	if r.Round > 0 {
		text += fmt.Sprintf(", in retry %d of its dead letter", r.Round)
	}
	switch r.State {
	case jobs.Scheduled, jobs.Ready, jobs.Parked:
		text += fmt.Sprintf(", attempt %d of %d is %s", r.Executions+1, r.Policy.MaxAttempts, dueText(p, r.Due))
	case jobs.Running:
		text += fmt.Sprintf(", attempt %d of %d by %s since %s", r.Executions+1, r.Policy.MaxAttempts, r.Owner, p.when(r.Started))
		if r.Cancel {
			text += ", to be cancelled unless it succeeds"
		}
		if r.Verdict != nil {
			text += ", about to die"
		}
	case jobs.Dead:
		if r.Verdict != nil {
			text += fmt.Sprintf(", %s: %s", r.Verdict.Reason, r.Verdict.Error)
		}
	case jobs.Done, jobs.Cancelled:
		text += " since " + p.when(r.Updated)
	}
	return text
}

type jobsCancelCommand struct {
	Jobs []string `arg:"" name:"job" help:"Short names or ids."`
}

// Help is shown below the flags.
func (jobsCancelCommand) Help() string {
	return `An attempt that is under way can't be taken back: if it succeeds the job is done, otherwise it
is cancelled. A cancelled job leaves no dead letter, and one that it retried stays. Those that wait behind
it go on; so one can be cancelled that is dead and that others wait for.

With -o json: a list of {id, short, state, error}.

Examples:
  tributary jobs cancel 3f09c2a17b`
}

// Run cancels jobs.
func (c *jobsCancelCommand) Run(in *Invocation) error {
	return in.eachJob(c.Jobs, func(ctx context.Context, d *deployment, id string) (*jobs.Record, error) {
		keep := in.Config.Jobs.Keep
		if keep == 0 {
			keep = jobs.DefaultKeep
		}
		return d.Jobs.Cancel(ctx, id, keep)
	})
}

type jobsRunNowCommand struct {
	Jobs []string `arg:"" name:"job" help:"Short names or ids."`
}

// Help is shown below the flags.
func (jobsRunNowCommand) Help() string {
	return `The attempt counts as one of those that the policy allows. A job that is dead is tried again by
its dead letter: tributary dlq retry.

With -o json: a list of {id, short, state, error}.

Examples:
  tributary jobs run-now 3f09c2a17b`
}

// Run makes jobs due.
func (c *jobsRunNowCommand) Run(in *Invocation) error {
	return in.eachJob(c.Jobs, func(ctx context.Context, d *deployment, id string) (*jobs.Record, error) {
		return d.Jobs.RunNow(ctx, id)
	})
}

// changed is what became of one job.
type changed struct {
	ID    string     `json:"id"`
	Short string     `json:"short,omitempty"`
	State jobs.State `json:"state,omitempty"`
	Error string     `json:"error,omitempty"`
}

// eachJob changes jobs one by one. It errs where one was not changed.
func (in *Invocation) eachJob(names []string, change func(context.Context, *deployment, string) (*jobs.Record, error)) error {
	return in.look(func(ctx context.Context, d *deployment) error {
		results := []changed{}
		var errs []error
		for _, name := range names {
			r, err := findJob(ctx, d, name)
			if err == nil {
				r, err = change(ctx, d, r.ID)
			}
			if err != nil {
				errs = append(errs, err)
				results = append(results, changed{ID: name, Error: err.Error()})
				continue
			}
			results = append(results, changed{ID: r.ID, Short: short(r.ID), State: r.State})
			if !in.wantsJSON() {
				p := in.text()
				p.line("%s: %s", short(r.ID), jobText(p, r))
			}
		}
		if in.wantsJSON() {
			errs = append(errs, in.json(results))
		}
		return errors.Join(errs...)
	})
}
