package cli

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/tributary-dev/tributary/internal/inspect"
	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/actions/circuit"
)

type circuitsCommand struct {
	List  circuitsListCommand  `cmd:"" help:"List circuits that are open, and what waits for them."`
	Open  circuitsOpenCommand  `cmd:"" help:"Let nothing be called at an endpoint, for a while or until reset."`
	Reset circuitsResetCommand `cmd:"" help:"Close circuits: what waits for them goes on."`
}

type circuitsListCommand struct {
	All bool `help:"Also those that were closed within the last hour."`
}

// Help is shown below the flags.
func (circuitsListCommand) Help() string {
	return `There is one circuit for each endpoint (scheme://host:port), or for each name that actions
share (circuit: NAME). It opens when more than half of at least 20 calls within 30 s have failed;
then effects wait, uncharged, until a few probes have succeeded. WAITING is about how many effects
are parked in EVENTS; jobs that wait are in tributary jobs list.

With -o json: a list of {name, state, forced, opened, until, by, changed, parked, parked_since,
parked_ranges[{partition, observer, action, circuit, from, events, since, worker}]}.

Examples:
  tributary circuits list
  tributary circuits list --all -o json`
}

// Run lists circuits.
func (c *circuitsListCommand) Run(in *Invocation) error {
	return in.look(func(ctx context.Context, d *deployment) error {
		all, err := d.Circuits(ctx)
		if err != nil {
			return err
		}
		list := []inspect.Circuit{}
		for _, one := range all {
			if c.All || one.State != circuit.Closed || len(one.Ranges) > 0 {
				list = append(list, one)
			}
		}
		if in.wantsJSON() {
			return in.json(list)
		}
		p := in.text()
		if len(list) == 0 {
			p.line("Every circuit is closed.")
		}
		printCircuits(p, list)
		return p.err
	})
}

func printCircuits(p *printer, list []inspect.Circuit) {
	var rows [][]string
	for _, c := range list {
		waiting, oldest := "", ""
		if len(c.Ranges) > 0 {
			waiting, oldest = strconv.Itoa(c.Parked), p.age(c.Oldest)
		}
		rows = append(rows, []string{c.Name, circuitState(p, c), p.age(c.Opened), waiting, oldest})
	}
	p.table([]column{{title: "CIRCUIT", cut: true}, {title: "STATE"}, {title: "SINCE", right: true}, {title: "WAITING", right: true},
		{title: "OLDEST", right: true}}, rows)
}

// circuitState says how a circuit stands, and what comes next.
func circuitState(p *printer, c inspect.Circuit) string {
	switch {
	case c.State == circuit.Closed && len(c.Ranges) > 0:
		return "closed, draining"
	case c.Forced && c.Until.IsZero():
		return "open, forced"
	case c.Forced && c.Until.After(p.now):
		return "open, forced for " + duration(c.Until.Sub(p.now))
	case c.State == circuit.Open && c.Until.After(p.now):
		return "open, probed in " + duration(c.Until.Sub(p.now))
	case c.State == circuit.Open:
		return "open, to be probed"
	default:
		return string(c.State)
	}
}

type circuitsOpenCommand struct {
	Name string        `arg:"" help:"The endpoint, as scheme://host:port, or the name that actions share."`
	For  time.Duration `help:"For so long; it is probed then. Until it is reset if it is not given." placeholder:"DURATION"`
}

// Help is shown below the flags.
func (circuitsOpenCommand) Help() string {
	return `Every worker and jobrunner hears of it at once. What is under way ends; what comes waits, and
becomes a dead letter after circuits.park_max_age. Say this before an endpoint's maintenance.

With -o json: {name, state, forced, until}.

Examples:
  tributary circuits open https://carrier.example:443 --for 30m
  tributary circuits open carrier`
}

