package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tributary-dev/tributary/internal/config"
	"github.com/tributary-dev/tributary/internal/demo"
	"github.com/tributary-dev/tributary/internal/dev/natsserver"
	"github.com/tributary-dev/tributary/internal/postgres"
	"github.com/tributary-dev/tributary/pkg/pgcdc"
)

// devOptions is what `tributary dev` takes beside the configuration.
type devOptions struct {
	Dir      string
	NATSPort int
	Postgres string // a database to read instead of the configuration's
	Demo     bool   // with a shop in the database, and receivers of its webhooks
}

// development is one run of `tributary dev`: what it started, to be undone in reverse.
type development struct {
	opts   devOptions
	env    *environment
	stdout io.Writer
	board  *board // on stdout
	began  time.Time
	demo   *exhibition // nil without --demo
	undo   []ending
}

// ending is something to undo at the end.
type ending struct {
	what string // for the log, where it fails
	do   func(context.Context) error
}

// undoWithin bounds each ending; PostgreSQL's last checkpoint takes longest.
const undoWithin = 15 * time.Second

// runDev runs everything in this process until ctx ends.
func runDev(ctx context.Context, cfg config.Config, opts devOptions, p Program) (err error) {
	steps := []func(*development, context.Context) error{(*development).makeDir, (*development).startNATS, (*development).findDatabase}
	if opts.Demo {
		if err := prepareDemo(&cfg, opts); err != nil {
			return err
		}
		steps = append(steps, (*development).openShop)
	}
	d := &development{opts: opts, stdout: p.Stdout, board: newBoard(p.Stdout), began: time.Now()}
	if d.env, err = newEnvironment("dev", cfg, d.board.log(p.Stderr)); err != nil {
		return err
	}
	defer d.end(ctx)
	for _, step := range steps {
		if err := step(d, ctx); err != nil {
			return unlessEnded(ctx, err)
		}
	}
	return d.serve(ctx)
}

// atEnd has something undone at the end of the run, before all that was done earlier.
func (d *development) atEnd(what string, do func(context.Context) error) {
	d.undo = append(d.undo, ending{what, do})
}

func (d *development) end(ctx context.Context) {
	ctx = context.WithoutCancel(ctx)
	clean := true
	for i := len(d.undo) - 1; i >= 0; i-- {
		ending := d.undo[i]
		within, cancel := context.WithTimeout(ctx, undoWithin)
		if err := ending.do(within); err != nil {
			clean = false
			d.env.log.Error(ending.what, "err", err)
		}
		cancel()
	}
	if d.demo != nil && clean {
		d.say("Nothing is left behind.")
	}
}

