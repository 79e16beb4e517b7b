package cli

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/ingest"
	"github.com/tributary-dev/tributary/pkg/pgcdc"
)

type snapshotCommand struct {
	Table  string `arg:"" optional:"" help:"Read the rows of this table once more: schema.table."`
	Where  string `help:"Only those for which this is true: an SQL condition on the table's columns." placeholder:"SQL"`
	Source string `help:"The table's source; not needed where there is one." placeholder:"NAME"`
	DryRun bool   `help:"Say what would be read, and read nothing."`
	NoWait bool   `help:"Do not wait for the end."`

	List   bool   `help:"List what is being read, waits to be, and was asked for lately."`
	Cancel string `help:"End the reading of this ID, which was asked for." placeholder:"ID"`

	Reset string `help:"Set this source up anew: a new slot, a snapshot of all its rows, the next incarnation." placeholder:"SOURCE"`
	Why   string `default:"reset" help:"With --reset: for the record." placeholder:"TEXT"`
	Yes   bool   `help:"With --reset: do not ask."`
}

// Help is shown below the flags.
func (snapshotCommand) Help() string {
	return `With TABLE, whoever leads the source reads the table's rows once more, while changes go on:
each comes as a snapshot event behind all that was committed before it was read, and none
behind a newer change. The events have other ids than those of an earlier reading. The
reading survives the leader; Ctrl-C ends the waiting alone. The table has to be published.
--list shows the readings and their ids, --cancel ends one: rows that came stay, no more come.

What --reset is for: a slot that was dropped or lost, a database that was restored, EVENTS that was
deleted. The next ingest drops the slot if it is there, makes another, and every row comes as an
event once more, under a new incarnation: to observers these are new events. Changes between the
end of EVENTS and the new slot are lost as changes; the rows show what they led to.

With -o json: {id, source, table, rows, bytes, lsn, done, error}; rows are estimated
until it is done. With --reset: {source, incarnation, epoch}.

Examples:
  tributary snapshot public.orders --where "status = 'open'" --dry-run
  tributary snapshot public.orders --no-wait
  tributary snapshot --list
  tributary snapshot --cancel 4ZQJ...
  tributary snapshot --reset shop --why "the slot was lost" --yes`
}

// Run asks for rows, or resets a source.
func (c *snapshotCommand) Run(in *Invocation) error {
	switch {
	case (c.List || c.Cancel != "") && (c.Table != "" || c.Where != "" || c.DryRun || c.NoWait || c.Reset != "") || c.List && c.Cancel != "":
		return usage("--list and --cancel ID go with --source alone")
	case c.Reset != "" && (c.Table != "" || c.Where != "" || c.DryRun || c.NoWait):
		return usage("--reset reads all rows of a source: leave out the table and what goes with it")
	case c.Reset != "":
		return c.reset(in)
	case c.Table == "" && !c.List && c.Cancel == "":
		return usage("say which table to read, --list, --cancel ID, or --reset SOURCE")
	}
	name := c.Source
	if name == "" && len(in.Config.Sources) == 1 {
		name = in.Config.Sources[0].Name
	}
	if name == "" {
		return usage("say which source has the table: --source NAME")
	}
	source, err := in.source(name)
	if err != nil {
		return err
	}
	switch {
	case c.List:
		return c.list(in, source.Name)
	case c.Cancel != "":
		return c.cancel(in, source.Name)
	}
	return in.work(func(d *deployment) error {
		question := pgcdc.Ask{ID: strings.ToLower(rand.Text()), Table: c.Table, Where: c.Where, Who: who(), DryRun: c.DryRun}
		answer, err := askLeader(in, d, source.Name, question)
		if err != nil {
			return err
		}
		view := snapshotView{ID: answer.ID, Source: source.Name, Table: answer.Table, Rows: uint64(max(answer.Rows, 0)), Bytes: answer.Bytes, LSN: answer.LSN}
		if !c.DryRun && !c.NoWait {
			return c.wait(in, d, view)
		}
		if in.wantsJSON() {
			return in.json(view)
		}
		p := in.text()
		if c.DryRun {
			p.line("About %d rows of %s would be read, by PostgreSQL's estimate; the table has %s.", view.Rows, clean(view.Table), size(view.Bytes))
			return p.err
		}
		p.line("About %d rows of %s are read, as %s; tributary status shows how far it is.", view.Rows, clean(view.Table), view.ID)
		return p.err
	})
}