// Run opens a circuit.
func (c *circuitsOpenCommand) Run(in *Invocation) error {
	if err := checkCircuit(c.Name); err != nil {
		return err
	}
	if c.For < 0 {
		return usage("--for must be at least 0s, got %s", c.For)
	}
	return in.look(func(ctx context.Context, d *deployment) error {
		if err := d.ForceCircuit(ctx, c.Name, whoIsThis(), c.For); err != nil {
			return err
		}
		until := time.Time{}
		if c.For > 0 {
			until = in.Now().Add(c.For).UTC()
		}
		if in.wantsJSON() {
			return in.json(struct {
				Name   string        `json:"name"`
				State  circuit.State `json:"state"`
				Forced bool          `json:"forced"`
				Until  time.Time     `json:"until,omitzero"`
			}{c.Name, circuit.Open, true, until})
		}
		p := in.text()
		if c.For > 0 {
			p.line("%s is open for %s.", c.Name, c.For)
		} else {
			p.line("%s is open until it is reset.", c.Name)
		}
		return p.err
	})
}

// checkCircuit refuses what can't be a circuit's name: an endpoint has its port always.
func checkCircuit(name string) error {
	if !strings.Contains(name, "://") {
		return nil
	}
	u, err := url.Parse(name)
	switch {
	case err != nil || u.Hostname() == "":
		return usage("an endpoint is scheme://host:port, got %q", name)
	case u.Port() == "" || u.Path != "" || u.RawQuery != "" || u.User != nil:
		whole, _ := actions.EndpointOf(u)
		return usage("an endpoint is scheme://host:port and no more: write %s", whole)
	case name != strings.ToLower(name):
		return usage("an endpoint is in small letters: write %s", strings.ToLower(name))
	default:
		return nil
	}
}

type circuitsResetCommand struct {
	Names []string `arg:"" name:"name" optional:"" help:"Endpoints, as scheme://host:port, or names that actions share."`
	All   bool     `help:"Every circuit that is not closed."`
}

// Help is shown below the flags.
func (circuitsResetCommand) Help() string {
	return `What waits for them goes on at once, in order and with a ramp. Where the endpoint still fails, what
is called becomes jobs, as always, until the circuit opens again.

With -o json: a list of {name, state}.

Examples:
  tributary circuits reset https://carrier.example:443
  tributary circuits reset --all`
}

// Run closes circuits.
func (c *circuitsResetCommand) Run(in *Invocation) error {
	if c.All == (len(c.Names) > 0) {
		return usage("name circuits, or give --all")
	}
	for _, name := range c.Names {
		if err := checkCircuit(name); err != nil {
			return err
		}
	}
	return in.look(func(ctx context.Context, d *deployment) error {
		names := c.Names
		if c.All {
			list, err := d.Circuits(ctx)
			if err != nil {
				return err
			}
			for _, one := range list {
				if one.State != circuit.Closed {
					names = append(names, one.Name)
				}
			}
		}
		type closed struct {
			Name  string        `json:"name"`
			State circuit.State `json:"state"`
		}
		done := []closed{}
		for _, name := range names {
			if err := d.ResetCircuit(ctx, name, whoIsThis()); err != nil {
				return err
			}
			done = append(done, closed{name, circuit.Closed})
		}
		if in.wantsJSON() {
			return in.json(done)
		}
		p := in.text()
		if len(done) == 0 {
			p.line("Every circuit is closed.")
		}
		for _, one := range done {
			p.line("%s is closed.", one.Name)
		}
		return p.err
	})
}

// printOpenCircuits is the part of status that tells of circuits, where one is open or drains.
func printOpenCircuits(p *printer, list []inspect.Circuit) {
	var open []inspect.Circuit
	for _, c := range list {
		if c.State != circuit.Closed || len(c.Ranges) > 0 {
			open = append(open, c)
		}
	}
	if len(open) == 0 {
		return
	}
	printCircuits(p, open)
	p.line("%s", fmt.Sprintf("%s: tributary circuits list", count(len(open), "circuit is open or drains", "circuits are open or drain")))
	p.line("")
}
