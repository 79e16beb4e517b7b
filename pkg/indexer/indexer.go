// Package indexer makes every event searchable: documents, the loop that writes them in bulk, and the questions that an
// index answers over NATS.
//
// It promises that each event of EVENTS is in the index once, or in DEADLETTERS with what the index said against it:
// a message is acknowledged only when its own outcome is known, and an event that is read again has the same id, month
// and bytes, so the index takes it for what it has. While the index is away or pushes back, it waits in bounded memory.
// It relies on stream EVENTS, and on an adapter in elastic or embedded. The order in which documents are written is none.
package indexer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/pkg/deadletter"
	"github.com/tributary-dev/tributary/pkg/retry"
)

// State is what became of a document.
type State int

// The states.
const (
	Created State = iota
	Existed       // a document with its id was there, and stays as it is
	Again         // not now: it may be tried again
	Refused       // never: the index can't take this document
)

// Outcome is what became of one document of a bulk.
type Outcome struct {
	State State
	Err   error // for Again and Refused
}

// ErrBulkRefused says that the bulk was refused for its size, or for something in it that can't be told: a part of it may
// be taken.
var ErrBulkRefused = errors.New("the bulk was refused as a whole")

// writer is the index as the loop sees it. Write creates the documents that are not there yet, and gives an outcome for
// each in their order. An error says that nothing is known of any of them, or with ErrBulkRefused that none was written;
// retry.DelayOf tells when to come again at the earliest. It is idempotent, and safe for concurrent use.
type writer interface {
	Write(ctx context.Context, documents []Document) ([]Outcome, error)
}

// graveyard keeps what the index refuses. Write waits while it is away, until ctx ends.
type graveyard interface {
	Write(ctx context.Context, record deadletter.Record) error
}

// Options are what an Indexer may be given. A zero value takes the default.
type Options struct {
	BulkCount   int           // documents of a bulk at the most; 2,000
	BulkBytes   int           // their bytes, but for one that has more; 8 MiB
	BulkAge     time.Duration // how long the first document of a bulk waits for others; 500 ms
	Concurrency int           // bulks that are written at the same time; 2
	QueueBytes  int           // messages and documents that are held at the same time, whatever becomes of them; 32 MiB

	AckWait         time.Duration // without a sign of life an event goes to another indexer; 15 s
	MaxAckPending   int           // events that all indexers together hold; 20,000
	ShutdownTimeout time.Duration // that Run takes at most to end; what is not written then stays unacknowledged; 10 s
	Retry           retry.Policy  // delays between tries; their number has no bound

	// Identity tells the index from every other one, also from one that was in its place before. Where it changes, all of
	// EVENTS is indexed again. nil: it never does.
	Identity func(ctx context.Context) (string, error)

	// Parts gives the months that the index has, each with an id that another one in its place hasn't. Where one goes that is not
	// older than Keep, all of EVENTS is indexed again, too. nil: none ever does.
	Parts func(ctx context.Context) (map[string]string, error)
	Keep  time.Duration // Retention's

	Ready   func(ok bool, why string) // is told whether the index takes documents
	Log     *slog.Logger
	Metrics *Metrics

	identityEvery time.Duration
}

// Indexer writes the events of EVENTS. All that run share them.
type Indexer struct {
	js      jetstream.JetStream
	index   writer
	dead    graveyard
	options Options
	log     *slog.Logger
	metrics *Metrics
	held    *held
	health  *health

	// Of the goroutine that pulls: which index the consumer is for, and when the index was asked last.
	identity string
	months   map[string]string // as the consumer has them
	asked    time.Time
}

