package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tributary-dev/tributary/internal/inspect"
	"github.com/tributary-dev/tributary/internal/terminal"
	"github.com/tributary-dev/tributary/pkg/deadletter"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/jobs"
)

type statusCommand struct {
	Watch      bool          `help:"Show it again and again, until Ctrl-C."`
	Every      time.Duration `default:"2s" help:"Between two looks, with --watch." placeholder:"DURATION"`
	Partitions bool          `help:"Show every partition, not only those that are behind or without a worker."`
}

// Help is shown below the flags.
func (statusCommand) Help() string {
	return `A source's lag is what its database has written and EVENTS does not hold yet: bytes
of WAL where the configuration names the database and it answers, and the time since
anything of the source was stored (0 where all is).

With -o json: {time, nats, sources[], streams[], workers{members[], partitions[],
pending, in_flight}, jobs{states{}, oldest_due, tickets{}}, dead_letters{total,
reasons{}, oldest}, circuits[], index{}}; sizes in bytes, lags in seconds, LSNs as text. With
--watch one such object a line.

Examples:
  tributary status
  tributary status --config tributary.yaml --watch
  tributary status -o json | jq '.sources[] | {name, lag}'`
}

// Run shows the status.
func (c *statusCommand) Run(in *Invocation) error {
	if !c.Watch {
		return in.look(func(ctx context.Context, d *deployment) error {
			status, err := d.Status(ctx)
			if err != nil {
				return err
			}
			if in.wantsJSON() {
				return in.json(status)
			}
			return c.print(in.text(), status)
		})
	}
	if c.Every < 100*time.Millisecond {
		return usage("--every must be at least 100ms, got %s", c.Every)
	}
	return c.watch(in)
}

