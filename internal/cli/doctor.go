package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/internal/inspect"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/indexer"
	"github.com/tributary-dev/tributary/pkg/observers"
	"github.com/tributary-dev/tributary/streams"
)

type doctorCommand struct {
	rulesFlag
	Quiet bool `short:"q" help:"Show only what is not ok."`
}

// Help is shown below the flags.
func (doctorCommand) Help() string {
	return `It looks at the configuration and the observers; at NATS, its version, JetStream, the streams against
their settings, who leads and who works; and at each source's PostgreSQL: version, wal_level, rights,
slot, position, publication, replica identities (FULL where an observer uses changed()), and the WAL that is
kept. It changes nothing. Exit status 1 if a check failed, 0 if there are warnings only.

With -o json: {checks[{area, check, result, detail, remedy}], failed, warnings}; result is ok, warn
or fail.

Examples:
  tributary doctor --config tributary.yaml
  tributary doctor --config tributary.yaml -o json | jq '.checks[] | select(.result != "ok")'`
}

// result is how a check ended.
type result string

const (
	passes result = "ok"
	warns  result = "warn"
	fails  result = "fail"
)

// check is one thing that was looked at.
type check struct {
	Area   string `json:"area"` // config, observers, nats, stream EVENTS, source shop, …
	Check  string `json:"check"`
	Result result `json:"result"`
	Detail string `json:"detail"`
	Remedy string `json:"remedy,omitempty"`
}

// examination collects checks.
type examination struct {
	in     *Invocation
	rules  *observers.Set // nil where they can't be had
	checks []check
}

func (x *examination) add(area, name string, r result, remedy, format string, args ...any) {
	x.checks = append(x.checks, check{area, name, r, fmt.Sprintf(format, args...), remedy})
}

// errUnhealthy is the error of an examination in which something failed; the checks have been shown.
var errUnhealthy = errors.New("not all is well")

// Run examines a deployment.
func (c *doctorCommand) Run(in *Invocation) error {
	x := &examination{in: in}
	x.config()
	d, err := in.connect()
	if err != nil {
		x.add("nats", "connection", fails, "start NATS, or correct nats.url", "%v", err)
		d = nil
	} else {
		defer d.close()
		ctx, cancel := context.WithTimeout(in.Ctx, answerWithin)
		defer cancel()
		x.nats(ctx, d)
	}
	for _, source := range in.Config.Sources {
		x.postgres(in.Ctx, d, source)
	}
	return x.report(c.Quiet)
}

func (x *examination) config() {
	c := &x.in.Config
	switch {
	case len(c.Sources) == 0:
		x.add("config", "sources", warns, "give --config the services' file, so that their databases are checked too", "no source is configured here")
	default:
		x.add("config", "sources", passes, "", "%s", count(len(c.Sources), "source", "sources"))
	}
	set, err := x.in.observers()
	if err != nil {
		r, remedy := fails, "correct the file; tributary observers validate shows it again"
		if c.Observers == "" {
			r, remedy = warns, "name them in the key observers, or with --observers FILE, or apply some"
		}
		x.add("observers", "load", r, remedy, "%v", err)
		return
	}
	x.rules = set
	x.add("observers", "load", passes, "", "%s, generation %s", count(len(set.Observers()), "observer", "observers"), set.Generation())
}

func (x *examination) nats(ctx context.Context, d *deployment) {
	version := d.nc.ConnectedServerVersion()
	if err := streams.CheckVersion(version); err != nil {
		x.add("nats", "version", fails, "upgrade the server", "%v", err)
	} else {
		x.add("nats", "version", passes, "", "%s at %s", version, d.nc.ConnectedUrlRedacted())
	}
	if _, err := d.JS.AccountInfo(ctx); err != nil {
		x.add("nats", "jetstream", fails, "start the server with JetStream (nats-server -js), or enable it for the account", "%v", err)
		return
	}
	x.add("nats", "jetstream", passes, "", "enabled, max_payload %s", size(d.nc.MaxPayload()))
	if !x.streams(ctx, d) {
		return
	}
	status, err := d.Status(ctx)
	if err != nil {
		x.add("nats", "status", fails, "try again, and look at the server's log", "%v", explain(err))
		return
	}
	x.sources(status)
	x.work(status)
	x.index(ctx, d, status)
}