// makeDir finds the folder of all state; without --dir it is temporary.
func (d *development) makeDir(context.Context) error {
	if d.opts.Dir == "" {
		dir, err := os.MkdirTemp("", "tributary-dev-")
		if err != nil {
			return fmt.Errorf("make a folder for the state: %w", err)
		}
		d.env.config.StateDir = dir
		d.atEnd("the temporary state stays", func(context.Context) error { return os.RemoveAll(dir) })
		return nil
	}
	dir, err := filepath.Abs(d.opts.Dir)
	if err != nil {
		return fmt.Errorf("--dir: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("--dir: %w", err)
	}
	d.env.config.StateDir = dir
	return nil
}

func (d *development) temporary() bool { return d.opts.Dir == "" }

// startNATS starts the embedded server, unless the configuration names one.
func (d *development) startNATS(context.Context) error {
	if d.env.config.NATS.URL != "" {
		d.say("NATS        %s (nats.url)", d.env.config.NATS.URL)
		return nil
	}
	server, err := natsserver.Start(natsserver.Options{
		StoreDir: filepath.Join(d.env.config.StateDir, "jetstream"), Port: d.opts.NATSPort, Name: "tributary-dev", Log: d.env.log,
	})
	switch {
	case errors.Is(err, natsserver.ErrPortTaken):
		return fmt.Errorf("start NATS: %w; choose another with --nats-port, 0 takes a free one", err)
	case errors.Is(err, natsserver.ErrStoreInUse):
		return fmt.Errorf("start NATS: %w; is another `tributary dev` running with this --dir?", err)
	case err != nil:
		return fmt.Errorf("start NATS: %w", err)
	}
	d.atEnd("NATS", func(context.Context) error { server.Shutdown(); return nil })
	d.env.config.NATS.URL = server.URL()
	d.say("NATS        %s", server.URL())
	return nil
}

// findDatabase takes --postgres, or the configuration's sources, or starts a database of its own.
func (d *development) findDatabase(ctx context.Context) error {
	cfg := &d.env.config
	if d.temporary() {
		cfg.Ingest.Checkpoints = false // the next run would find them, and nothing that they speak of
	}
	switch {
	case d.opts.Postgres != "":
		cfg.Sources = []config.Source{d.source(d.opts.Postgres)}
	case len(cfg.Sources) == 0:
		server, err := postgres.Start(ctx, postgres.Options{
			Dir: filepath.Join(cfg.StateDir, "postgres"), NoSync: d.temporary(),
			// A commit is decoded once it is flushed: at once, and not when the WAL writer comes by.
			Settings: map[string]string{"synchronous_commit": "on"},
		})
		if err != nil {
			return fmt.Errorf("start PostgreSQL: %w", err)
		}
		d.atEnd("PostgreSQL did not stop in order", server.Stop)
		source := d.source(server.URL("postgres"))
		source.Tables = []string{"*.*"}
		// All that is ever made in this database is to be read, from its first row on.
		if err := pgcdc.PublishAll(ctx, server.URL("postgres"), source.Publication); err != nil {
			return err
		}
		cfg.Sources = []config.Source{source}
		d.say("PostgreSQL  %s (its own, %s)", server.URL("postgres"), server.Version())
		return nil
	}
	if !d.temporary() {
		return nil
	}
	for _, s := range cfg.Sources {
		if err := d.leaveNoSlot(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// source is the source of a database that no configuration describes.
func (d *development) source(url string) config.Source {
	name := "dev"
	if d.opts.Demo {
		name = demo.Source
	}
	return config.Source{
		Name: name, Postgres: config.NewSecret(url), Tables: []string{"public.*"}, Slot: "tributary_" + name,
		Publication: "tributary_" + name, Snapshot: true, Heartbeat: 10 * time.Second,
	}
}

// leaveNoSlot drops at the end what this run makes in a database that is not its own: without --dir nothing could
// read on from the slot, and PostgreSQL would keep WAL for it for ever.
func (d *development) leaveNoSlot(ctx context.Context, s config.Source) error {
	url, err := s.Postgres.Resolve()
	if err != nil {
		return fmt.Errorf("source %s: postgres %w", s.Name, err)
	}
	exists, err := pgcdc.SlotExists(ctx, url, s.Slot)
	if err != nil {
		return fmt.Errorf("source %s: %w", s.Name, err)
	}
	if exists {
		return fmt.Errorf("source %s: the slot %s exists already, so something else reads with it; "+
			"run with the --dir that goes with it, or set sources[].slot to another name", s.Name, s.Slot)
	}
	d.atEnd("the slot "+s.Slot+" stays, and PostgreSQL keeps WAL until it is dropped", func(ctx context.Context) error {
		return pgcdc.Leave(ctx, url, s.Slot, s.Publication)
	})
	return nil
}

// serve runs the services and the live lines.
func (d *development) serve(ctx context.Context) error {
	server, err := d.env.listen("dev")
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return server.Run(ctx) })
	for _, s := range []service{ingestService, workerService, jobRunnerService, indexerService} {
		group.Go(func() error {
			if err := s.run(ctx, d.env.of(s.name, d.env.base)); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			return nil
		})
	}
	if d.demo == nil {
		group.Go(func() error { return liveLines(ctx, d.stdout, d.env) })
		return group.Wait()
	}
	group.Go(func() error { return d.demo.sell(ctx, d.env) })
	group.Go(func() error { return d.demo.run(ctx, d.env) })
	defer d.demo.sumUp()
	return group.Wait()
}

func (d *development) say(format string, args ...any) { fmt.Fprintf(d.stdout, format+"\n", args...) }
