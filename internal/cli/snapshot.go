package cli

import (
	"context"
	"fmt"

	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/ingest"
)

type snapshotCommand struct {
	Reset string `required:"" help:"Set this source up anew: a new slot, a snapshot of all its rows, the next incarnation." placeholder:"SOURCE"`
	Why   string `default:"reset" help:"For the record." placeholder:"TEXT"`
	Yes   bool   `help:"Do not ask."`
}

// Help is shown below the flags.
func (snapshotCommand) Help() string {
	return `What --reset is for: a slot that was dropped or lost, a database that was restored, EVENTS that was
deleted. The next ingest drops the slot if it is there, makes another, and every row comes as an
event once more, under a new incarnation: to observers these are new events. Changes between the
end of EVENTS and the new slot are lost as changes; the rows show what they led to.

With -o json: {source, incarnation, epoch}.

Examples:
  tributary snapshot --reset shop
  tributary snapshot --reset shop --why "the slot was lost" --yes`
}

// Run resets a source.
func (c *snapshotCommand) Run(in *Invocation) error {
	source, err := in.source(c.Reset)
	if err != nil {
		return err
	}
	store, _, err := mirrorOf(source)
	if err != nil {
		return err
	}
	defer store.Close()
	question := fmt.Sprintf("Every row of %s comes as an event once more, and changes that are not in EVENTS yet are lost.", source.Name)
	if err := in.confirmed(c.Yes, question); err != nil {
		return err
	}
	return in.look(func(ctx context.Context, d *deployment) error {
		stream, err := d.JS.Stream(ctx, events.StreamEvents)
		if err != nil {
			return fmt.Errorf("open EVENTS: %w", err)
		}
		mirrored, err := known(ctx, store, source.Name)
		if err != nil {
			return fmt.Errorf("%w: without the mirror an incarnation could come twice", err)
		}
		position, err := ingest.Reset(ctx, d.nc, stream, source.Name, who(), mirrored)
		if err != nil {
			return err
		}
		if err := tell(ctx, store, source.Name, position, who(), c.Why); err != nil {
			return fmt.Errorf("source %s starts over, but that is not on record: %w", source.Name, err)
		}
		if in.wantsJSON() {
			return in.json(map[string]any{"source": source.Name, "incarnation": position.Incarnation, "epoch": position.Epoch})
		}
		p := in.text()
		p.line("%s starts over when ingest leads it next, in incarnation %d.", source.Name, position.Incarnation)
		p.line("Start ingest if it ended.")
		return p.err
	})
}