// index checks that events become searchable, where that was ever asked for.
func (x *examination) index(ctx context.Context, d *deployment, status *inspect.Status) {
	if status.Index == nil {
		x.add("index", "indexer", passes, "", "none has ever run")
		return
	}
	const tooLate = 300 // seconds
	info, err := indexer.Describe(ctx, d.nc)
	switch {
	case err != nil:
		x.add("index", "indexer", warns, "start indexer, or look at its log", "%v", err)
	case info.Identity != "" && info.Identity != status.Index.Index:
		x.add("index", "identity", fails, "let all indexers have the same index: stop this one, or start it again to fill its index from the beginning of EVENTS",
			"events are indexed for %s, and who answers has %s", cmp.Or(status.Index.Index, "an index that is not known"), info.Identity)
	case status.Index.LagSecond > tooLate:
		x.add("index", "lag", warns, "look at the indexer's log", "%d events are not indexed%s", status.Index.Pending, lagText(*status.Index))
	default:
		x.add("index", "indexer", passes, "", "%s holds %d documents, %d events to come", indexName(info), info.Documents, info.Lag)
	}
}

// indexName is the product and its version, and which index of it.
func indexName(info indexer.Info) string {
	name := strings.TrimSpace(info.Backend + " " + info.Version)
	if info.Identity != "" {
		name += " (" + info.Identity + ")"
	}
	return name
}

// streams compares what is there with the settings. It says no where nothing more can be asked.
func (x *examination) streams(ctx context.Context, d *deployment) (complete bool) {
	c := &x.in.Config
	findings, err := streams.Check(ctx, d.JS, streams.Options{
		Replicas: c.NATS.Replicas, EventsMaxBytes: int64(c.Events.MaxBytes), EventsMaxAge: c.Events.MaxAge,
		TracesMaxBytes: int64(c.Traces.MaxBytes), TracesMaxAge: c.Traces.MaxAge,
	})
	if err != nil {
		x.add("nats", "streams", fails, "correct the configuration", "%v", explain(err))
		return false
	}
	complete = true
	sound := 0
	for _, f := range findings {
		area := "stream " + f.Stream
		if f.Info == nil {
			complete = false
			x.add(area, "exists", fails, "start a service (ingest, worker, jobrunner): each makes what is missing", "it is not there")
			continue
		}
		for _, text := range f.Fixed {
			x.add(area, "settings", fails, "back it up if it matters, remove it with `nats stream rm "+f.Stream+"`, and start a service", "%s", text)
		}
		for _, text := range f.Differences {
			x.add(area, "settings", warns, "the next start of a service sets it", "%s", text)
		}
		if len(f.Fixed)+len(f.Differences) == 0 {
			sound++
		}
		x.room(area, f.Info)
	}
	x.add("nats", "streams", passes, "", "%d of %d are there as they should be", sound, len(findings))
	return complete
}

// room checks how full a stream is, and its replicas.
func (x *examination) room(area string, info *jetstream.StreamInfo) {
	const percent, full, filling = 100, 95, 85
	if most := info.Config.MaxBytes; most > 0 {
		used := float64(info.State.Bytes) / float64(most) * percent
		const remedy = "find what is behind (tributary status), or give it more: events.max_bytes for EVENTS"
		switch {
		case used >= full:
			x.add(area, "room", fails, remedy, "%.0f %% of %s are full: nothing more is taken soon", used, size(most))
		case used >= filling:
			x.add(area, "room", warns, remedy, "%.0f %% of %s are full", used, size(most))
		}
	}
	if info.Cluster == nil {
		return
	}
	if info.Cluster.Leader == "" {
		x.add(area, "replicas", fails, "bring the servers of the cluster back", "it has no leader")
	}
	for _, replica := range info.Cluster.Replicas {
		switch {
		case replica.Offline:
			x.add(area, "replicas", warns, "bring the server back", "server %s is away", replica.Name)
		case !replica.Current:
			x.add(area, "replicas", warns, "wait; look at the server's log if it stays so", "server %s is behind", replica.Name)
		}
	}
}

// sources checks that each is read.
func (x *examination) sources(status *inspect.Status) {
	for _, s := range status.Sources {
		area := "source " + s.Name
		switch {
		case s.Leader == "":
			x.add(area, "leader", warns, "start ingest with a configuration that names it", "nobody reads it")
		case s.Phase == "" && s.Name != events.InboxSource:
			x.add(area, "leader", warns, "look at ingest's log", "%s leads, but nothing was ever stored", s.Leader)
		default:
			x.add(area, "leader", passes, "", "%s leads, epoch %d, lag %s", s.Leader, s.Epoch, lag(s.Lag))
		}
		if s.Mirror != nil {
			x.mirror(area, &s)
		}
	}
}

