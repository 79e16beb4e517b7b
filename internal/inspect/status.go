package inspect

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/tributary-dev/tributary/pkg/deadletter"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/indexer"
	"github.com/tributary-dev/tributary/pkg/jobs"
	"github.com/tributary-dev/tributary/pkg/worker"
)

// Status is the whole deployment at one time.
type Status struct {
	Time        time.Time   `json:"time"`
	NATS        NATS        `json:"nats"`
	Sources     []Source    `json:"sources"`
	Streams     []Stream    `json:"streams"`
	Workers     Workers     `json:"workers"`
	Jobs        JobCounts   `json:"jobs"`
	DeadLetters DeadLetters `json:"dead_letters"`
	Circuits    []Circuit   `json:"circuits"`        // that are not closed, lately were not, or that effects wait for
	Index       *Consumer   `json:"index,omitempty"` // absent where no indexer has ever run
}

// NATS is the server that answered.
type NATS struct {
	URL     string `json:"url"` // without user and password
	Version string `json:"version"`
	Cluster string `json:"cluster,omitempty"`
}

// Stream is one of ours, or a bucket's.
type Stream struct {
	Name     string    `json:"name"`
	Messages uint64    `json:"messages"`
	Bytes    uint64    `json:"bytes"`
	MaxBytes int64     `json:"max_bytes"` // -1 where there is no limit
	MaxAge   float64   `json:"max_age_seconds"`
	First    time.Time `json:"first,omitzero"` // when the oldest message was stored
	Last     time.Time `json:"last,omitzero"`
	LastSeq  uint64    `json:"last_sequence"`
	Replicas int       `json:"replicas"`
	Leader   string    `json:"leader,omitempty"`  // in a cluster
	Behind   int       `json:"behind,omitempty"`  // replicas that are not current
	Offline  int       `json:"offline,omitempty"` // replicas that are away
}

// Workers are the workers that live, and the partitions of EVENTS.
type Workers struct {
	Members    []worker.Member `json:"members"`
	Partitions []Partition     `json:"partitions"`
	Pending    uint64          `json:"pending"`   // events that no worker was given yet, of all partitions
	InFlight   int             `json:"in_flight"` // events that were given and are not settled
}

// Partition is one of EVENTS, as its durable consumer stands.
type Partition struct {
	Partition int    `json:"partition"`
	Worker    string `json:"worker,omitempty"` // who says that it works on it; empty where nobody does
	Pinned    bool   `json:"pinned"`           // the server gives its events to one worker
	Consumer
}

// Consumer is how a durable consumer stands.
type Consumer struct {
	Pending   uint64    `json:"pending"`             // that match and were not delivered yet
	InFlight  int       `json:"in_flight"`           // delivered, and not acknowledged
	Redeliver int       `json:"redelivered"`         // delivered more than once, and not acknowledged
	AckFloor  uint64    `json:"ack_floor"`           // the sequence in EVENTS up to which all is acknowledged
	LastAck   time.Time `json:"last_ack,omitzero"`   // of the last acknowledgement that moved it
	Waiting   int       `json:"waiting,omitempty"`   // pulls that wait for an event
	LagSecond float64   `json:"lag_seconds"`         // age of the oldest event that is not acknowledged; 0 where there is none
	Delivered uint64    `json:"delivered,omitempty"` // the last sequence that was delivered
	Index     string    `json:"index,omitempty"`     // of an indexer's: which index it is for
}

// JobCounts are jobs by their state.
type JobCounts struct {
	States     map[jobs.State]int `json:"states"` // every state, at zero too
	Unreadable int                `json:"unreadable,omitempty"`
	Complete   bool               `json:"complete"` // false where there are more than could be counted in time
	OldestDue  time.Time          `json:"oldest_due,omitzero"`
	Tickets    Consumer           `json:"tickets"` // of the runners; zero where none has ever run
}

// DeadLetters are what was given up.
type DeadLetters struct {
	Total   int                       `json:"total"`
	Reasons map[deadletter.Reason]int `json:"reasons"` // those there are
	Oldest  time.Time                 `json:"oldest,omitzero"`
	Newest  time.Time                 `json:"newest,omitzero"`
}

