// Package pgcdc reads the committed changes of a PostgreSQL database: preflight, publication, slot, snapshot, and then the
// stream of the slot, as an ingest.Source.
//
// It promises that a change has the same id, place and bytes whenever and by whichever process it is read, that nothing
// comes before its commit, and that the server is never told to forget more than the feed calls confirmable. It relies on
// PostgreSQL 14 or later with wal_level logical, and on its own output plugin, pgoutput, in protocol 1. It does not
// publish, and it never makes a slot again that was lost.
package pgcdc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/ingest"
)

// Options says what to read, and how. Name, ConnString and Tables are required.
type Options struct {
	Name        string
	ConnString  string   // a URL or a list of key=value, as libpq has it
	Tables      []string // patterns schema.table, with * within a part; those behind a ! are left out
	Slot        string   // tributary_<name> if empty
	Publication string   // tributary_<name> if empty
	Snapshot    bool     // read the rows that are there at the first start, and those of tables that are added later
	Partitions  int      // of EVENTS
	Heartbeat   time.Duration

	// ReceiveTimeout is how long the server may say nothing, though it was asked to, until its connections are given up;
	// 20 s if 0.
	ReceiveTimeout time.Duration

	MaxEvent int // bytes; a larger event goes to Oversize, and its stub on; 0 is no bound
	Log      *slog.Logger
	Metrics  *Metrics

	// What of the tables is published. A column is named [schema.]table.column, with * within a part, and ? behind it where it
	// need not be there.
	Ops     []events.Op       // all if empty; without snapshot, Snapshot is false
	Exclude []string          // columns that no event has
	Masks   map[string]string // columns, and what replaces their values: sha256, hmac or redact
	MaskKey []byte            // of hmac

	// Keep tells whether an event is published; nil keeps all. It is called by one goroutine at a time for each reader of the
	// source, and has to give the same answer for the same event. An event for which it errors is published.
	Keep func(*Candidate) (bool, error)

	// Memory keeps what is masked; nil keeps it as long as a session of reading lasts.
	Memory Memory

	SnapshotParallel int   // connections that read the rows at the first start; 1 if 0
	SnapshotRate     int64 // bytes of rows that are read in a second; 0 is no bound

	// Serve is called while changes are read, for whoever asks for the rows of a table; it returns when ctx ends. It may
	// be nil. ask is safe for concurrent use.
	Serve func(ctx context.Context, ask func(context.Context, Ask) (Answer, error)) error

	snapshotChunk   int           // bytes of a table's file that one connection reads at a time
	snapshotSilence time.Duration // that ends the reading of one

	// Oversize keeps the envelope of an event that is larger than MaxEvent. It has to be idempotent by id, since an event
	// may be read again, and to copy what it keeps.
	Oversize func(ctx context.Context, id string, envelope []byte) error
}

// Source reads one database. It implements ingest.Source.
type Source struct {
	opts      Options
	patterns  patterns
	rules     *columnRules
	ops       map[events.Op]bool // that are published; nil for all
	connector *connector
	metrics   *sourceMetrics
	limit     *throttle
	contacted atomic.Bool // the database let us in once: from then on a refusal to do so is trouble that passes
}

