package jobs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/actions/circuit"
	"github.com/tributary-dev/tributary/pkg/deadletter"
	"github.com/tributary-dev/tributary/pkg/events"
)

// ConsumerName is the durable consumer of JOBS that all runners share.
const ConsumerName = "jobrunner"

// performer executes one attempt within the request's timeout, and gives panics as errors.
type performer interface {
	Do(ctx context.Context, effect actions.Effect, request actions.Request) (actions.Outcome, error)
}

// Options are what a Runner may be given. A zero value takes the default.
type Options struct {
	Concurrency     int               // jobs that are executed at the same time, half of them at one endpoint; 64
	Keep            time.Duration     // how long the record of a job stays after its end; 24 h
	Owner           string            // names this runner in records; host, process and a random number
	Waiting         int               // tickets that wait here for their time; those beyond are scheduled on the server; 1,000
	MaxAckPending   int               // tickets that all runners together hold; 10,000
	AckWait         time.Duration     // without a sign of life a ticket goes to another runner; 10 s
	ShutdownTimeout time.Duration     // that Run takes at most to end; what is running then is released before; 10 s
	Random          func() float64    // for jitter, in [0, 1); math/rand
	Traces          tracer            // nil where nothing is recorded
	Resolve         Resolve           // of jobs whose request is pending; without it they fail
	Circuits        *circuit.Circuits // which endpoints may be called; nil: all
	ParkMaxAge      time.Duration     // after which a job that waits for a circuit dies; 24 h
	Rests           rests             // tells whose observer is paused; nil: none is

	crowded time.Duration // the least pause of a ticket whose endpoint has no place free, and that can't wait here
}

// Runner executes jobs: all that hold the same Store share its tickets.
type Runner struct {
	js      jetstream.JetStream
	store   *Store
	do      performer
	dead    *deadletter.Writer
	options Options
	log     *slog.Logger
	metrics *Metrics
	slots   chan struct{} // full where as many jobs as may are executed
	shares  *shares       // of the slots, by endpoint

	mu      sync.Mutex
	held    map[uint64]*held // by sequence in JOBS; guarded by mu, as are the fields below
	waiting int              // of held: until they are due
	freed   chan struct{}    // room for one signal that there is room again
}

// NewRunner gives a Runner. do is most often an actions.Registry.
func NewRunner(js jetstream.JetStream, store *Store, do performer, dead *deadletter.Writer, options Options) (*Runner, error) {
	for _, setting := range []struct {
		key   string
		value int64
	}{
		{"concurrency", int64(options.Concurrency)}, {"keep", int64(options.Keep)}, {"waiting", int64(options.Waiting)},
		{"max_ack_pending", int64(options.MaxAckPending)}, {"ack_wait", int64(options.AckWait)},
		{"shutdown_timeout", int64(options.ShutdownTimeout)},
	} {
		if setting.value < 0 {
			return nil, fmt.Errorf("jobs.%s must not be negative, got %d", setting.key, setting.value)
		}
	}
	options.Concurrency = cmp.Or(options.Concurrency, 64)
	options.Keep = cmp.Or(options.Keep, 24*time.Hour)
	options.Waiting = cmp.Or(options.Waiting, 1000)
	options.MaxAckPending = cmp.Or(options.MaxAckPending, 10_000)
	options.AckWait = cmp.Or(options.AckWait, DefaultAckWait)
	options.ShutdownTimeout = cmp.Or(options.ShutdownTimeout, 10*time.Second)
	options.ParkMaxAge = cmp.Or(options.ParkMaxAge, 24*time.Hour)
	options.crowded = cmp.Or(options.crowded, 5*time.Second)
	if options.Owner == "" {
		host, _ := os.Hostname() // a name without it is a name too
		options.Owner = fmt.Sprintf("%s-%d-%08x", host, os.Getpid(), rand.Uint32())
	}
	if options.Random == nil {
		options.Random = rand.Float64
	}
	return &Runner{
		js: js, store: store, do: do, dead: dead, options: options, log: store.log, metrics: store.metrics,
		slots: make(chan struct{}, options.Concurrency), shares: newShares(options.Concurrency, options.Circuits), held: make(map[uint64]*held), freed: make(chan struct{}, 1),
	}, nil
}

// DefaultAckWait is the AckWait of runners and sweepers that are given none.
const DefaultAckWait = 10 * time.Second

// graceWaits is how many AckWaits an attempt that is running must have outlived its timeout by to be called lost
// without its ticket. It also covers clocks that differ.
const graceWaits = 3

// Causes by which contexts end.
var (
	errReleased = errors.New("the runner is shutting down")
	errGaveUp   = errors.New("the runner had to end before all was written")
)

// phases are the lives of a run. They end in this order, the first with Run's own.
type phases struct {
	taking   context.Context // tickets are taken, and attempts begin
	working  context.Context // attempts are executed
	settling context.Context // results are written
}

// Run executes jobs until ctx ends. Then it takes no more, lets what is running end, and releases what does not end in
// time: nothing is charged for that. It returns nil when nothing that it started is left; an action that ignores its
// context holds it up. Call it once.
func (r *Runner) Run(ctx context.Context) error {
	if _, err := r.consumer(ctx); refused(err) && ctx.Err() == nil {
		return err
	}
	working, release := context.WithCancelCause(context.WithoutCancel(ctx))
	settling, giveUp := context.WithCancelCause(context.WithoutCancel(ctx))
	ended := make(chan struct{})
	var attendants, tickets sync.WaitGroup
	attendants.Go(func() { r.heartbeat(ended) })
	attendants.Go(func() {
		r.endPhases(ctx, ended, release, giveUp)
	})
	r.pull(ctx, func(msg jetstream.Msg) {
		if h := r.accept(msg); h != nil {
			tickets.Go(func() { r.process(phases{ctx, working, settling}, h) })
		}
	})
	tickets.Wait()
	close(ended)
	attendants.Wait()
	return nil
}

func (r *Runner) endPhases(ctx context.Context, ended <-chan struct{}, release, giveUp context.CancelCauseFunc) {
	defer giveUp(errGaveUp)
	defer release(errReleased)
	select {
	case <-ctx.Done():
	case <-ended:
		return
	}
	const share = 5 // of the time, the last one is for writing
	for _, phase := range []struct {
		time time.Duration
		end  func()
	}{
		{r.options.ShutdownTimeout / share * (share - 1), func() { release(errReleased) }},
		{r.options.ShutdownTimeout / share, func() { giveUp(errGaveUp) }},
	} {
		timer := time.NewTimer(phase.time)
		select {
		case <-timer.C:
			phase.end()
		case <-ended:
			timer.Stop()
			return
		}
	}
}

// refused tells whether the server has said no. No answer, or that nobody leads the stream now, passes.
func refused(err error) bool {
	const nobodyLeads = 503
	var answer *jetstream.APIError
	return errors.As(err, &answer) && answer.Code != nobodyLeads
}

func (r *Runner) consumer(ctx context.Context) (jetstream.Consumer, error) {
	consumer, err := r.js.CreateOrUpdateConsumer(ctx, events.StreamJobs, jetstream.ConsumerConfig{
		Durable:       ConsumerName,
		Description:   "job runners take their tickets here",
		FilterSubject: readyPrefix + ">",
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       r.options.AckWait,
		MaxDeliver:    -1,
		MaxAckPending: r.options.MaxAckPending,
	})
	if err != nil {
		return nil, fmt.Errorf("set up consumer %s of %s: %w", ConsumerName, events.StreamJobs, err)
	}
	return consumer, nil
}
