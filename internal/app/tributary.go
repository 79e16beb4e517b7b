package app

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/alecthomas/kong"

	"github.com/tributary-dev/tributary/internal/config"
)

// commands is the operator's command line.
type commands struct {
	Dev     devCommand     `cmd:"" help:"Run everything in one process, on an embedded NATS server."`
	Version versionCommand `cmd:"" help:"Print the version."`
}

type devCommand struct {
	Dir      string `help:"Keep all state in this folder over restarts; without it state is temporary." type:"path" placeholder:"DIR"`
	NATSPort int    `name:"nats-port" help:"Port of the embedded NATS server; 0 takes a free one." default:"4222" placeholder:"N"`
	Postgres string `help:"Read this database, instead of the configuration's sources or one of its own." placeholder:"URL"`
}

// Help is shown below the flags.
func (devCommand) Help() string {
	return `Every key of the configuration can be given as well, as --config FILE, --worker.concurrency 8, or
TRIBUTARY_WORKER_CONCURRENCY=8. Without sources, a PostgreSQL server of its own is started.

Examples:
  tributary dev
  tributary dev --postgres postgres://localhost/shop --observers observers.yaml
  tributary dev --config tributary.yaml --dir .tributary --nats-port 4333`
}

type versionCommand struct{}

// Run prints the version.
func (versionCommand) Run(out io.Writer) error {
	_, err := fmt.Fprintln(out, Version)
	return err
}

// invocation is what a command is run with.
type invocation struct {
	ctx     context.Context //nolint:containedctx // kong passes values, and this one lives as long as the call
	config  config.Config
	program Program
}

// Run runs everything until Ctrl-C.
func (c devCommand) Run(in *invocation) error {
	return runDev(in.ctx, in.config, devOptions(c), in.program)
}

// Tributary is the program tributary.
func Tributary(ctx context.Context, p Program) int {
	err := tributary(ctx, p)
	if errors.Is(err, errHelpShown) {
		return statusOK
	}
	return exitStatus(p.Stderr, "tributary", err)
}

var errHelpShown = errors.New("help was shown")

func tributary(ctx context.Context, p Program) (err error) {
	cfg, rest, err := config.Load(config.Request{Service: "tributary", Args: p.Args, Environ: p.Environ, PassRest: true})
	if err != nil {
		return err
	}
	// Kong ends the process after --help; here a program is a function.
	defer func() {
		if recovered := recover(); recovered != nil {
			if recovered != any(errHelpShown) {
				panic(recovered)
			}
			err = errHelpShown
		}
	}()
	var cli commands
	parser, err := kong.New(&cli, kong.Name("tributary"), kong.Writers(p.Stdout, p.Stderr), kong.UsageOnError(),
		kong.Description("Turns every committed change of a PostgreSQL database into work that is done."),
		kong.Exit(func(int) { panic(errHelpShown) }), kong.BindTo(p.Stdout, (*io.Writer)(nil)))
	if err != nil {
		return fmt.Errorf("read the command line: %w", err)
	}
	parsed, err := parser.Parse(rest)
	if err != nil {
		return &config.UsageError{Message: err.Error()}
	}
	return parsed.Run(&invocation{ctx: ctx, config: cfg, program: p})
}