// watch shows the status until ctx ends. It connects anew for each look, so NATS may go and come back.
func (c *statusCommand) watch(in *Invocation) error {
	ticker := time.NewTicker(c.Every)
	defer ticker.Stop()
	for {
		if err := c.frame(in); err != nil {
			return err
		}
		select {
		case <-in.Ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (c *statusCommand) frame(in *Invocation) error {
	var status *inspect.Status
	err := in.look(func(ctx context.Context, d *deployment) (err error) {
		status, err = d.Status(ctx)
		return err
	})
	if in.Ctx.Err() != nil {
		return nil
	}
	if in.wantsJSON() {
		if err != nil {
			return json.NewEncoder(in.Stdout).Encode(map[string]any{"time": in.Now().UTC(), "error": err.Error()})
		}
		return json.NewEncoder(in.Stdout).Encode(status)
	}
	p := in.text()
	if terminal.Is(in.Stdout) {
		p.line("\x1b[H\x1b[2J\x1b[3J")
	}
	if err != nil {
		p.line("%s: %s", stamp(p.now), clean(err.Error()))
		return p.err
	}
	defer p.line("")
	return c.print(p, status)
}

func (c *statusCommand) print(p *printer, s *inspect.Status) error {
	where := s.NATS.URL
	if s.NATS.Cluster != "" {
		where += " of cluster " + s.NATS.Cluster
	}
	p.line("%s  NATS %s at %s", stamp(s.Time), s.NATS.Version, clean(where))
	p.line("")
	printSources(p, s.Sources)
	printStreams(p, s.Streams)
	c.printWorkers(p, s.Workers)
	printOpenCircuits(p, s.Circuits)
	printJobs(p, s.Jobs)
	printDeadLetters(p, s.DeadLetters)
	if s.Index != nil {
		p.line("INDEX         %d pending, %d in flight%s", s.Index.Pending, s.Index.InFlight, lagText(*s.Index))
	}
	return p.err
}

func printSources(p *printer, sources []inspect.Source) {
	if len(sources) == 0 {
		p.line("No source was ever read: start ingest.")
		p.line("")
		return
	}
	var rows [][]string
	for _, s := range sources {
		stored := s.Stored.String()
		if s.Name == events.InboxSource {
			stored = fmt.Sprintf("message %d", max(s.Stored, 1)-1)
		}
		phase := string(s.Phase)
		switch {
		case phase == "" && s.Name == events.InboxSource:
			phase, stored = "empty", "-"
		case phase == "":
			phase, stored = "never read", "-"
		}
		leader := s.Leader
		if leader == "" {
			leader = "nobody"
		}
		rows = append(rows, []string{s.Name, leader, strconv.FormatUint(s.Epoch, 10), phase, stored, lag(s.Lag)})
	}
	p.table([]column{{title: "SOURCE", cut: true}, {title: "LEADER", cut: true}, {title: "EPOCH", right: true}, {title: "PHASE"},
		{title: "STORED"}, {title: "LAG"}}, rows)
	for _, s := range sources {
		for _, reading := range s.Reading {
			p.line("  %s: reading %s", s.Name, progressLine(reading))
		}
		printSession(p, s)
		printDatabase(p, s)
	}
	p.line("")
}

// printSession tells what the leader told, where there is anything to tell.
func printSession(p *printer, s inspect.Source) {
	switch l := s.Session; {
	case l == nil:
	case l.Error != "":
		p.line("  %s: the leader does not tell how it stands: %s", s.Name, clean(l.Error))
	default:
		waiting := "all that was read is stored"
		if l.UnpublishedEvents > 0 || l.UnpublishedBytes > 0 {
			waiting = fmt.Sprintf("%s (%s) read and not stored, %d of them in flight", count(l.UnpublishedEvents, "event", "events"),
				size(int64(l.UnpublishedBytes)), l.InFlightEvents)
		}
		if l.HeartbeatSeconds != nil {
			waiting += fmt.Sprintf("; a heartbeat takes %v", time.Duration(*l.HeartbeatSeconds*float64(time.Second)).Round(10*time.Microsecond))
		}
		p.line("  %s: %s", s.Name, waiting)
		if l.Trouble != "" {
			p.paragraph("  "+strings.Repeat(" ", len(s.Name)+2), clean(l.Trouble))
		}
	}
}

func printDatabase(p *printer, s inspect.Source) {
	d := s.Database
	switch {
	case d == nil:
	case d.Error != "":
		p.line("  %s: the database does not answer: %s", s.Name, clean(d.Error))
	case !d.Slot:
		p.line("  %s: WAL is at %s; there is no slot", s.Name, d.Flushed)
	default:
		reader := "read"
		if !d.Active {
			reader = "not read"
		}
		p.line("  %s: WAL is at %s, confirmed to %s; the slot keeps %s,", s.Name, d.Flushed, d.Confirmed, size(d.Retained))
		p.line("  %*s  of which %s are stored; it is %s, %s%s", len(s.Name), "", size(d.Unconfirmed), reader, d.WALStatus, safeText(d.Safe))
	}
	if m := s.Mirror; m != nil && (m.Saved || m.Says != "" || m.Error != "") {
		p.paragraph("  "+strings.Repeat(" ", len(s.Name)+2), mirrorText(p, m))
	}
}

// safeText tells how much may be written until the slot is in danger.
func safeText(safe *int64) string {
	if safe == nil {
		return ""
	}
	return ", and may be lost when " + size(*safe) + " more are written"
}

// mirrorText tells what the mirror knows.
func mirrorText(p *printer, m *inspect.Mirror) string {
	switch {
	case m.Error != "":
		return "the mirror can't be read: " + clean(m.Error)
	case !m.Saved:
		return "mirror: " + m.Says
	case m.Says != "":
		return fmt.Sprintf("mirrored to %s, %s: %s", m.Stored, p.ago(m.At), m.Says)
	default:
		return fmt.Sprintf("mirrored to %s, %s, %s behind", m.Stored, p.ago(m.At), size(m.Behind))
	}
}

func lag(l inspect.Lag) string {
	var parts []string
	if l.Messages != nil {
		parts = append(parts, count(int(*l.Messages), "message", "messages"))
	}
	if l.Bytes != nil {
		parts = append(parts, size(*l.Bytes))
	}
	if l.Seconds != nil {
		parts = append(parts, secondsText(*l.Seconds))
	}
	if len(parts) == 0 {
		return "-"
	}
	return strings.Join(parts, ", ")
}

func secondsText(seconds float64) string {
	if seconds == 0 {
		return "0s"
	}
	return duration(time.Duration(seconds * float64(time.Second)))
}

func printStreams(p *printer, streams []inspect.Stream) {
	var rows [][]string
	for _, s := range streams {
		limit := "-"
		if s.MaxBytes > 0 {
			limit = size(s.MaxBytes)
		}
		replicas := ""
		if s.Replicas > 1 {
			replicas = fmt.Sprintf("R%d", s.Replicas)
			if bad := s.Behind + s.Offline; bad > 0 {
				replicas += fmt.Sprintf(", %d not current", bad)
			}
		}
		rows = append(rows, []string{s.Name, strconv.FormatUint(s.Messages, 10), size(int64(s.Bytes)), limit, p.age(s.First), p.age(s.Last), replicas})
	}
	p.table([]column{{title: "STREAM"}, {title: "MESSAGES", right: true}, {title: "SIZE", right: true}, {title: "LIMIT", right: true},
		{title: "OLDEST", right: true}, {title: "NEWEST", right: true}, {title: ""}}, rows)
	p.line("")
}

func (c *statusCommand) printWorkers(p *printer, w inspect.Workers) {
	if len(w.Members) == 0 {
		p.line("No worker lives: start worker.")
	}
	var rows [][]string
	for _, m := range w.Members {
		state := ranges(m.Partitions)
		if m.Leaving {
			state += " (leaving)"
		}
		rows = append(rows, []string{m.ID, p.age(m.Started), strconv.Itoa(m.InFlight), state})
	}
	p.table([]column{{title: "WORKER", cut: true}, {title: "UP", right: true}, {title: "EFFECTS", right: true}, {title: "PARTITIONS", cut: true}}, rows)
	if len(w.Partitions) > 0 {
		p.line("%s: %d events pending, %d in flight", count(len(w.Partitions), "partition", "partitions"), w.Pending, w.InFlight)
	}
	rows = nil
	for _, part := range w.Partitions {
		if !c.Partitions && part.Worker != "" && part.Pending == 0 && part.InFlight == 0 {
			continue
		}
		if !c.Partitions && part.Worker == "" && len(w.Members) == 0 && part.Pending == 0 && part.InFlight == 0 {
			continue
		}
		name := part.Worker
		if name == "" {
			name = "nobody"
		}
		pin := ""
		if part.Pinned {
			pin = "yes"
		}
		rows = append(rows, []string{strconv.Itoa(part.Partition), strconv.FormatUint(part.Pending, 10), strconv.Itoa(part.InFlight),
			secondsText(part.LagSecond), pin, name})
	}
	p.table([]column{{title: "PARTITION", right: true}, {title: "PENDING", right: true}, {title: "IN FLIGHT", right: true},
		{title: "LAG", right: true}, {title: "PINNED"}, {title: "WORKER", cut: true}}, rows)
	p.line("")
}

func lagText(c inspect.Consumer) string {
	if c.LagSecond == 0 {
		return ""
	}
	return ", the oldest " + secondsText(c.LagSecond) + " ago"
}

func printJobs(p *printer, j inspect.JobCounts) {
	var parts []string
	for _, state := range jobs.States() {
		parts = append(parts, fmt.Sprintf("%d %s", j.States[state], state))
	}
	p.line("JOBS          %s", strings.Join(parts[:4], ", ")+",")
	p.line("              %s", strings.Join(parts[4:], ", "))
	if !j.Complete {
		p.line("              at least: there are more than could be counted in time")
	}
	if j.Unreadable > 0 {
		p.line("              %d can't be read", j.Unreadable)
	}
	if !j.OldestDue.IsZero() && j.OldestDue.Before(p.now.Add(-time.Minute)) {
		p.line("              the oldest has been due since %s; does a jobrunner run?", p.when(j.OldestDue))
	}
}

func printDeadLetters(p *printer, d inspect.DeadLetters) {
	if d.Total == 0 {
		p.line("DEAD LETTERS  none")
		return
	}
	var parts []string
	for _, reason := range deadletter.Reasons() {
		if n := d.Reasons[reason]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, reason))
		}
	}
	p.line("DEAD LETTERS  %s", strings.Join(parts, ", "))
	p.line("              the oldest is of %s: tributary dlq list", p.when(d.Oldest))
}
