package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/tributary-dev/tributary/internal/generations"
)

type observersPauseCommand struct {
	Name string `arg:"" help:"The observer."`
}

// Help is shown below the flags.
func (observersPauseCommand) Help() string {
	return `What a paused observer is to do waits, in order, and is done when it is resumed: nothing is lost, and the
other observers go on. What waits is kept in EVENTS, which can't be freed meanwhile: see
tributary_worker_parked_oldest_seconds, and events.max_bytes. Its jobs are deferred.

A generation is applied that differs in this alone. Where the configuration names a file of observers, write
paused: true there.

With -o json: what observers apply prints.

Examples:
  tributary observers pause order-shipped
  tributary observers resume order-shipped`
}

// Run pauses an observer.
func (c *observersPauseCommand) Run(in *Invocation) error { return in.setPaused(c.Name, true) }

type observersResumeCommand struct {
	Name string `arg:"" help:"The observer."`
}

// Help is shown below the flags.
func (observersResumeCommand) Help() string {
	return `What has waited is done now, in order, by the observers that are in force then.

With -o json: what observers apply prints.

Examples:
  tributary observers resume order-shipped`
}

// Run resumes an observer.
func (c *observersResumeCommand) Run(in *Invocation) error { return in.setPaused(c.Name, false) }

func (in *Invocation) setPaused(name string, paused bool) error {
	if configured := in.Config.Observers; configured != "" {
		return fmt.Errorf("the configuration names %s, so workers do not heed what is applied: write paused: %t there, and restart them",
			configured, paused)
	}
	return in.look(func(ctx context.Context, d *deployment) error {
		store := generations.Open(d.JS)
		for {
			before, of, err := store.Load(ctx)
			if err != nil {
				return err
			}
			after, err := before.SetPaused(name, paused)
			if err != nil {
				return err
			}
			result, err := compare(before, after)
			if err != nil {
				return err
			}
			current, changed, err := store.Replace(ctx, of, after, whoIsThis())
			if errors.Is(err, generations.ErrConflict) {
				continue // somebody else was quicker: on top of theirs
			}
			if err != nil {
				return err
			}
			result.Changed, result.Number, result.Generation = changed, current.Number, after.Generation()
			if in.wantsJSON() {
				return in.json(result)
			}
			return result.show(in.text())
		}
	})
}
