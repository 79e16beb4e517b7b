// Package worker carries out what observers want of the events in EVENTS: own → lane → claim → run → settle.
//
// It promises that an event is acknowledged only after each of its effects is settled (done, made a job, or given up as
// a dead letter), that an effect that is known to be settled is not begun again, and that the effects of one key,
// observer and action begin in the order of their events. What can't be known, an effect whose worker died between it
// and its record, is begun again under the same key, and given up as crashed after the third time.
//
// It relies on ingest, which writes each source's events to EVENTS in ascending order, on the server's pins, which let
// one worker at a time hold a partition, and on KV dedup. It does not try an effect twice: that is the work of jobs.
package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/internal/natskv"
	"github.com/tributary-dev/tributary/pkg/actions/circuit"
	"github.com/tributary-dev/tributary/pkg/deadletter"
	"github.com/tributary-dev/tributary/pkg/dedupkv"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/jobs"
	"github.com/tributary-dev/tributary/pkg/trace"
)

// OnError says what becomes of an effect while KV dedup is away.
type OnError string

// What becomes of effects while KV is away.
const (
	Wait OnError = "wait" // they wait
	Run  OnError = "run"  // they run without a claim, and may be repeated
)

// Options are what a Worker may be given. The zero value works, but for ID and Partitions.
type Options struct {
	ID              string        // names this worker among all: letters, digits, _ and -
	Partitions      int           // of EVENTS
	Concurrency     int           // effects that are under way at the same time; 64 where it is 0
	MaxAckPending   int           // events of one partition in hand; 2048 where it is 0
	PartitionBytes  int           // of events of one partition that are not settled; 4 MiB where it is 0
	OnError         OnError       // Wait where it is empty
	ShutdownTimeout time.Duration // from the end of Run's context to the end of Run; 10 s where it is 0
	Log             *slog.Logger
	Metrics         *Metrics
	ParkMaxAge      time.Duration // after which what waits for a circuit is given up; 24 h where it is 0
	Ledgers         *dedupkv.Metrics
	Random          func() float64 // in [0,1), for jitter
}