// snapshotView is a reading that was asked for.
type snapshotView struct {
	ID     string     `json:"id"`
	Source string     `json:"source"`
	Table  string     `json:"table"`
	Rows   uint64     `json:"rows"`
	Bytes  int64      `json:"bytes,omitempty"`
	LSN    events.LSN `json:"lsn,omitempty"`
	Done   bool       `json:"done"`
	Error  string     `json:"error,omitempty"`
}

// wait shows how far a reading is until it is done.
func (c *snapshotCommand) wait(in *Invocation, d *deployment, view snapshotView) error {
	const lookEvery, showEvery = 250 * time.Millisecond, 2 * time.Second
	stream, err := d.JS.Stream(in.Ctx, events.StreamEvents)
	if err != nil {
		return fmt.Errorf("open EVENTS: %w", err)
	}
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	p, shown := in.text(), in.Now()
	for {
		progress, ended, err := lookFor(in.Ctx, stream, view.Source, view.ID)
		switch {
		case err != nil:
			return err
		case ended != nil:
			view.Rows, view.Done, view.Error = ended.Rows, true, ended.Error
			return c.conclude(in, p, view)
		case progress == nil:
			return fmt.Errorf("the reading %s of %s is not known any more: the source started over, or many were asked for since", view.ID, view.Table)
		}
		if now := in.Now(); now.Sub(shown) >= showEvery && !in.wantsJSON() {
			shown = now
			p.line("%s", progressLine(*progress))
		}
		select {
		case <-in.Ctx.Done():
			return fmt.Errorf("%s goes on without anybody who waits: %w", view.ID, context.Cause(in.Ctx))
		case <-ticker.C:
		}
	}
}

func (c *snapshotCommand) conclude(in *Invocation, p *printer, view snapshotView) error {
	if in.wantsJSON() {
		if err := in.json(view); err != nil {
			return err
		}
	} else if view.Error == "" {
		p.line("%d rows of %s were read; the ids of their events have %s.", view.Rows, clean(view.Table), view.LSN)
	}
	if view.Error != "" {
		return fmt.Errorf("%s was read up to row %d: %s", view.Table, view.Rows, clean(view.Error))
	}
	return p.err
}

// lookFor finds a reading in the source's position.
func lookFor(ctx context.Context, stream jetstream.Stream, source, id string) (*pgcdc.Progress, *pgcdc.Ended, error) {
	list, done, err := readingsOf(ctx, stream, source)
	if err != nil {
		return nil, nil, err
	}
	for i := range done {
		if done[i].ID == id {
			return nil, &done[i], nil
		}
	}
	for i := range list {
		if list[i].ID == id {
			return &list[i], nil, nil
		}
	}
	return nil, nil, nil
}

// readingsOf gives all readings of a source, and the last that were asked for and ended.
func readingsOf(ctx context.Context, stream jetstream.Stream, source string) ([]pgcdc.Progress, []pgcdc.Ended, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	msg, err := stream.GetLastMsgForSubject(ctx, events.PositionSubject(source))
	if err != nil {
		return nil, nil, fmt.Errorf("read the position of %s: %w", source, err)
	}
	var position ingest.Position
	if err := json.Unmarshal(msg.Data, &position); err != nil {
		return nil, nil, fmt.Errorf("decode the position of %s: %w", source, err)
	}
	list, done, err := pgcdc.ReadProgress(position)
	if err != nil {
		return nil, nil, fmt.Errorf("read the position of %s: %w", source, err)
	}
	return list, done, nil
}

// progressLine says how far a reading of rows is.
func progressLine(r pgcdc.Progress) string {
	what := map[string]string{pgcdc.ReadSnapshot: "snapshot", pgcdc.ReadAdded: "rows of new tables", pgcdc.ReadAsked: "rows of " + clean(r.Table)}[r.Kind]
	if r.Where != "" {
		what += " where " + clean(r.Where)
	}
	if r.Waiting {
		return what + ": waiting for another reading"
	}
	text := fmt.Sprintf("%s: %.1f%%, %d rows, %s", what, 100*r.Done, r.Rows, size(int64(r.Bytes)))
	if r.SecondsLeft != nil {
		text += ", about " + secondsText(*r.SecondsLeft) + " left"
	}
	return text
}

func (c *snapshotCommand) reset(in *Invocation) error {
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
