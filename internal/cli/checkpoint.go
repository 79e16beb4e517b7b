package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/pkg/checkpoint"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/ingest"
	"github.com/tributary-dev/tributary/pkg/pgcdc"
)

type checkpointCommand struct {
	Show    checkpointShowCommand    `cmd:"" help:"Print the positions that the sources' databases mirror."`
	History checkpointHistoryCommand `cmd:"" help:"Print who changed a source's position, and why."`
	Set     checkpointSetCommand     `cmd:"" help:"Make a source go on somewhere else."`
}

type checkpointShowCommand struct {
	Source string `arg:"" optional:"" help:"Of this source alone."`
}

// Help is shown below the flags.
func (checkpointShowCommand) Help() string {
	return `EVENTS says where a source goes on: tributary status. The mirror in the source's own database,
in schema tributary, follows it, and is what is left when EVENTS is not.

With -o json: a list of {source, epoch, incarnation, system_id, timeline, slot, phase,
commit_lsn, index, end_lsn, leader, saved_at}.

Examples:
  tributary checkpoint show
  tributary checkpoint show shop -o json`
}

// Run prints checkpoints.
func (c *checkpointShowCommand) Run(in *Invocation) error {
	sources := in.Config.Sources
	if c.Source != "" || len(sources) == 0 {
		one, err := in.source(c.Source)
		if err != nil {
			return err
		}
		sources = append(sources[:0:0], one)
	}
	ctx, cancel := in.bounded()
	defer cancel()
	list := []checkpoint.Saved{}
	var missing error
	for _, source := range sources {
		store, _, err := mirrorOf(source)
		if err != nil {
			return err
		}
		saved, err := store.Get(ctx, source.Name)
		store.Close()
		switch {
		case errors.Is(err, checkpoint.ErrNotFound):
			missing = err
		case err != nil:
			return err
		default:
			list = append(list, saved)
		}
	}
	if len(list) == 0 && missing != nil {
		return missing
	}
	if in.wantsJSON() {
		return in.json(list)
	}
	p := in.text()
	var rows [][]string
	for _, s := range list {
		rows = append(rows, []string{s.Source, fmt.Sprint(s.Epoch), fmt.Sprint(s.Incarnation), s.Phase, s.Commit.String(), fmt.Sprint(s.Index), s.End.String(), p.age(s.At), s.Leader})
	}
	p.table([]column{{title: "SOURCE"}, {title: "EPOCH", right: true}, {title: "SET-UP", right: true}, {title: "PHASE"}, {title: "COMMIT"},
		{title: "INDEX", right: true}, {title: "END"}, {title: "AGE", right: true}, {title: "BY", cut: true}}, rows)
	return p.err
}

type checkpointHistoryCommand struct {
	Source string `arg:"" help:"The source."`
	Limit  most   `default:"20" help:"At most so many; ${default} where it is not given." placeholder:"N"`
}

// Help is shown below the flags.
func (checkpointHistoryCommand) Help() string {
	return `Takeovers, changes of phase and what people set are kept for 90 days, at most 1,000 of a source.

With -o json: a list of {id, source, at, who, why, from{}, to{}}, the newest first; from and to
are as checkpoint show has them.

Examples:
  tributary checkpoint history shop
  tributary checkpoint history shop --limit 100 -o json`
}

// Run prints the history of a source.
func (c *checkpointHistoryCommand) Run(in *Invocation) error {
	source, err := in.source(c.Source)
	if err != nil {
		return err
	}
	store, _, err := mirrorOf(source)
	if err != nil {
		return err
	}
	defer store.Close()
	ctx, cancel := in.bounded()
	defer cancel()
	changes, err := store.History(ctx, source.Name, int(c.Limit)+1)
	if err != nil {
		return err
	}
	changes, more := cut(c.Limit, changes)
	if in.wantsJSON() {
		return in.json(append([]checkpoint.Change{}, changes...))
	}
	p := in.text()
	if len(changes) == 0 {
		p.line("Nothing is on record of %s.", source.Name)
	}
	var rows [][]string
	for _, change := range changes {
		rows = append(rows, []string{stamp(change.At), change.To.Commit.String(), change.Why, change.Who})
	}
	p.table([]column{{title: "AT"}, {title: "COMMIT"}, {title: "WHY", cut: true}, {title: "WHO", cut: true}}, rows)
	p.rest(more)
	return p.err
}

type checkpointSetCommand struct {
	Source     string `arg:"" help:"The source."`
	FromMirror bool   `help:"Where the mirror in the source's database is." xor:"place" required:""`
	Commit     string `help:"Behind the commit at this LSN, and all before it." xor:"place" required:"" placeholder:"LSN"`
	Why        string `required:"" help:"For the record." placeholder:"TEXT"`
	DryRun     bool   `help:"Say what would be set, and set nothing."`
	Yes        bool   `help:"Do not ask."`
}

// Help is shown below the flags.
func (checkpointSetCommand) Help() string {
	return `The source's leader is deposed, and who leads next goes on behind the place that is set. What lies
between the end of EVENTS and that place is NOT read. A source can't go back: what is stored is
done again with events replay, and what was never read is read by starting over, with
tributary snapshot --reset.

With -o json: {source, dry_run, why, from{}, to{}}.

Examples:
  tributary checkpoint set shop --from-mirror --why "EVENTS was restored" --dry-run
  tributary checkpoint set shop --from-mirror --why "EVENTS was restored" --yes
  tributary checkpoint set shop --commit 16/B374D848 --why "skip the import of 2026-11-23"`
}