// New gives an Indexer.
func New(js jetstream.JetStream, index writer, dead graveyard, options Options) (*Indexer, error) {
	for _, setting := range []struct {
		key   string
		value int64
	}{
		{"bulk_count", int64(options.BulkCount)}, {"bulk_bytes", int64(options.BulkBytes)},
		{"bulk_age", int64(options.BulkAge)}, {"concurrency", int64(options.Concurrency)},
		{"queue_bytes", int64(options.QueueBytes)}, {"ack_wait", int64(options.AckWait)},
		{"max_ack_pending", int64(options.MaxAckPending)}, {"shutdown_timeout", int64(options.ShutdownTimeout)},
	} {
		if setting.value < 0 {
			return nil, fmt.Errorf("indexer.%s must not be negative, got %d", setting.key, setting.value)
		}
	}
	options.BulkCount = cmp.Or(options.BulkCount, 2000)
	options.BulkBytes = cmp.Or(options.BulkBytes, 8<<20)
	options.BulkAge = cmp.Or(options.BulkAge, 500*time.Millisecond)
	options.Concurrency = cmp.Or(options.Concurrency, 2)
	options.QueueBytes = cmp.Or(options.QueueBytes, 32<<20)
	options.AckWait = cmp.Or(options.AckWait, 15*time.Second)
	options.MaxAckPending = cmp.Or(options.MaxAckPending, 20_000)
	options.ShutdownTimeout = cmp.Or(options.ShutdownTimeout, 10*time.Second)
	options.identityEvery = cmp.Or(options.identityEvery, identityEvery)
	if options.Retry == (retry.Policy{}) {
		options.Retry = retry.Policy{MaxAttempts: 1, Strategy: retry.Exponential, Initial: 100 * time.Millisecond, Max: 5 * time.Second, Jitter: 0.25}
	}
	if options.BulkBytes > options.QueueBytes {
		return nil, fmt.Errorf("indexer.bulk_bytes must be at most indexer.queue_bytes (%d), got %d", options.QueueBytes, options.BulkBytes)
	}
	if options.Log == nil {
		options.Log = slog.New(slog.DiscardHandler)
	}
	if options.Metrics == nil {
		options.Metrics = NewMetrics(nil)
	}
	return &Indexer{
		js: js, index: index, dead: dead, options: options, log: options.Log, metrics: options.Metrics,
		held:   newHeld(js.Conn(), options.QueueBytes, options.Metrics),
		health: &health{told: options.Ready, troubles: map[int]error{}},
	}, nil
}

// errGaveUp ends what is not written when the time to shut down is over.
var errGaveUp = errors.New("the indexer had to end before all was written")

// Run indexes until ctx ends. Then it takes no more and writes what it holds, for as long as it may. It returns when
// nothing that it started is left. Call it once.
func (x *Indexer) Run(ctx context.Context) {
	working, giveUp := context.WithCancelCause(context.WithoutCancel(ctx))
	defer giveUp(nil)
	stopGivingUp := context.AfterFunc(ctx, func() {
		timer := time.NewTimer(x.options.ShutdownTimeout / 10 * 9) // the rest is for acknowledgements
		defer timer.Stop()
		select {
		case <-timer.C:
			giveUp(errGaveUp)
		case <-working.Done():
		}
	})
	defer stopGivingUp()

	items := make(chan *item, x.options.MaxAckPending)
	bulks := make(chan []*item)
	attendants := startAll(working,
		x.held.heartbeat(x.options.AckWait/3),
		x.watchLag,
	)
	pipeline := startAll(working,
		func(context.Context) { defer close(items); x.pull(ctx, items) },
		func(working context.Context) { defer close(bulks); x.collect(working, items, bulks) },
	)
	for number := range x.options.Concurrency {
		pipeline.Go(func() { x.writeAll(working, number, bulks) })
	}
	pipeline.Wait()
	giveUp(nil)
	attendants.Wait()
	x.flushAcks(ctx)
}

// flushAcks gives the acknowledgements that were sent last the time to arrive.
func (x *Indexer) flushAcks(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), x.options.ShutdownTimeout/10)
	defer cancel()
	if err := x.js.Conn().FlushWithContext(ctx); err != nil {
		x.log.Warn("the last acknowledgements may be lost; their events will be read again", "err", err)
	}
}

func jitter() float64 { return rand.Float64() }
