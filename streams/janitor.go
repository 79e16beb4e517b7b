package streams

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/pkg/events"
)

// JanitorOptions are what the janitor may be told. The zero value works.
type JanitorOptions struct {
	Every     time.Duration // between two looks; 5 s by default
	HighWater float64       // share of max_bytes above which EVENTS is freed; 0.8 by default
	Log       *slog.Logger  // what was freed, and what is in the way; none by default
	// Needed gives the first message that is needed beside those of consumers, and names what needs it; 0 for none. Nil:
	// nothing is.
	Needed func(ctx context.Context) (sequence uint64, by string, err error)
}

// RunJanitor frees EVENTS of events that every durable consumer has acknowledged, whenever it is above its high water.
// Positions stay, and so does the last event of each source: together they say how far the source is stored.
// Where there is no durable consumer nothing is freed: nobody has read yet. It goes on until ctx ends, and gives its
// cause. One should run at a time; more do no harm.
func RunJanitor(ctx context.Context, js jetstream.JetStream, options JanitorOptions) error {
	j := janitor{js: js, every: options.Every, highWater: options.HighWater, log: options.Log, needed: options.Needed}
	if j.every <= 0 {
		j.every = 5 * time.Second
	}
	if j.highWater <= 0 {
		j.highWater = 0.8
	}
	if j.log == nil {
		j.log = slog.New(slog.DiscardHandler)
	}
	ticker := time.NewTicker(j.every)
	defer ticker.Stop()
	for {
		state, err := j.sweep(ctx)
		j.say(state, err)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
	}
}

type janitor struct {
	js        jetstream.JetStream
	every     time.Duration
	highWater float64
	log       *slog.Logger
	needed    func(context.Context) (uint64, string, error)
	said      string // of the last sweep
}

// say logs how a sweep went where that is news.
func (j *janitor) say(state string, err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	var details []any
	if err != nil {
		state, details = "EVENTS could not be freed", []any{"error", err}
	}
	if state != "" && state != j.said {
		j.log.Warn(state, details...)
	}
	j.said = state
}

// sweep frees EVENTS once, where it is due. Its state is empty where all is well.
func (j *janitor) sweep(ctx context.Context) (state string, err error) {
	ctx, cancel := context.WithTimeout(ctx, max(j.every, tryWithin))
	defer cancel()
	stream, err := j.js.Stream(ctx, events.StreamEvents)
	if err != nil {
		return "", fmt.Errorf("look at EVENTS: %w", err)
	}
	info := stream.CachedInfo()
	most := info.Config.MaxBytes
	if most <= 0 || float64(info.State.Bytes) <= j.highWater*float64(most) {
		return "", nil
	}
	need, err := needed(ctx, stream)
	if err != nil {
		return "", err
	}
	if need.by != "" && j.needed != nil {
		// After the consumers: what was acknowledged by then, and is needed all the same, is known.
		from, by, err := j.needed(ctx)
		if err != nil {
			return "", fmt.Errorf("find what EVENTS is needed for: %w", err)
		}
		if by != "" && from < need.from {
			need.from, need.by = from, by
		}
	}
	if need.by == "" {
		return "EVENTS is above its high water, and no durable consumer says what may go", nil
	}
	cuts, err := plan(ctx, stream, need.from)
	if err != nil {
		return "", err
	}
	for _, c := range cuts {
		if err := stream.Purge(ctx, jetstream.WithPurgeSubject(c.filter), jetstream.WithPurgeSequence(c.before)); err != nil {
			return "", fmt.Errorf("purge %s of EVENTS before %d: %w", c.filter, c.before, err)
		}
	}
	after, err := stream.Info(ctx)
	if err != nil {
		return "", fmt.Errorf("look at EVENTS: %w", err)
	}
	if freed := int64(info.State.Bytes) - int64(after.State.Bytes); freed > 0 {
		j.log.Info("EVENTS freed", "bytes", freed, "before", need.from)
	}
	if float64(after.State.Bytes) > j.highWater*float64(most) {
		return fmt.Sprintf("EVENTS is above its high water, and %s has not acknowledged what is left", need.by), nil
	}
	return "", nil
}

// need is the first message that a durable consumer may still want.
type need struct {
	from uint64
	by   string // what needs it; empty where there is no consumer
}

// needed asks every durable consumer. Names come first and each is asked by itself: a list of consumers leaves out, in
// silence, those that do not answer.
func needed(ctx context.Context, stream jetstream.Stream) (need, error) {
	last := stream.CachedInfo().State.LastSeq // before the consumers are asked, so that nothing comes in between
	lowest := need{from: last + 1}
	names := stream.ConsumerNames(ctx)
	for name := range names.Name() {
		consumer, err := stream.Consumer(ctx, name)
		if errors.Is(err, jetstream.ErrConsumerNotFound) {
			continue
		}
		if err != nil {
			return need{}, fmt.Errorf("look at consumer %s of EVENTS: %w", name, err)
		}
		info := consumer.CachedInfo()
		if info.Config.Durable == "" {
			continue
		}
		from, err := neededBy(ctx, stream, info, last)
		if err != nil {
			return need{}, fmt.Errorf("find what consumer %s of EVENTS needs: %w", name, err)
		}
		if lowest.by == "" || from < lowest.from {
			lowest = need{from: from, by: "consumer " + name}
		}
	}
	if err := names.Err(); err != nil {
		return need{}, fmt.Errorf("list consumers of EVENTS: %w", err)
	}
	return lowest, nil
}

// neededBy is the first message behind the consumer's ack floor that it would get. The floor alone would hold all back
// for a consumer that has nothing to do, and its own count of what is pending may be behind the stream's leader.
func neededBy(ctx context.Context, stream jetstream.Stream, info *jetstream.ConsumerInfo, last uint64) (uint64, error) {
	filters := info.Config.FilterSubjects
	if info.Config.FilterSubject != "" {
		filters = []string{info.Config.FilterSubject}
	}
	if len(filters) == 0 {
		return info.AckFloor.Stream + 1, nil
	}
	from := last + 1
	for _, filter := range filters {
		msg, err := stream.GetMsg(ctx, info.AckFloor.Stream+1, jetstream.WithGetMsgSubject(filter))
		switch {
		case errors.Is(err, jetstream.ErrMsgNotFound):
		case err != nil:
			return 0, err
		default:
			from = min(from, msg.Sequence)
		}
	}
	return from, nil
}

const sourceToken = 2 // of an event's subject, from 0

// cut is a purge: what matches the filter and lies before the sequence.
type cut struct {
	filter string
	before uint64
}

// plan gives the purges that free all events before a sequence but the last one of each source. A purge can't leave a
// message out, but it can stop at the last one of a source.
func plan(ctx context.Context, stream jetstream.Stream, before uint64) ([]cut, error) {
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter("events.>"))
	if err != nil {
		return nil, fmt.Errorf("list subjects of EVENTS: %w", err)
	}
	sources := map[string]bool{} // escaped, as in the subjects
	for subject := range info.State.Subjects {
		sources[strings.Split(subject, ".")[sourceToken]] = true
	}
	var cuts []cut
	for _, source := range slices.Sorted(maps.Keys(sources)) {
		filter := "events.*." + source + ".>"
		last, err := stream.GetLastMsgForSubject(ctx, filter)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read the last event of %s: %w", source, err)
		}
		cuts = append(cuts, cut{filter, min(before, last.Sequence)})
	}
	return cuts, nil
}