func (o *Options) fill() error {
	set := func(v *int, fallback int) {
		if *v == 0 {
			*v = fallback
		}
	}
	set(&o.Concurrency, 64)
	set(&o.MaxAckPending, 2048)
	set(&o.PartitionBytes, 4<<20)
	if o.OnError == "" {
		o.OnError = Wait
	}
	if o.ShutdownTimeout == 0 {
		o.ShutdownTimeout = 10 * time.Second
	}
	if o.ParkMaxAge == 0 {
		o.ParkMaxAge = 24 * time.Hour
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Metrics == nil {
		o.Metrics = NewMetrics(nil)
	}
	if o.Random == nil {
		o.Random = rand.Float64
	}
	const mostPartitions = 1000 // subjects have three digits
	switch {
	case !validID(o.ID):
		return fmt.Errorf("worker.id must be 1 to 64 letters, digits, _ or -, got %q", o.ID)
	case o.Partitions < 1 || o.Partitions > mostPartitions:
		return fmt.Errorf("worker: partitions must be 1 to %d, got %d", mostPartitions, o.Partitions)
	case o.Concurrency < 1:
		return fmt.Errorf("worker.concurrency must be at least 1, got %d", o.Concurrency)
	case o.MaxAckPending < 1:
		return fmt.Errorf("worker.max_ack_pending must be at least 1, got %d", o.MaxAckPending)
	case o.PartitionBytes < 1:
		return fmt.Errorf("worker.partition_bytes must be at least 1, got %d", o.PartitionBytes)
	case o.OnError != Wait && o.OnError != Run:
		return fmt.Errorf("dedup.on_error must be wait or run, got %q", o.OnError)
	case o.ParkMaxAge < 0:
		return fmt.Errorf("circuits.park_max_age must be at least 0s, got %s", o.ParkMaxAge)
	case o.ShutdownTimeout < 0:
		return fmt.Errorf("shutdown_timeout must be at least 0, got %s", o.ShutdownTimeout)
	}
	return nil
}

func validID(id string) bool {
	const longest = 64
	for i := range len(id) {
		c := id[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (c < '0' || c > '9') && c != '_' && c != '-' {
			return false
		}
	}
	return id != "" && len(id) <= longest
}

// Worker is one of the workers that share the partitions of EVENTS.
type Worker struct {
	js        jetstream.JetStream
	nc        *nats.Conn
	rules     rules
	dedup     *dedupkv.Store
	jobs      queue
	dead      deadLetters
	actions   doer
	traces    *trace.Recorder   // nil where nothing is recorded
	circuits  *circuit.Circuits // nil: every endpoint is called, whatever became of the calls before
	lookups   lookups           // nil where there are none
	seals     seals
	options   Options
	log       *slog.Logger
	metrics   *Metrics
	started   time.Time
	members   *members
	scheduler *scheduler

	// Contexts of a run, set by it before anything else starts: of actions, and of settling, which ends last.
	acting, settling context.Context

	unrecorded atomic.Int64 // effects that have ended, and whose record is on its way

	mu         sync.Mutex
	partitions map[int]*assigned // guarded by mu
}

// assigned is a partition with the goroutine that holds it.
type assigned struct {
	*partition
	leave context.CancelFunc
	done  chan struct{} // closed when it is over
}

// Parts are what a Worker works with. All of them but Traces, Circuits and Lookups are required, and are shared with others;
// without Lookups no observer may have any.
type Parts struct {
	Rules       rules
	Dedup       *dedupkv.Store
	Jobs        queue
	DeadLetters deadLetters
	Actions     doer
	Traces      *trace.Recorder
	Circuits    *circuit.Circuits // which endpoints may be called; nil: all
	Lookups     lookups
}

type queue interface {
	// Enqueue stores a job once, by its effect key. It errs with jobs.ErrInvalid where no waiting helps.
	Enqueue(ctx context.Context, job jobs.New) error
	// Resume completes what a job that is there needs to go on. It errs with jobs.ErrNotFound.
	Resume(ctx context.Context, effectKey string) error
	// First gives the job that is first in a lane. It errs with jobs.ErrNotFound.
	First(ctx context.Context, lane *jobs.Lane) (effectKey string, err error)
	// Hold makes a lane wait for an effect that has died. It errs with jobs.ErrInvalid where no waiting helps.
	Hold(ctx context.Context, job jobs.New, reason deadletter.Reason, cause string, letter uint64) error
}

type deadLetters interface {
	// Store stores a record once, by its ID, and gives its sequence. It errs with deadletter.ErrInvalid where no waiting
	// helps.
	Store(ctx context.Context, record deadletter.Record) (sequence uint64, err error)
}

// New gives a Worker. Its streams and buckets must exist when it runs.
func New(js jetstream.JetStream, parts Parts, options Options) (*Worker, error) {
	if err := options.fill(); err != nil {
		return nil, err
	}
	w := &Worker{
		js: js, nc: js.Conn(), rules: parts.Rules, dedup: parts.Dedup, jobs: parts.Jobs, dead: parts.DeadLetters,
		actions: parts.Actions, traces: parts.Traces, options: options, log: options.Log.With("worker", options.ID), metrics: options.Metrics,
		circuits: parts.Circuits, lookups: parts.Lookups, seals: seals{natskv.Open(js, events.BucketDedup), js.Conn().MaxPayload},
		started: time.Now(), partitions: make(map[int]*assigned),
	}
	w.members = newMembers(js, options.ID, w.log, w.clock, w.Status)
	w.scheduler = newScheduler(options.Concurrency, w.run)
	if w.circuits != nil {
		w.scheduler.pace = w.circuits
		w.circuits.OnChange(func(string) { w.tendAll() })
	}
	return w, nil
}

// clock is monotonic, and goes on while the process is stopped.
func (w *Worker) clock() time.Duration { return time.Since(w.started) }

// Run works until ctx ends, and returns when all that it started has ended: it lets what is under way end within
// ShutdownTimeout, gives the rest back, and lets go of its partitions. It errs where it can't go on, as when the
// connection was closed. It may be called once.
func (w *Worker) Run(parent context.Context) error {
	ctx, fail := context.WithCancelCause(parent)
	defer fail(nil)
	var stopActing, stopSettling context.CancelCauseFunc
	w.acting, stopActing = context.WithCancelCause(context.WithoutCancel(ctx))
	defer stopActing(nil)
	w.settling, stopSettling = context.WithCancelCause(context.WithoutCancel(ctx))
	defer stopSettling(nil)

	status := w.nc.StatusChanged(nats.CONNECTED, nats.CLOSED)
	defer w.nc.RemoveStatusListener(status)

	var wg sync.WaitGroup
	announcing, stopAnnouncing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopAnnouncing()
	wg.Go(func() {
		if err := w.members.run(announcing); err != nil {
			fail(err)
		}
	})
	err := w.direct(ctx, status)
	if errors.Is(err, nats.ErrConnectionClosed) { // nothing can be settled any more
		stopActing(errStopped)
		stopSettling(errStopped)
	}
	w.members.leave()
	w.shutDown(stopActing, stopSettling)
	stopAnnouncing()
	wg.Wait()
	if parent.Err() != nil {
		return nil
	}
	return err
}

const lookEvery = 200 * time.Millisecond

// direct gives partitions to this worker and takes them away, as the members change, until ctx ends.
func (w *Worker) direct(ctx context.Context, status <-chan nats.Status) error {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case s := <-status:
			if s == nats.CLOSED || w.nc.IsClosed() {
				return fmt.Errorf("work: %w", nats.ErrConnectionClosed)
			}
			w.renew()
		case <-look.C:
		case <-w.members.changed:
		}
		if w.members.known() {
			w.reconcile(ctx)
		}
		w.measure()
	}
}

