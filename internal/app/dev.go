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
	"github.com/tributary-dev/tributary/internal/dev/natsserver"
	"github.com/tributary-dev/tributary/internal/postgres"
	"github.com/tributary-dev/tributary/pkg/pgcdc"
)

// devOptions is what `tributary dev` takes beside the configuration.
type devOptions struct {
	Dir      string
	NATSPort int
	Postgres string // a database to read instead of the configuration's
}

// development is one run of `tributary dev`: what it started, to be undone in reverse.
type development struct {
	opts   devOptions
	env    *environment
	stdout io.Writer
	undo   []func()
}

// runDev runs everything in this process until ctx ends.
func runDev(ctx context.Context, cfg config.Config, opts devOptions, p Program) (err error) {
	env, err := newEnvironment("dev", cfg, p.Stderr)
	if err != nil {
		return err
	}
	d := &development{opts: opts, stdout: p.Stdout, env: env}
	defer func() {
		for i := len(d.undo) - 1; i >= 0; i-- {
			d.undo[i]()
		}
	}()
	for _, step := range []func(context.Context) error{d.makeDir, d.startNATS, d.findDatabase} {
		if err := step(ctx); err != nil {
			return unlessEnded(ctx, err)
		}
	}
	return d.serve(ctx)
}

// makeDir finds the folder of all state; without --dir it is temporary.
func (d *development) makeDir(context.Context) error {
	if d.opts.Dir == "" {
		dir, err := os.MkdirTemp("", "tributary-dev-")
		if err != nil {
			return fmt.Errorf("make a folder for the state: %w", err)
		}
		d.env.config.StateDir = dir
		d.undo = append(d.undo, func() {
			if err := os.RemoveAll(dir); err != nil {
				d.env.log.Warn("remove the temporary state", "err", err)
			}
		})
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
	d.undo = append(d.undo, server.Shutdown)
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
		cfg.Sources = []config.Source{devSource(d.opts.Postgres)}
	case len(cfg.Sources) == 0:
		server, err := postgres.Start(ctx, postgres.Options{Dir: filepath.Join(cfg.StateDir, "postgres"), NoSync: d.temporary()})
		if err != nil {
			return fmt.Errorf("start PostgreSQL: %w", err)
		}
		d.undo = append(d.undo, func() {
			stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
			defer cancel()
			if err := server.Stop(stop); err != nil {
				d.env.log.Warn("stop PostgreSQL", "err", err)
			}
		})
		source := devSource(server.URL("postgres"))
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

// devSource is the source of a database that no configuration describes.
func devSource(url string) config.Source {
	return config.Source{
		Name: "dev", Postgres: config.NewSecret(url), Tables: []string{"public.*"}, Slot: "tributary_dev",
		Publication: "tributary_dev", Snapshot: true, Heartbeat: 10 * time.Second,
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
	d.undo = append(d.undo, func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		if err := pgcdc.Leave(ctx, url, s.Slot, s.Publication); err != nil {
			d.env.log.Warn("the slot stays; PostgreSQL keeps WAL until it is dropped", "slot", s.Slot, "err", err)
		}
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
	group.Go(func() error { return liveLines(ctx, d.stdout, d.env) })
	return group.Wait()
}

func (d *development) say(format string, args ...any) { fmt.Fprintf(d.stdout, format+"\n", args...) }
