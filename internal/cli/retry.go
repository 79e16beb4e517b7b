package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/deadletter"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/jobs"
	"github.com/tributary-dev/tributary/pkg/observers"
)

// retryFlags are those of both ways to retry.
type retryFlags struct {
	DryRun   bool `help:"Change nothing, only tell what would become of it."`
	Rerender bool `help:"Send what the configured observers make of the event now, not what was kept."`
	rulesFlag
}

const retryHelp = `Only the action that failed is tried again, as a job with a new count of attempts, and once, however
many ask for it; a jobrunner has to run. When it succeeds the dead letter goes, when it dies again a new one
takes its place. What no request was ever rendered of (reasons condition, render) needs --rerender. A document
that the index refused (reason mapping) is offered to it once more, at once; an indexer has to run.

With -o json: {dry_run, results{queued, indexed, under_way, succeeded, superseded, gone, failed},
letters[{sequence, effect_key, result, error}]}. Exit status 1 if one failed to be queued.
`

type dlqRetryCommand struct {
	Letters []string `arg:"" name:"letter" help:"Sequences, or effect keys."`
	retryFlags
}

// Help is shown below the flags.
func (dlqRetryCommand) Help() string {
	return retryHelp + `
Examples:
  tributary dlq retry 12 13
  tributary dlq retry 12 --rerender --dry-run --config tributary.yaml`
}

// Run retries dead letters.
func (c *dlqRetryCommand) Run(in *Invocation) error {
	return c.retry(in, c.Letters, deadletter.Filter{})
}

type dlqRetryAllCommand struct {
	letterFilter
	retryFlags
}

// Help is shown below the flags.
func (dlqRetryAllCommand) Help() string {
	return retryHelp + `
Examples:
  tributary dlq retry-all --observer order-shipped --reason exhausted --dry-run
  tributary dlq retry-all --since 24h`
}

// Run retries dead letters.
func (c *dlqRetryAllCommand) Run(in *Invocation) error { return c.retry(in, nil, c.filter()) }

// retryResult is what became of one dead letter.
type retryResult struct {
	Sequence  uint64       `json:"sequence"`
	EffectKey string       `json:"effect_key,omitempty"`
	Result    jobs.Retried `json:"result"`
	Error     string       `json:"error,omitempty"`
}

const (
	notQueued jobs.Retried = "failed"  // it can't be tried again, or was not
	indexed   jobs.Retried = "indexed" // the index has its document now
	gone      jobs.Retried = "gone"    // it went between the list and the retry: it was tried again and succeeded, or removed
)

func (f *retryFlags) retry(in *Invocation, names []string, filter deadletter.Filter) error {
	return in.work(func(d *deployment) error {
		retrier := &retrier{jobs: d.Jobs, dryRun: f.DryRun}
		if f.Rerender {
			set, err := in.observers()
			if err != nil {
				return err
			}
			retrier.set = set
		}
		results := []retryResult{}
		counts := map[jobs.Retried]int{}
		err := in.eachLetter(d, names, filter, func(ctx context.Context, e deadletter.Entry) error {
			result, err := retrier.retry(ctx, d, e)
			switch {
			case len(names) == 0 && errors.Is(err, deadletter.ErrNotFound):
				result, err = gone, nil
			case err != nil:
				result = notQueued
			}
			counts[result]++
			line := retryResult{Sequence: e.Sequence, EffectKey: e.Record.EffectKey, Result: result}
			if err != nil {
				line.Error = err.Error()
			}
			results = append(results, line)
			return err
		})
		if in.wantsJSON() {
			return errors.Join(err, in.json(map[string]any{"dry_run": f.DryRun, "results": counts, "letters": results}))
		}
		p := in.text()
		if len(results) == 0 && err == nil {
			p.line("There is no dead letter of that kind.")
		}
		if len(names) > 0 {
			for _, r := range results {
				p.line("dead letter %d: %s", r.Sequence, retryText(r.Result, f.DryRun))
			}
			return errors.Join(err, p.err)
		}
		for _, result := range []jobs.Retried{jobs.Queued, indexed, jobs.UnderWay, jobs.Succeeded, jobs.Superseded, gone, notQueued} {
			if n := counts[result]; n > 0 {
				p.line("%5d  %s", n, retryText(result, f.DryRun))
			}
		}
		return errors.Join(err, p.err)
	})
}