// tendAll has every partition look after what waits for circuits.
func (w *Worker) tendAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range w.partitions {
		signal(a.ranges.wake)
	}
}

// renew makes every partition be held anew: what was delivered while the connection was away is lost.
func (w *Worker) renew() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range w.partitions {
		a.interrupt(errReconnect)
	}
}

// reconcile starts and stops holding partitions.
func (w *Worker) reconcile(ctx context.Context) {
	owners := assign(w.members.live(), w.options.Partitions)
	w.mu.Lock()
	defer w.mu.Unlock()
	for number, owner := range owners {
		a, there := w.partitions[number]
		if there && a.over() {
			delete(w.partitions, number)
			there = false
		}
		switch mine := owner == w.options.ID; {
		case there && !mine:
			a.leave()
		case mine && !there:
			w.partitions[number] = w.take(ctx, number)
		}
	}
}

func (w *Worker) take(ctx context.Context, number int) *assigned {
	ctx, leave := context.WithCancel(ctx)
	a := &assigned{partition: newPartition(w, number), leave: leave, done: make(chan struct{})}
	go func() { // awaited by shutDown
		defer close(a.done)
		defer leave()
		a.run(ctx)
	}()
	return a
}

func (a *assigned) over() bool {
	select {
	case <-a.done:
		return true
	default:
		return false
	}
}

// shutDown waits for the partitions to be let go of. Actions have most of the time that there is, settling the rest.
func (w *Worker) shutDown(stopActing, stopSettling context.CancelCauseFunc) {
	most := w.options.ShutdownTimeout
	acting := time.AfterFunc(most*4/5, func() { stopActing(errStopped) })
	defer acting.Stop()
	settling := time.AfterFunc(most, func() { stopSettling(errStopped) })
	defer settling.Stop()
	w.mu.Lock()
	partitions := w.partitions
	w.partitions = make(map[int]*assigned)
	w.mu.Unlock()
	for _, a := range partitions {
		a.leave()
	}
	for _, a := range partitions {
		<-a.done
	}
	w.scheduler.close()
	w.measure()
}