// mirror checks that the source's own database follows its position, and tells what it explains where it does not.
func (x *examination) mirror(area string, s *inspect.Source) {
	const (
		check = "mirror"
		look  = "tributary checkpoint history %s tells who changed what; ingest goes by EVENTS, and says so where it refuses to"
	)
	p, m := x.in.text(), s.Mirror
	switch {
	case m.Error != "":
		x.add(area, check, warns, "grant what is missing, or set ingest.checkpoints to false", "%s", mirrorText(p, m))
	case m.Says != "" && !m.Saved:
		x.add(area, check, warns, "look at ingest's log: its role may not be allowed to write to schema tributary", "%s", m.Says)
	case m.Says != "":
		x.add(area, check, warns, fmt.Sprintf(look, s.Name), "%s", mirrorText(p, m))
	case !m.Saved:
		x.add(area, check, passes, "", "nothing to mirror yet")
	case s.Leader != "" && m.Late(p.now):
		x.add(area, check, warns, "look at ingest's log, and at tributary_ingest_mirror_failures_total", "it does not follow: %s", mirrorText(p, m))
	default:
		x.add(area, check, passes, "", "%s", mirrorText(p, m))
	}
}

// work checks that events, jobs and dead letters are taken care of.
func (x *examination) work(s *inspect.Status) {
	const tooLate = time.Minute
	p := x.in.text()
	if len(s.Workers.Members) == 0 {
		x.add("workers", "members", warns, "start worker", "none lives, and %d events wait", s.Workers.Pending)
	} else {
		x.add("workers", "members", passes, "", "%s, %d events pending", count(len(s.Workers.Members), "worker", "workers"), s.Workers.Pending)
	}
	for _, part := range s.Workers.Partitions {
		if part.Worker == "" && len(s.Workers.Members) > 0 {
			x.add("workers", "partitions", warns, "look again in some seconds; restart a worker if it stays so", "nobody works on partition %d", part.Partition)
		}
	}
	if due := s.Jobs.OldestDue; !due.IsZero() && p.now.Sub(due) > tooLate {
		x.add("jobs", "due", warns, "start jobrunner, or more of them", "the oldest has been due since %s", p.when(due))
	} else {
		x.add("jobs", "due", passes, "", "none is overdue")
	}
	if s.Jobs.Unreadable > 0 {
		x.add("jobs", "records", warns, "run the version that wrote them", "%d can't be read by this version", s.Jobs.Unreadable)
	}
	if s.DeadLetters.Total > 0 {
		x.add("dead letters", "count", warns, "look at them with tributary dlq list, then retry or remove them", "%d, the oldest of %s",
			s.DeadLetters.Total, p.when(s.DeadLetters.Oldest))
	} else {
		x.add("dead letters", "count", passes, "", "none")
	}
}

func (x *examination) report(quiet bool) error {
	failed, warnings := 0, 0
	for _, c := range x.checks {
		switch c.Result {
		case fails:
			failed++
		case warns:
			warnings++
		case passes:
		}
	}
	if x.in.wantsJSON() {
		if err := x.in.json(map[string]any{"checks": x.checks, "failed": failed, "warnings": warnings}); err != nil {
			return err
		}
	} else if err := x.print(quiet, failed, warnings); err != nil {
		return err
	}
	if failed > 0 {
		return fmt.Errorf("%w: %s failed", errUnhealthy, count(failed, "check", "checks"))
	}
	return nil
}

func (x *examination) print(quiet bool, failed, warnings int) error {
	p := x.in.text()
	for _, c := range x.checks {
		if quiet && c.Result == passes {
			continue
		}
		p.hang(fmt.Sprintf("%-4s  ", c.Result), "      ", c.Area+", "+c.Check+": "+c.Detail)
		if c.Remedy != "" {
			p.paragraph("      ", "→ "+c.Remedy)
		}
	}
	p.line("")
	p.line("%s: %d failed, %s", count(len(x.checks), "check", "checks"), failed, count(warnings, "warning", "warnings"))
	return p.err
}
