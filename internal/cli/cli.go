// Package cli is the operator's commands: what they take, what they ask of a deployment, and how they print it, as text for an
// 80-column terminal or as JSON for scripts.
//
// It promises that no command waits for ever, that data can't write to the terminal but as text, and that what a command
// did not do is an error that says what to do about it. The figures come from package inspect; it keeps none.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/internal/config"
	"github.com/tributary-dev/tributary/internal/inspect"
	"github.com/tributary-dev/tributary/pkg/observers"
)

// Commands are the commands, for kong.
type Commands struct {
	Status     statusCommand     `cmd:"" help:"Show sources, streams, workers, jobs and dead letters."`
	Events     eventsCommand     `cmd:"" help:"List events, show one, explain what became of it."`
	DLQ        dlqCommand        `cmd:"" name:"dlq" help:"List dead letters, show, retry and remove them."`
	Jobs       jobsCommand       `cmd:"" help:"List jobs, show, cancel and hurry them."`
	Observers  observersCommand  `cmd:"" help:"Validate observers, list them, test them with an event."`
	Snapshot   snapshotCommand   `cmd:"" help:"Read the rows of a table once more, or set a source up anew."`
	Checkpoint checkpointCommand `cmd:"" help:"Show where sources are, who changed that, and set it."`
	Circuits   circuitsCommand   `cmd:"" help:"List circuits, open and reset them."`
	Search     searchCommand     `cmd:"" help:"Search events in the index."`
	Doctor     doctorCommand     `cmd:"" help:"Check everything that can be checked, with remedies."`
	Completion completionCommand `cmd:"" help:"Print the completion script of a shell."`
	Version    versionCommand    `cmd:"" help:"Print the version."`
}

// Globals are the flags of every command. Those of the configuration are taken out of the command line before kong sees
// it; they stand here to be in the help.
type Globals struct {
	Output outputFormat `short:"o" default:"text" help:"text, or json for scripts." placeholder:"FORMAT"`
	Wide   bool         `help:"Do not cut wide values to fit 80 columns."`

	Config  string `help:"The services' configuration file; also TRIBUTARY_CONFIG." placeholder:"FILE"`
	NATSURL string `name:"nats.url" help:"Where NATS is, without a configuration; nats://127.0.0.1:4222 if neither says. Every other key can be given in the same way." placeholder:"URL"`
}

type outputFormat string

// UnmarshalText reads text or json.
func (f *outputFormat) UnmarshalText(text []byte) error {
	switch *f = outputFormat(text); *f {
	case "text", "json":
		return nil
	default:
		return fmt.Errorf("%q is neither text nor json", text)
	}
}

// Invocation is one call of a command.
type Invocation struct {
	Ctx     context.Context //nolint:containedctx // kong passes values, and this one lives as long as the call
	Config  config.Config
	Options Globals
	Version string
	Stdout  io.Writer
	Stdin   io.Reader
	Now     func() time.Time

	// Lookups gives what asks the lookups of observers under a configuration's rules, and what ends that.
	Lookups func(config.Config) (fetch observers.Fetch, end func(), err error)
}

// Bounds of what a command waits for.
const (
	connectWithin = 4 * time.Second
	answerWithin  = 30 * time.Second
	defaultURL    = "nats://127.0.0.1:4222"
)

// usage makes an error of what was asked for in a wrong way: exit status 2.
func usage(format string, args ...any) error {
	return &config.UsageError{Message: fmt.Sprintf(format, args...)}
}

// deployment is a connection to what is looked at.
type deployment struct {
	*inspect.System
	nc *nats.Conn
}

func (d *deployment) close() { d.nc.Close() }

// connect connects to NATS, within seconds or not at all. The caller closes the deployment.
func (in *Invocation) connect() (*deployment, error) {
	nc, err := in.dial()
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("use JetStream: %w", err)
	}
	var databases []inspect.Database
	for i, source := range in.Config.Sources {
		databases = append(databases, inspect.Database{Source: source.Name, Slot: source.Slot, Mirrored: in.Config.Ingest.Checkpoints, URL: func() (string, error) {
			url, err := source.Postgres.Resolve()
			if err != nil {
				return "", fmt.Errorf("sources[%d].postgres %w", i, err)
			}
			return url, nil
		}})
	}
	system, err := inspect.New(js, databases)
	if err != nil {
		nc.Close()
		return nil, err
	}
	return &deployment{System: system, nc: nc}, nil
}

func (in *Invocation) natsURL() string {
	if in.Config.NATS.URL != "" {
		return in.Config.NATS.URL
	}
	return defaultURL
}

func (in *Invocation) dial() (*nats.Conn, error) {
	address := in.natsURL()
	ctx, cancel := context.WithTimeout(in.Ctx, connectWithin)
	defer cancel()
	options := []nats.Option{
		nats.Name("tributary-cli"),
		nats.NoReconnect(),
		nats.Timeout(connectWithin / time.Duration(strings.Count(address, ",")+1)),
		nats.SetCustomDialer(boundDialer{ctx}),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}), // whoever waits for an answer is told
	}
	if path := in.Config.NATS.Credentials; path != "" {
		options = append(options, nats.UserCredentials(path))
	}
	nc, err := nats.Connect(address, options...)
	switch {
	case err == nil:
		return nc, nil
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrPermissionViolation):
		return nil, fmt.Errorf("connect to %s: %w: check the user in nats.url, or nats.credentials", redact(address), err)
	case in.Config.NATS.URL == "":
		return nil, fmt.Errorf("connect to %s: %w: is it running? Without a configuration that is where `tributary dev` has NATS; "+
			"say where yours is with --config FILE or --nats.url URL", address, err)
	default:
		return nil, fmt.Errorf("connect to %s: %w: is it running? the address is nats.url", redact(address), err)
	}
}

// boundDialer dials for all servers of a URL within one time.
type boundDialer struct{ ctx context.Context } //nolint:containedctx // nats.go hands none in

// Dial implements nats.CustomDialer.
func (d boundDialer) Dial(network, address string) (net.Conn, error) {
	return new(net.Dialer).DialContext(d.ctx, network, address)
}

// redact leaves users and passwords out of the addresses of NATS.
func redact(addresses string) string {
	list := strings.Split(addresses, ",")
	for i, address := range list {
		if u, err := url.Parse(strings.TrimSpace(address)); err == nil && u.User != nil {
			u.User = nil
			list[i] = u.String()
		} else if err != nil {
			list[i] = "an address that can't be read"
		}
	}
	return strings.Join(list, ",")
}

// explain adds what to do to the errors of NATS that say it least.
func explain(err error) error {
	switch {
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return fmt.Errorf("%w: start the server with JetStream (nats-server -js), or enable it for the account", err)
	case errors.Is(err, jetstream.ErrStreamNotFound), errors.Is(err, jetstream.ErrBucketNotFound):
		return fmt.Errorf("%w (%w)", inspect.ErrNotSetUp, err)
	case errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrNoResponders), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: NATS did not answer; try again, and look at its log if it stays so", err)
	default:
		return err
	}
}

// look connects, and runs what is over within seconds.
func (in *Invocation) look(do func(ctx context.Context, d *deployment) error) error {
	return in.work(func(d *deployment) error {
		ctx, cancel := context.WithTimeout(in.Ctx, answerWithin)
		defer cancel()
		return do(ctx, d)
	})
}

// work connects, and runs what bounds itself.
func (in *Invocation) work(do func(d *deployment) error) error {
	d, err := in.connect()
	if err != nil {
		return err
	}
	defer d.close()
	return explain(do(d))
}