func retryText(r jobs.Retried, dryRun bool) string {
	switch r {
	case jobs.Queued:
		return done(dryRun, "queued: its action is tried again")
	case jobs.UnderWay:
		return "under way already: tributary jobs list"
	case jobs.Succeeded:
		return "succeeded meanwhile: it goes"
	case jobs.Superseded:
		return "superseded: it was tried again and died again, as another dead letter"
	case indexed:
		return done(dryRun, "indexed: the index has its document, and it goes")
	case gone:
		return "gone meanwhile: nothing is left to do"
	case notQueued:
		return "not tried again"
	default:
		return string(r)
	}
}

// retrier tries dead letters again.
type retrier struct {
	jobs   *jobs.Store
	set    *observers.Set // nil to send what was kept
	dryRun bool
}

func (r *retrier) retry(ctx context.Context, d *deployment, e deadletter.Entry) (jobs.Retried, error) {
	if e.Err == nil && e.Record.Reason == deadletter.Mapping {
		return r.index(ctx, d, e)
	}
	if r.set == nil || e.Record.Lost != nil {
		result, err := r.jobs.Retry(ctx, e, jobs.Again{DryRun: r.dryRun})
		if errors.Is(err, jobs.ErrNotRetriable) && e.Record.Effect != nil {
			err = fmt.Errorf("%w; --rerender asks the observers of now", err)
		}
		return result, err
	}
	o, view, err := r.match(e)
	if err != nil {
		return "", err
	}
	if e.Record.Action == "" {
		return r.retryCondition(ctx, d, e, o, view)
	}
	for _, action := range o.Actions {
		if action.Name != e.Record.Action {
			continue
		}
		request, err := action.Render(view)
		if err != nil {
			return "", fmt.Errorf("render %s/%s: %w", o.Name, action.Name, err)
		}
		return r.jobs.Retry(ctx, e, jobs.Again{DryRun: r.dryRun, Rendered: &jobs.Rendered{
			Request: request, Policy: o.Retry, OnFailure: jobs.OnFailure(o.OnFailure), Generation: r.set.Generation(),
		}})
	}
	return "", fmt.Errorf("observer %s has no action %s any more", o.Name, e.Record.Action)
}

// match finds the observer of a dead letter, and asks it about the event.
func (r *retrier) match(e deadletter.Entry) (*observers.Observer, *observers.View, error) {
	record := &e.Record
	switch {
	case e.Err != nil:
		return nil, nil, fmt.Errorf("%w: %w", jobs.ErrNotRetriable, e.Err)
	case record.Effect == nil || len(record.Event) == 0:
		return nil, nil, fmt.Errorf("%w: a dead letter of reason %s belongs to no action", jobs.ErrNotRetriable, record.Reason)
	}
	address, err := events.ParseAddress(record.Subject)
	if err != nil {
		return nil, nil, err
	}
	event, err := events.Parse(record.Event)
	if err != nil {
		return nil, nil, err
	}
	view := observers.NewView(address, record.Event, event)
	for _, finding := range r.set.Explain(view) {
		switch {
		case finding.Observer.Name != record.Observer:
		case finding.Err != nil:
			return nil, nil, finding.Err
		case !finding.Matches:
			return nil, nil, fmt.Errorf("observer %s does not match the event any more (%s); if nothing is to be done, remove the dead letter",
				record.Observer, finding.Failed)
		default:
			return finding.Observer, view, nil
		}
	}
	return nil, nil, fmt.Errorf("there is no observer %s any more", record.Observer)
}

// retryCondition makes jobs of all actions of an observer whose condition had failed, and holds now. What they become is
// theirs to tell, so the dead letter goes when they are stored.
func (r *retrier) retryCondition(ctx context.Context, d *deployment, e deadletter.Entry, o *observers.Observer, view *observers.View) (jobs.Retried, error) {
	id := strings.TrimSuffix(e.Record.Effect.Key, "~"+o.Name+"~_")
	var list []jobs.New
	for _, action := range o.Actions {
		request, err := action.Render(view)
		if err != nil {
			return "", fmt.Errorf("render %s/%s: %w", o.Name, action.Name, err)
		}
		list = append(list, jobs.New{
			Effect: actions.Effect{
				Key: events.EffectKey(id, o.Name, action.Name), EventID: e.Record.Effect.EventID, Sequence: e.Record.Effect.Sequence,
				Observer: o.Name, Action: action.Name,
			},
			Request: request, Policy: o.Retry, OnFailure: jobs.OnFailure(o.OnFailure), Generation: r.set.Generation(),
			Event: e.Record.Event, Subject: e.Record.Subject,
		})
	}
	if r.dryRun {
		return jobs.Queued, nil
	}
	for _, job := range list {
		if err := r.jobs.Enqueue(ctx, job); err != nil {
			return "", err
		}
	}
	return jobs.Queued, deadletter.Remove(ctx, d.JS, e.Sequence)
}
