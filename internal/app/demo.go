package app

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/internal/config"
	"github.com/tributary-dev/tributary/internal/demo"
	"github.com/tributary-dev/tributary/internal/generations"
	"github.com/tributary-dev/tributary/internal/telemetry"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/indexer"
	"github.com/tributary-dev/tributary/pkg/observers"
)

// exhibition is what `tributary dev --demo` adds: a shop, receivers, and figures that a person can follow.
type exhibition struct {
	shop      *demo.Shop
	receivers *demo.Receivers
	board     *board
	command   string // how this program was called
	began     time.Time
	last      figures
}

// figures are what the exhibition shows.
type figures struct {
	flow
	demo.Figures

	rows, found int
	sequence    uint64 // of the last event
	health      string
}

// prepareDemo makes sure that the demo gets what it needs, and touches nothing else.
func prepareDemo(cfg *config.Config, opts devOptions) error {
	if opts.Dir != "" || cfg.NATS.URL != "" || len(cfg.Sources) > 0 || cfg.Observers != "" {
		return &config.UsageError{Message: "--demo brings NATS, a source and observers of its own and leaves nothing behind: " +
			"leave out --dir, nats.url, sources and observers"}
	}
	if cfg.Log.Level == "info" {
		cfg.Log.Level = "error" // the figures say what goes on
	}
	loopback := netip.MustParsePrefix("127.0.0.0/8") // where the receivers are
	cfg.Actions.AllowPrivate = append(cfg.Actions.AllowPrivate, loopback)
	return nil
}

// openShop makes the shop, and starts its receivers.
func (d *development) openShop(ctx context.Context) error {
	source := &d.env.config.Sources[0]
	url, err := source.Postgres.Resolve()
	if err != nil {
		return fmt.Errorf("--postgres %w", err)
	}
	shop, err := demo.Open(ctx, url)
	if errors.Is(err, demo.ErrNotEmpty) {
		return fmt.Errorf("%w: --demo needs an empty one; make it with createdb, or leave out --postgres", err)
	}
	if err != nil {
		return err
	}
	if d.opts.Postgres != "" {
		d.atEnd("the tables of the demo stay", shop.Close)
	}
	receivers, err := demo.Listen()
	if err != nil {
		return err
	}
	receiving, stop := context.WithCancel(context.WithoutCancel(ctx))
	received := make(chan error, 1)
	go func() { received <- receivers.Run(receiving) }()
	d.atEnd("the receivers of webhooks", func(context.Context) error {
		stop()
		return <-received
	})
	if err := d.applyRules(ctx, receivers.URL()); err != nil {
		return err
	}
	d.demo = &exhibition{
		shop: shop, receivers: receivers, board: d.board, command: calledAs(), began: d.began,
	}
	d.say("Webhooks    %s", receivers.URL())
	d.say("            /warehouse takes all, /carrier turns some away, /accounting is broken")
	d.say("Rules       %s observers list", d.demo.command)
	d.say("\nCustomers order. In another terminal, try the commands on the right. Ctrl-C ends\nit, and nothing stays.")
	if d.opts.NATSPort != nats.DefaultPort {
		d.say("To find this run, the commands need --nats.url %s", d.env.config.NATS.URL)
	}
	d.say("")
	return nil
}

// applyRules puts the rules of the demo in force, so that every command knows them.
func (d *development) applyRules(ctx context.Context, receivers string) error {
	rules, err := observers.Parse("the rules of the demo", demo.Observers(receivers))
	if err != nil {
		return err
	}
	road, err := openRoad(ctx, d.env)
	if err != nil {
		return err
	}
	defer road.nc.Close()
	if _, _, err := generations.Open(road.js).Apply(ctx, rules, "tributary dev --demo"); err != nil {
		return fmt.Errorf("put the rules of the demo in force: %w", err)
	}
	return nil
}

// calledAs is how a person calls this program again.
func calledAs() string {
	called := os.Args[0]
	if strings.Contains(called, string(filepath.Separator)+"go-build") { // it was started by go run
		return "go run ./cmd/tributary"
	}
	if inPath, err := exec.LookPath(filepath.Base(called)); err == nil && inPath == called {
		return filepath.Base(called)
	}
	return called
}

