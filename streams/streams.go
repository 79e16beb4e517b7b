// Package streams holds the settings of Tributary's streams and buckets, makes them, and keeps EVENTS from filling up.
//
// The settings are the JSON files beside this one, in the format of `nats stream add --config`. Apply promises that
// each setting that a file names is in force, or says which one can't be and why. What the files leave open, such as
// placement and compression, belongs to the operator and is left alone. Consumers are made by who reads.
package streams

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/pkg/events"
)

//go:embed *.json
var files embed.FS

// names are the files in the order in which they are applied: who waits for EVENTS finds all others there.
var names = []string{
	"kv_leases", "kv_dedup", "kv_jobs", "kv_cache", "kv_observers", "kv_workers", "kv_circuits",
	"deadletters", "traces", "jobs", "inbox", "events",
}

// Options are the settings that differ between deployments. The zero value takes those of the files.
type Options struct {
	Replicas       int           // of every stream: 1, 3 or 5; 0 for 1
	Partitions     int           // of EVENTS, 1 to 1000, heeded when it is made; 0 for the file's 16
	EventsMaxBytes int64         // of EVENTS; 0 for the file's, negative for no limit
	EventsMaxAge   time.Duration // of EVENTS; 0 for the file's
	TracesMaxBytes int64         // of TRACES; 0 for the file's
	TracesMaxAge   time.Duration // of TRACES; 0 for the file's
	Log            *slog.Logger  // what is made and changed; none by default
}

// Applied is what is in force.
type Applied struct {
	Partitions int   // of EVENTS
	MaxPayload int64 // of the server, in bytes: the most that a message can hold, headers included
	InboxMax   int64 // of a message in INBOX, in bytes
}

const (
	partitionsKey  = "tributary.partitions" // in the metadata of EVENTS
	mostPartitions = 1000                   // three digits
	leastVersion   = "2.14.0"
)

func (o Options) check() error {
	switch {
	case o.Replicas != 0 && o.Replicas != 1 && o.Replicas != 3 && o.Replicas != 5:
		return fmt.Errorf("nats.replicas must be 1, 3 or 5, got %d", o.Replicas)
	case o.Partitions < 0 || o.Partitions > mostPartitions:
		return fmt.Errorf("events.partitions must be 1 to %d, got %d", mostPartitions, o.Partitions)
	case o.EventsMaxAge < 0:
		return fmt.Errorf("events.max_age must not be negative, got %s", o.EventsMaxAge)
	case o.TracesMaxAge < 0:
		return fmt.Errorf("traces.max_age must not be negative, got %s", o.TracesMaxAge)
	default:
		return nil
	}
}

// Apply makes the streams and buckets that are missing and changes what differs from the settings. It is idempotent,
// and any number of services may call it at once. While NATS or JetStream is not ready it waits, until ctx ends. It
// errs where the server is older than 2.14 or lacks storage, and where a setting can't be changed in place.
func Apply(ctx context.Context, js jetstream.JetStream, options Options) (Applied, error) {
	if err := options.check(); err != nil {
		return Applied{}, err
	}
	return apply(ctx, js, options, func(settings) bool { return true })
}

// ApplyVolatile is Apply for what NATS keeps in memory alone: a server that starts again has lost it.
func ApplyVolatile(ctx context.Context, js jetstream.JetStream, options Options) error {
	_, err := apply(ctx, js, options, func(s settings) bool { return s["storage"] == "memory" })
	return err
}

func apply(ctx context.Context, js jetstream.JetStream, options Options, which func(settings) bool) (Applied, error) {
	a := applier{js: js, options: options, log: options.Log}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	if err := a.awaitServer(ctx); err != nil {
		return Applied{}, fmt.Errorf("apply streams: %w", err)
	}
	applied := Applied{MaxPayload: js.Conn().MaxPayload()}
	applied.InboxMax = applied.MaxPayload / 2
	for _, name := range names {
		want, err := load(name)
		if err != nil {
			return Applied{}, err
		}
		if !which(want) {
			continue
		}
		a.override(want, applied)
		if err := a.one(ctx, want); err != nil {
			return Applied{}, fmt.Errorf("apply stream %s: %w", want.name(), err)
		}
	}
	var err error
	applied.Partitions, err = a.partitions(ctx)
	return applied, err
}

// override puts in what depends on the deployment.
func (a *applier) override(want settings, applied Applied) {
	want["num_replicas"] = number(max(a.options.Replicas, 1))
	switch want.name() {
	case events.StreamEvents:
		if a.options.EventsMaxBytes != 0 {
			want["max_bytes"] = number(max(a.options.EventsMaxBytes, -1))
		}
		if a.options.EventsMaxAge != 0 {
			want["max_age"] = number(a.options.EventsMaxAge)
		}
		if a.options.Partitions != 0 {
			want["metadata"] = map[string]any{partitionsKey: strconv.Itoa(a.options.Partitions)}
		}
	case events.StreamTraces:
		if a.options.TracesMaxBytes != 0 {
			want["max_bytes"] = number(max(a.options.TracesMaxBytes, -1))
		}
		if a.options.TracesMaxAge != 0 {
			want["max_age"] = number(a.options.TracesMaxAge)
		}
	case events.StreamInbox:
		// What ingest makes of it, and a dead letter of that, has to fit into a message too.
		want["max_msg_size"] = number(applied.InboxMax)
	}
}

// partitions reads their number from where it is in force. It never changes: keys would change their partition, and
// with it their place behind what was stored before.
func (a *applier) partitions(ctx context.Context) (int, error) {
	var text string
	began := time.Now()
	err := a.again(ctx, func(ctx context.Context) error {
		stream, err := a.js.Stream(ctx, events.StreamEvents)
		if err == nil {
			text = stream.CachedInfo().Config.Metadata[partitionsKey]
		}
		if errors.Is(err, jetstream.ErrStreamNotFound) && time.Since(began) < roomWithin {
			return errAgain // another service made it just now, and not every server of a cluster has heard of it
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("read partitions of EVENTS: %w", err)
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > mostPartitions {
		return 0, fmt.Errorf("stream EVENTS: metadata %s is %q, which is no number from 1 to %d; restore the one it was made with by "+
			"`nats stream edit EVENTS --metadata %s:N`", partitionsKey, text, mostPartitions, partitionsKey)
	}
	return n, nil
}

// CheckVersion errs where a NATS server of this version lacks what the settings need.
func CheckVersion(version string) error {
	have, err := parseVersion(version)
	if err != nil {
		return err
	}
	least, err := parseVersion(leastVersion)
	if err != nil {
		return err
	}
	for i := range have {
		if have[i] > least[i] {
			return nil
		}
		if have[i] < least[i] {
			return fmt.Errorf("the NATS server is version %s, which lacks schedules or batches; version %s or newer is needed",
				version, strings.TrimSuffix(leastVersion, ".0"))
		}
	}
	return nil
}

func parseVersion(version string) (numbers [3]int, err error) {
	core, _, _ := strings.Cut(strings.TrimPrefix(version, "v"), "-")
	parts := strings.Split(core, ".")
	if len(parts) != len(numbers) {
		return numbers, fmt.Errorf("version %q of the NATS server is not of the form 2.14.0", version)
	}
	for i, part := range parts {
		var bad error
		numbers[i], bad = strconv.Atoi(part)
		err = errors.Join(err, bad)
	}
	if err != nil {
		return numbers, fmt.Errorf("version %q of the NATS server is not of the form 2.14.0", version)
	}
	return numbers, nil
}
