// Package app composes the services from their parts. It is the only place that sees all of them; the programs, `tributary
// dev` and the tests run what is wired here, each file reading from top to bottom in the order in which data flows.
package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/tributary-dev/tributary/internal/config"
	"github.com/tributary-dev/tributary/internal/telemetry"
	"github.com/tributary-dev/tributary/pkg/actions/circuit"
	"github.com/tributary-dev/tributary/pkg/jobs"
	"github.com/tributary-dev/tributary/pkg/trace"
)

// Version is set by the linker.
var Version = "dev"

// Program is what a main function has from its process.
type Program struct {
	Args    []string // without the program's name
	Environ []string
	Stdout  io.Writer
	Stderr  io.Writer
}

// The exit statuses of every program.
const (
	statusOK     = 0
	statusFailed = 1
	statusUsage  = 2
)

// environment is what every service is given.
type environment struct {
	config   config.Config
	base     *slog.Logger // without the service's name
	log      *slog.Logger
	metrics  *prometheus.Registry
	ready    *telemetry.Ready
	jobs     func() *jobs.Metrics  // of who makes jobs and who runs them, registered by the first
	traces   func() *trace.Metrics // likewise
	circuits func() *circuit.Metrics
	effects  func() *effectMetrics // of who carries effects out
	owner    string                // names the process in leases and records
}

// service is one of the programs: what it is called, what it needs of the configuration, and what it runs.
type service struct {
	name    string
	summary string
	require []string
	load    func(env *environment) error // reads what the configuration names, for --check; nil where it names nothing
	run     func(ctx context.Context, env *environment) error
}

// main runs the service until ctx ends, and gives the exit status.
func (s service) main(ctx context.Context, p Program) int {
	cfg, mode, err := config.Load(config.Request{
		Service: s.name, Args: p.Args, Environ: p.Environ, Require: s.require, Modes: []string{modeCheck, modeReady},
	})
	if errors.Is(err, config.ErrHelp) {
		if err := config.Help(p.Stdout, s.name, s.summary); err != nil {
			return statusFailed
		}
		return statusOK
	}
	switch {
	case err != nil:
	case slices.Contains(mode, modeCheck):
		err = s.check(cfg, p.Stdout, p.Stderr)
	case slices.Contains(mode, modeReady):
		err = s.askReady(ctx, cfg, p.Stdout)
	default:
		err = s.serve(ctx, cfg, p.Stderr)
	}
	return exitStatus(p.Stderr, s.name, err)
}

// exitStatus says what was wrong, once, and gives the status.
func exitStatus(stderr io.Writer, name string, err error) int {
	var usage *config.UsageError
	switch {
	case err == nil:
		return statusOK
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "%s: %v\n", name, err)
		return statusUsage
	default:
		fmt.Fprintf(stderr, "%s: %v\n", name, err)
		return statusFailed
	}
}

// serve runs the service beside its own HTTP server.
func (s service) serve(ctx context.Context, cfg config.Config, stderr io.Writer) error {
	env, err := newEnvironment(s.name, cfg, stderr)
	if err != nil {
		return err
	}
	server, err := env.listen(s.name)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return server.Run(ctx) })
	group.Go(func() error {
		if err := s.run(ctx, env); err != nil {
			return err
		}
		return errEnded
	})
	if err := group.Wait(); !errors.Is(err, errEnded) {
		return err
	}
	return nil
}

func newEnvironment(name string, cfg config.Config, stderr io.Writer) (*environment, error) {
	log, err := telemetry.NewLogger(stderr, cfg.Log.Level, cfg.Log.Format)
	if err != nil {
		return nil, err
	}
	env := &environment{config: cfg, metrics: telemetry.NewRegistry(name, Version), ready: telemetry.NewReady(log)}
	env.jobs = sync.OnceValue(func() *jobs.Metrics { return jobs.NewMetrics(env.metrics) })
	env.traces = sync.OnceValue(func() *trace.Metrics { return trace.NewMetrics(env.metrics) })
	env.circuits = sync.OnceValue(func() *circuit.Metrics { return circuit.NewMetrics(env.metrics) })
	env.effects = sync.OnceValue(func() *effectMetrics { return newEffectMetrics(env.metrics) })
	return env.of(name, log), nil
}

// of is the environment as the service of this name sees it.
func (env *environment) of(name string, log *slog.Logger) *environment {
	its := *env
	its.base, its.log, its.owner = log, log.With("service", name), owner(name)
	return &its
}

// listen takes the address of the service's own HTTP server.
func (env *environment) listen(name string) (*telemetry.Server, error) {
	return telemetry.Listen(telemetry.Options{
		Service: name, Listen: env.config.HTTP.Listen, PProf: env.config.HTTP.PProf, StateDir: env.config.StateDir,
		Registry: env.metrics, Ready: env.ready, Log: env.log,
	})
}

// errEnded ends a service's HTTP server after the service has ended in order.
var errEnded = errors.New("ended")

func owner(service string) string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return strings.Join([]string{service, host, fmt.Sprint(os.Getpid())}, "-")
}