// sell opens the shop to customers once all services do their jobs, and lets them order until ctx ends.
func (x *exhibition) sell(ctx context.Context, env *environment) error {
	for {
		if _, ready := env.ready.Conditions(); ready {
			return x.shop.Run(ctx, env.config.Sources[0].Slot)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// run shows the figures until ctx ends.
func (x *exhibition) run(ctx context.Context, env *environment) error {
	nc, err := connect(ctx, env)
	if err != nil {
		return unlessEnded(ctx, err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return fmt.Errorf("use JetStream: %w", err)
	}
	for ctx.Err() == nil {
		now, err := x.read(ctx, env, js)
		if err != nil {
			return err
		}
		x.tell(now)
		x.last = now
		if now.rows > 0 && now.stored > 0 {
			x.board.show(time.Now(), x.lines(now))
		}
		wait := time.NewTimer(500 * time.Millisecond)
		select {
		case <-ctx.Done():
		case <-wait.C:
		}
		wait.Stop()
	}
	return nil
}

// read gathers the figures. What NATS does not answer keeps its last figure.
func (x *exhibition) read(ctx context.Context, env *environment, js jetstream.JetStream) (figures, error) {
	families, err := env.metrics.Gather()
	if err != nil {
		return figures{}, fmt.Errorf("read the metrics: %w", err)
	}
	now := figures{
		flow: readFlow(families), Figures: x.receivers.Figures(), rows: x.shop.Rows(), found: x.last.found, sequence: x.last.sequence,
		health: healthOf(env.ready),
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if result, err := indexer.Search(ctx, js.Conn(), indexer.Query{Text: "shipped"}); err == nil {
		now.found = result.Total
	}
	stream, err := js.Stream(ctx, events.StreamEvents)
	if err != nil {
		return now, nil
	}
	if last, err := stream.GetLastMsgForSubject(ctx, events.EventsOfSource(demo.Source)); err == nil {
		now.sequence = last.Sequence
	}
	return now, nil
}

// healthOf says in a few words whether all services do their jobs.
func healthOf(ready *telemetry.Ready) string {
	conditions, well := ready.Conditions()
	if well {
		return "all of them do their jobs"
	}
	for _, c := range conditions {
		if !c.OK {
			return fmt.Sprintf("%.33s", c.Name+": "+c.Why)
		}
	}
	return "starting"
}

// tell says what is there for the first time.
func (x *exhibition) tell(now figures) {
	for _, first := range []struct {
		before, now int
		what        string
	}{
		{x.last.Taken, now.Taken, fmt.Sprintf("the first webhooks are delivered, %v after their commit", now.Half.Round(100*time.Microsecond))},
		{x.last.Refused, now.Refused, "the carrier has turned an order away (503): it is tried again"},
		{x.last.Again, now.Again, "the carrier has taken at the next attempt what it turned away"},
		{int(x.last.dead), int(now.dead), "the accounting has failed three times (500): its order is a dead letter"},
		{x.last.found, now.found, "events are in the index, and can be searched"},
	} {
		if first.before == 0 && first.now > 0 {
			x.board.say("  %4.1f s  %s", time.Since(x.began).Seconds(), first.what)
		}
	}
}

// lines are the figures in words, each with the command that shows more.
func (x *exhibition) lines(now figures) []string {
	rows := []struct{ what, figures, command string }{
		{"rows", fmt.Sprintf("%d changed, %.0f events stored", now.rows, now.stored), "events list"},
		{"webhooks", fmt.Sprintf("%d delivered, half within %v", now.Taken, now.Half.Round(100*time.Microsecond)), fmt.Sprintf("events explain %d", now.sequence)},
		{"retries", fmt.Sprintf("%d turned away, %d delivered since", now.Refused, now.Again), "jobs list"},
		{"dead letters", fmt.Sprintf("%.0f", now.dead), "dlq list"},
		{"search", fmt.Sprintf("%d events say shipped", now.found), "search shipped"},
		{"services", now.health, "status"},
	}
	lines := make([]string, len(rows))
	for i, row := range rows {
		lines[i] = fmt.Sprintf("  %-13s %-33s %s %s", row.what, row.figures, x.command, row.command)
	}
	return lines
}

// sumUp says what it all came to.
func (x *exhibition) sumUp() {
	f := x.last
	x.board.say("\nIn %.0f s, %d changed rows became %.0f events and %d webhooks: %d of them at a later attempt. "+
		"Dead letters: %.0f. Events that search finds: %d.",
		time.Since(x.began).Seconds(), f.rows, f.stored, f.Taken, f.Again, f.dead, f.found)
}