// Status reads all of it. It errs with ErrNotSetUp where there are no streams; that a database can't be asked is a part of
// what it tells.
func (s *System) Status(ctx context.Context) (*Status, error) {
	nc := s.JS.Conn()
	status := &Status{Time: time.Now().UTC(), NATS: NATS{nc.ConnectedUrlRedacted(), nc.ConnectedServerVersion(), nc.ConnectedClusterName()}}
	if _, err := s.stream(ctx, events.StreamEvents); err != nil {
		return nil, err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		status.Sources, err = s.Sources(ctx)
		return err
	})
	group.Go(func() (err error) {
		status.Streams, err = s.Streams(ctx)
		return err
	})
	group.Go(func() (err error) {
		status.Workers, status.Index, err = s.readers(ctx)
		return err
	})
	group.Go(func() (err error) {
		status.Jobs, err = s.JobCounts(ctx)
		return err
	})
	group.Go(func() (err error) {
		status.DeadLetters, err = s.DeadLetters(ctx)
		return err
	})
	group.Go(func() (err error) {
		status.Circuits, err = s.Circuits(ctx)
		return err
	})
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return status, nil
}

// Streams lists our streams, then the buckets.
func (s *System) Streams(ctx context.Context) ([]Stream, error) {
	list := []Stream{}
	for _, name := range []string{events.StreamEvents, events.StreamInbox, events.StreamJobs, events.StreamDeadLetters,
		"KV_" + events.BucketDedup, "KV_" + events.BucketJobs, "KV_" + events.BucketCache} {
		stream, err := s.stream(ctx, name)
		if errors.Is(err, ErrNotSetUp) && name != events.StreamEvents {
			continue // doctor tells which are missing
		}
		if err != nil {
			return nil, err
		}
		list = append(list, streamOf(stream.CachedInfo()))
	}
	return list, nil
}

func streamOf(info *jetstream.StreamInfo) Stream {
	stream := Stream{
		Name: info.Config.Name, Messages: info.State.Msgs, Bytes: info.State.Bytes, MaxBytes: info.Config.MaxBytes,
		MaxAge: info.Config.MaxAge.Seconds(), LastSeq: info.State.LastSeq, Replicas: info.Config.Replicas,
	}
	if info.State.Msgs > 0 {
		stream.First, stream.Last = info.State.FirstTime.UTC(), info.State.LastTime.UTC()
	}
	if info.Cluster != nil {
		stream.Leader = info.Cluster.Leader
		for _, replica := range info.Cluster.Replicas {
			switch {
			case replica.Offline:
				stream.Offline++
			case !replica.Current:
				stream.Behind++
			}
		}
	}
	return stream
}

// readers reads the consumers of EVENTS, and who works on which.
func (s *System) readers(ctx context.Context) (Workers, *Consumer, error) {
	workers := Workers{Partitions: []Partition{}}
	var index *Consumer
	members, err := worker.Members(ctx, s.JS)
	if err != nil {
		return workers, nil, err
	}
	workers.Members = members
	stream, err := s.stream(ctx, events.StreamEvents)
	if err != nil {
		return workers, nil, err
	}
	consumers := stream.ListConsumers(ctx)
	for info := range consumers.Info() {
		if info.Name == indexer.ConsumerName {
			index = new(Consumer)
			if *index, err = consumerOf(ctx, stream, info); err != nil {
				return workers, nil, err
			}
			index.Index = info.Config.Metadata[indexer.IndexKey]
			continue
		}
		number, ok := worker.PartitionOf(info.Name)
		if !ok {
			continue
		}
		p := Partition{Partition: number}
		if p.Consumer, err = consumerOf(ctx, stream, info); err != nil {
			return workers, nil, err
		}
		for _, group := range info.PriorityGroups {
			p.Pinned = p.Pinned || group.PinnedClientID != ""
		}
		for _, m := range members {
			if slices.Contains(m.Partitions, number) {
				p.Worker = m.ID
			}
		}
		workers.Pending += p.Pending
		workers.InFlight += p.InFlight
		workers.Partitions = append(workers.Partitions, p)
	}
	if err := consumers.Err(); err != nil {
		return workers, nil, fmt.Errorf("list consumers of %s: %w", events.StreamEvents, err)
	}
	slices.SortFunc(workers.Partitions, func(a, b Partition) int { return a.Partition - b.Partition })
	return workers, index, nil
}

