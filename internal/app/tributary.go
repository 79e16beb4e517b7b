package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/alecthomas/kong"

	"github.com/tributary-dev/tributary/internal/cli"
	"github.com/tributary-dev/tributary/internal/config"
)

// commands is the operator's command line.
type commands struct {
	cli.Globals
	Dev devCommand `cmd:"" help:"Run everything in one process, on an embedded NATS server."`
	cli.Commands
}

const description = `Turns every committed change of a PostgreSQL database, and what applications publish, into work that is done.

Examples:
  tributary dev                                  everything in this process, to try it
  tributary status --config tributary.yaml       what flows, and how far
  tributary events explain 1234                  who matched an event, and what became of it
  tributary dlq retry 12                         try a dead letter's action again
  tributary doctor --config tributary.yaml       is all well? exit status 1 if not

Exit status: 0, 1 where something failed, 2 for a wrong command line.`

type devCommand struct {
	Dir      string `help:"Keep all state in this folder over restarts; without it state is temporary." type:"path" placeholder:"DIR"`
	NATSPort int    `name:"nats-port" help:"Port of the embedded NATS server; 0 takes a free one." default:"4222" placeholder:"N"`
	Postgres string `help:"Read this database, instead of the configuration's sources or one of its own." placeholder:"URL"`
	Demo     bool   `help:"Show it with a small shop: rows become webhooks, retries and a dead letter. Everything is temporary, in an empty database."`
}

// Help is shown below the flags.
func (devCommand) Help() string {
	return `Every key of the configuration can be given as well, as --config FILE, --worker.concurrency 8, or
TRIBUTARY_WORKER_CONCURRENCY=8. Without sources, a PostgreSQL server of its own is started.

Examples:
  tributary dev
  tributary dev --demo
  tributary dev --postgres postgres://localhost/shop --observers observers.yaml
  tributary dev --config tributary.yaml --dir .tributary --nats-port 4333`
}

// Run runs everything until Ctrl-C.
func (c devCommand) Run(in *cli.Invocation, p *Program) error {
	return runDev(in.Ctx, in.Config, devOptions(c), *p)
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
	var line commands
	parser, err := kong.New(&line, kong.Name("tributary"), kong.Writers(p.Stdout, p.Stderr), kong.Description(description),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: helpWidth, NoExpandSubcommands: true}),
		kong.Exit(func(int) { panic(errHelpShown) }), kong.BindTo(p.Stdout, (*io.Writer)(nil)))
	if err != nil {
		return fmt.Errorf("read the command line: %w", err)
	}
	if len(rest) == 0 {
		rest = []string{"--help"} // what else could be meant
	}
	parsed, err := parser.Parse(rest)
	if err != nil {
		return &config.UsageError{Message: err.Error() + "; --help behind a command shows how it is used"}
	}
	return parsed.Run(&cli.Invocation{
		Ctx: ctx, Config: cfg, Options: line.Globals, Version: Version, Stdout: p.Stdout, Stdin: os.Stdin, Now: time.Now, Lookups: askLookups,
	}, &p, parser)
}

const helpWidth = 80
