// Package jobs runs effects that may be tried again, until each is done or dead.
//
// It promises that enqueueing an effect twice is once, that an effect is executed at most as often as its policy says,
// over restarts too, that no attempt begins before it is due, and that a job that dies leaves its dead letter before it
// is called dead. It relies on KV jobs, JOBS and DEADLETTERS, and on clocks that agree within seconds. An execution
// whose runner was lost repeats, under the same effect key: whether it took effect can't be known.
//
// The hinge is that the record alone says what is true, and changes by compare-and-swap alone, while a ticket in JOBS is
// no more than a reason to look at a record. So a ticket may come late, twice or not at all:
//   - A ticket names the round and the attempt that it is for; for any other it is stale, and dropped.
//   - A running record names the ticket it runs by. The same message again means that its runner was lost, and the
//     attempt was interrupted; another message is a double, and dropped.
//   - The record changes first, the ticket for what is next follows, and only then is the old ticket acknowledged. Who
//     dies in between leaves the old one, which comes again and mends the gap. RunSweeper mends what is left.
//   - A job of a lane is parked until those before it in the lane have ended: see Lane.
//   - A death is a verdict in the record, then the dead letter, then the state. Only a verdict that was stored writes a
//     dead letter, and who finds one carries it out without executing again.
package jobs

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/deadletter"
	"github.com/tributary-dev/tributary/pkg/retry"
)

// State is where a job stands.
type State string

// The states. Scheduled and ready are told apart by whether the job was due when its record was written.
const (
	Scheduled State = "scheduled"
	Ready     State = "ready"
	Running   State = "running"
	Done      State = "done"
	Dead      State = "dead"
	Cancelled State = "cancelled"
	Parked    State = "parked"
)

// Settled tells whether nothing is left to do.
func (s State) Settled() bool { return s == Done || s == Dead || s == Cancelled }

// OnFailure says what becomes of a job that fails for good.
type OnFailure string

// What becomes of failed jobs.
const (
	DeadLetter OnFailure = "deadletter" // a dead letter
	Alert      OnFailure = "alert"      // a dead letter that is counted as an alert
	Drop       OnFailure = "log"        // a line in the log
)

// DefaultQueue is the queue of jobs that name none.
const DefaultQueue = "default"

// New is a job to enqueue.
type New struct {
	Effect     actions.Effect  // its key is the job's id
	Request    actions.Request // as it was rendered
	Policy     retry.Policy
	OnFailure  OnFailure // DeadLetter where it is not given
	Generation string    // of the observers that rendered the request
	// Attempts are the executions that ended before, oldest first. They count towards the policy's limit.
	Attempts  []deadletter.Attempt
	NotBefore time.Time       // the first attempt here; now where it is zero
	Event     json.RawMessage // the whole envelope, for a dead letter
	Subject   string          // that the event came under
	Queue     string          // DefaultQueue where it is not given
	Lane      *Lane           // that it waits its turn in; nil for none
}

// ErrInvalid marks a job that can't be enqueued, however often it is tried.
var ErrInvalid = errors.New("invalid job")

// ErrTooLarge is the error of a job whose record no message takes.
var ErrTooLarge = fmt.Errorf("%w: too large", ErrInvalid)

// ErrNotFound says that there is no job of an id.
var ErrNotFound = errors.New("job not found")

func (n *New) check() error {
	invalid := func(format string, args ...any) error {
		return fmt.Errorf("%w: %w", ErrInvalid, fmt.Errorf(format, args...))
	}
	if n.Effect.Key == "" {
		return invalid("the effect has no key")
	}
	if n.Request.Timeout <= 0 {
		return invalid("timeout must be above 0, got %s", n.Request.Timeout)
	}
	if err := n.Policy.Validate(); err != nil {
		return invalid("retry: %w", err)
	}
	switch n.OnFailure {
	case "", DeadLetter, Alert, Drop:
	default:
		return invalid("on_failure must be deadletter, alert or log, got %q", n.OnFailure)
	}
	if len(n.Event) > 0 && !json.Valid(n.Event) {
		return invalid("the event is not JSON")
	}
	return nil
}