// New checks options, and makes a source of them. It does not connect.
func New(o Options) (*Source, error) {
	if !events.ValidSource(o.Name) {
		return nil, fmt.Errorf("sources[].name: %q is not [a-z][a-z0-9_]{0,52}", o.Name)
	}
	key := "sources[" + o.Name + "]"
	if o.Slot == "" {
		o.Slot = "tributary_" + o.Name
	}
	if o.Publication == "" {
		o.Publication = "tributary_" + o.Name
	}
	if o.ReceiveTimeout == 0 {
		o.ReceiveTimeout = receiveTimeout
	}
	if o.snapshotSilence == 0 {
		o.snapshotSilence = silencesOfRows * o.ReceiveTimeout
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Log = o.Log.With("source", o.Name)
	switch {
	case !validSlot(o.Slot):
		return nil, fmt.Errorf("%s.slot: %q is not [a-z0-9_]{1,63}", key, o.Slot)
	case len(o.Publication) > 63:
		return nil, fmt.Errorf("%s.publication: %q is longer than 63 bytes", key, o.Publication)
	case o.Partitions < 1:
		return nil, fmt.Errorf("events.partitions must be at least 1, got %d", o.Partitions)
	case o.Heartbeat < 0:
		return nil, fmt.Errorf("%s.heartbeat must not be negative, got %s", key, o.Heartbeat)
	case o.ReceiveTimeout < shortestTimeout:
		return nil, fmt.Errorf("%s.receive_timeout must be at least %s, got %s", key, shortestTimeout, o.ReceiveTimeout)
	case o.SnapshotParallel < 0:
		return nil, fmt.Errorf("%s.snapshot_parallel must not be negative, got %d", key, o.SnapshotParallel)
	case o.SnapshotRate < 0:
		return nil, fmt.Errorf("%s.snapshot_rate must not be negative, got %d", key, o.SnapshotRate)
	case o.MaxEvent < 0 || o.MaxEvent > 0 && o.Oversize == nil:
		return nil, fmt.Errorf("an event of at most %d bytes needs a place for larger ones", o.MaxEvent)
	}
	p, err := parsePatterns(o.Tables)
	if err != nil {
		return nil, fmt.Errorf("%s.tables: %w", key, err)
	}
	ops, err := parseOps(o.Ops)
	if err != nil {
		return nil, fmt.Errorf("%s.ops: %w", key, err)
	}
	o.Snapshot = o.Snapshot && (ops == nil || ops[events.OpSnapshot])
	rules, err := parseColumnRules(&o)
	if err != nil {
		return nil, fmt.Errorf("%s.%w", key, err)
	}
	c, err := newConnector(o.Name, o.ConnString, o.ReceiveTimeout)
	if err != nil {
		return nil, fmt.Errorf("%s.postgres: %w", key, err)
	}
	return &Source{opts: o, patterns: p, rules: rules, ops: ops, connector: c, metrics: o.Metrics.of(o.Name),
		limit: &throttle{rate: o.SnapshotRate}}, nil
}

func parseOps(list []events.Op) (map[events.Op]bool, error) {
	if len(list) == 0 {
		return nil, nil
	}
	ops := map[events.Op]bool{}
	for _, op := range list {
		if !op.Valid() {
			return nil, fmt.Errorf("%q is none of %v", op, events.Ops())
		}
		ops[op] = true
	}
	return ops, nil
}

func validSlot(name string) bool {
	for i := range len(name) {
		if c := name[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return name != "" && len(name) <= 63
}

// Name is the source's name.
func (s *Source) Name() string { return s.opts.Name }

// run is one call of Run.
type run struct {
	*Source
	feed    *ingest.Feed
	state   ingest.State
	query   *querier
	catalog *Catalog
	masking *masking
	version int // the server's, as server_version_num has it
	out     *output
}

// Run implements ingest.Source.
func (s *Source) Run(ctx context.Context, state ingest.State, feed *ingest.Feed) error {
	r := &run{Source: s, feed: feed, state: state, query: newQuerier(s.openQuery), masking: newMasking(s.rules)}
	defer r.query.close(ctx)
	r.catalog = NewCatalog(r.query.query)
	r.out = newOutput(s, feed, state.Position)
	err := r.run(ctx)
	if ctx.Err() != nil && !errors.Is(err, ingest.ErrRefused) {
		return context.Cause(ctx)
	}
	return err
}

func (r *run) run(ctx context.Context) error {
	system, err := r.identify(ctx)
	if err != nil {
		return err
	}
	if err := r.checkMirror(system); err != nil {
		return err
	}
	masked, err := r.checkRules(ctx)
	if err != nil {
		return err
	}
	if err := r.remember(ctx, system, masked); err != nil {
		return err
	}
	switch phase := r.state.Position.Phase; phase {
	case "":
		if err := r.prepare(ctx, system); err != nil {
			return err
		}
		return r.setUp(ctx, system)
	case ingest.PhaseSetup:
		return r.setUpAgain(ctx, system)
	case ingest.PhaseSnapshot:
		if r.state.Position.Cursor == nil { // nothing of it is stored, not even what it was to show
			return r.setUpAgain(ctx, system)
		}
		if err := r.checkResume(ctx, system); err != nil {
			return err
		}
		if err := r.resumeSnapshot(ctx); err != nil {
			return err
		}
		return r.stream(ctx)
	case ingest.PhaseStreaming:
		if err := r.checkResume(ctx, system); err != nil {
			return err
		}
		return r.stream(ctx)
	default:
		return refused("the position of %s has the phase %q, which this version does not know: run the version that wrote it", r.opts.Name, phase)
	}
}

// refused makes an error after which the source is not run again.
func refused(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ingest.ErrRefused, fmt.Errorf(format, args...))
}