func consumerOf(ctx context.Context, stream jetstream.Stream, info *jetstream.ConsumerInfo) (Consumer, error) {
	c := Consumer{
		Pending: info.NumPending, InFlight: info.NumAckPending, Redeliver: info.NumRedelivered, AckFloor: info.AckFloor.Stream,
		Waiting: info.NumWaiting, Delivered: info.Delivered.Stream,
	}
	if info.AckFloor.Last != nil {
		c.LastAck = info.AckFloor.Last.UTC()
	}
	if c.Pending == 0 && c.InFlight == 0 {
		return c, nil
	}
	filter := info.Config.FilterSubject
	if filter == "" {
		filter = ">"
		if len(info.Config.FilterSubjects) > 0 {
			filter = info.Config.FilterSubjects[0]
		}
	}
	oldest, err := stream.GetMsg(ctx, c.AckFloor+1, jetstream.WithGetMsgSubject(filter))
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound): // acknowledged meanwhile
		return c, nil
	case err != nil:
		return c, fmt.Errorf("read the oldest event of consumer %s: %w", info.Name, err)
	default:
		c.LagSecond = seconds(time.Since(oldest.Time))
		return c, nil
	}
}

// countFor bounds the counting of jobs: a bucket may hold millions that ended today.
const countFor = 3 * time.Second

// JobCounts counts jobs by state, for no longer than a few seconds.
func (s *System) JobCounts(ctx context.Context) (JobCounts, error) {
	counts := JobCounts{States: make(map[jobs.State]int), Complete: true}
	for _, state := range jobs.States() {
		counts.States[state] = 0
	}
	within, cancel := context.WithTimeout(ctx, countFor)
	defer cancel()
	unreadable, err := s.Jobs.Each(within, jobs.Filter{}, func(r *jobs.Record) error {
		counts.States[r.State]++
		if waits := r.State == jobs.Scheduled || r.State == jobs.Ready; waits && (counts.OldestDue.IsZero() || r.Due.Before(counts.OldestDue)) {
			counts.OldestDue = r.Due
		}
		return nil
	})
	counts.Unreadable = unreadable
	switch {
	case err == nil:
	case ctx.Err() == nil && within.Err() != nil:
		counts.Complete = false
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return counts, fmt.Errorf("%w (bucket %s)", ErrNotSetUp, events.BucketJobs)
	default:
		return counts, err
	}
	consumer, err := s.JS.Consumer(ctx, events.StreamJobs, jobs.ConsumerName)
	if errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrStreamNotFound) {
		return counts, nil
	}
	if err != nil {
		return counts, fmt.Errorf("look at the runners' tickets: %w", err)
	}
	stream, err := s.stream(ctx, events.StreamJobs)
	if err != nil {
		return counts, err
	}
	counts.Tickets, err = consumerOf(ctx, stream, consumer.CachedInfo())
	return counts, err
}

// DeadLetters counts what was given up.
func (s *System) DeadLetters(ctx context.Context) (DeadLetters, error) {
	letters := DeadLetters{Reasons: make(map[deadletter.Reason]int)}
	groups, err := deadletter.Stats(ctx, s.JS, deadletter.Filter{})
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return letters, fmt.Errorf("%w (stream %s)", ErrNotSetUp, events.StreamDeadLetters)
	}
	for _, g := range groups {
		letters.Total += g.Count
		letters.Reasons[g.Reason] += g.Count
		if letters.Oldest.IsZero() || g.Oldest.Before(letters.Oldest) {
			letters.Oldest = g.Oldest.UTC()
		}
		if g.Newest.After(letters.Newest) {
			letters.Newest = g.Newest.UTC()
		}
	}
	return letters, err
}

// seconds rounds a duration to milliseconds.
func seconds(d time.Duration) float64 { return float64(max(d, 0).Milliseconds()) / 1000 }