// placed is what checkpoint set did, for scripts.
type placed struct {
	Source string       `json:"source"`
	DryRun bool         `json:"dry_run"`
	Why    string       `json:"why"`
	Before positionView `json:"from"`
	After  positionView `json:"to"`
}

type positionView struct {
	Epoch       uint64       `json:"epoch"`
	Incarnation uint64       `json:"incarnation"`
	Phase       ingest.Phase `json:"phase"`
	Commit      events.LSN   `json:"commit_lsn"`
	Index       uint32       `json:"index"`
	End         events.LSN   `json:"end_lsn"`
}

func viewPosition(p ingest.Position) positionView {
	return positionView{p.Epoch, p.Incarnation, p.Phase, p.CommitLSN, p.Index, p.EndLSN}
}

// Run sets a position.
func (c *checkpointSetCommand) Run(in *Invocation) error {
	source, err := in.source(c.Source)
	if err != nil {
		return err
	}
	store, url, err := mirrorOf(source)
	if err != nil {
		return err
	}
	defer store.Close()
	return in.work(func(d *deployment) error {
		m := &move{in: in, command: c, d: d, store: store}
		if err := m.plan(url, source.Slot); err != nil {
			return err
		}
		if c.DryRun {
			return in.placed(m.result)
		}
		question := fmt.Sprintf("Changes of %s from %s to %s will NOT be read.", c.Source, m.result.Before.End, m.result.After.End)
		if err := in.confirmed(c.Yes, question); err != nil {
			return err
		}
		if err := m.do(); err != nil {
			return err
		}
		return in.placed(m.result)
	})
}

// move is one setting of a position, planned first, then done.
type move struct {
	in      *Invocation
	command *checkpointSetCommand
	d       *deployment
	store   *checkpoint.Store

	stream   jetstream.Stream
	mirrored ingest.Position
	to       ingest.Position
	result   placed
}

func (m *move) plan(url, slot string) (err error) {
	ctx, cancel := m.in.bounded()
	defer cancel()
	source := m.command.Source
	if m.stream, err = m.d.JS.Stream(ctx, events.StreamEvents); err != nil {
		return fmt.Errorf("open EVENTS: %w", err)
	}
	if m.mirrored, err = known(ctx, m.store, source); err != nil {
		return err
	}
	if m.to, err = m.place(ctx, url, slot); err != nil {
		return err
	}
	now, err := ingest.MayPlace(ctx, m.d.nc, m.stream, source, m.to)
	if err != nil {
		return err
	}
	m.result = placed{Source: source, DryRun: m.command.DryRun, Why: m.command.Why, Before: viewPosition(now.Position), After: viewPosition(m.to)}
	m.result.Before.Commit, m.result.Before.Index, m.result.Before.End = events.LSN(now.Last.Commit), now.Last.Index, now.Through
	m.result.After.Epoch = max(now.Position.Epoch, m.mirrored.Epoch) + 1
	return nil
}

func (m *move) do() error {
	ctx, cancel := m.in.bounded()
	defer cancel()
	stored, err := ingest.Place(ctx, m.d.nc, m.stream, m.command.Source, who(), m.mirrored, m.to)
	if err != nil {
		return err
	}
	m.result.After = viewPosition(stored)
	if err := tell(ctx, m.store, m.command.Source, stored, who(), m.command.Why); err != nil {
		return fmt.Errorf("the position is set, but not on record: %w", err)
	}
	return nil
}

// place is where the source is to go on.
func (m *move) place(ctx context.Context, url, slot string) (ingest.Position, error) {
	now, err := ingest.Where(ctx, m.d.nc, m.stream, m.command.Source, m.mirrored.Incarnation)
	if err != nil {
		return ingest.Position{}, err
	}
	to := now.Position
	if to.Phase == "" {
		to = m.mirrored
	}
	if m.command.FromMirror {
		if m.mirrored.Incarnation == 0 {
			return to, errors.New("the mirror knows nothing of source " + m.command.Source)
		}
		to = m.mirrored
		standing, err := pgcdc.Stand(ctx, url, slot)
		if err != nil {
			return to, err
		}
		// The end alone is not mirrored when it moves, and the slot never moves past an event that is not mirrored.
		to.EndLSN = max(to.EndLSN, standing.Confirmed)
		return to, nil
	}
	lsn, err := events.ParseLSN(m.command.Commit)
	if err != nil {
		return to, usage("--commit: %q is no LSN, such as 16/B374D848", m.command.Commit)
	}
	const allOfIt = 1<<32 - 1
	to.CommitLSN, to.Index, to.EndLSN = lsn, allOfIt, lsn+1
	return to, nil
}

func (in *Invocation) placed(result placed) error {
	if in.wantsJSON() {
		return in.json(result)
	}
	p := in.text()
	verb := "goes on"
	if result.DryRun {
		verb = "would go on"
	}
	p.line("%s %s behind %s.", result.Source, verb, placeText(result.After.Commit, result.After.Index, result.After.End))
	p.field("EVENTS had", placeText(result.Before.Commit, result.Before.Index, result.Before.End))
	p.field("Incarnation", fmt.Sprintf("%d, was %d", result.After.Incarnation, result.Before.Incarnation))
	p.field("Epoch", fmt.Sprintf("%d, was %d", result.After.Epoch, result.Before.Epoch))
	p.field("Why", result.Why)
	return p.err
}
