package inspect

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/pkg/deadletter"
	"github.com/tributary-dev/tributary/pkg/observers"
	"github.com/tributary-dev/tributary/pkg/trace"
)

// Judged is one evaluation of an event, as it is on record.
type Judged struct {
	At         time.Time `json:"at"`
	By         string    `json:"by"`
	Generation string    `json:"generation"`
	trace.Evaluation
}

// Step is one thing that has become of an effect: an attempt, or why there was none.
type Step struct {
	At         time.Time     `json:"at"`
	By         string        `json:"by,omitempty"` // the worker or the jobrunner, where that is on record
	Generation string        `json:"generation,omitempty"`
	Outcome    trace.Outcome `json:"outcome,omitempty"` // empty where only the attempt is on record
	Reason     string        `json:"reason,omitempty"`  // of a dead letter
	Error      string        `json:"error,omitempty"`   // why there was no attempt
	Attempt    *Attempt      `json:"attempt,omitempty"`
	Next       time.Time     `json:"next,omitzero"` // when it was to be tried again
	Begun      int           `json:"begun,omitempty"`
}

// Attempt is one execution of an action.
type Attempt = trace.Attempt

// What an observer made of an event when it was evaluated.
const (
	JudgedMatches = "matches"
	JudgedFalse   = "condition_false"
	JudgedFailed  = "condition_failed"
)

// traces are the records of one event, by what they speak of.
type traces struct {
	found  trace.Found
	judged []Judged
	steps  map[[2]string][]Step // by observer and action
}

// tracesOf reads what is on record of an event, and gives one that was stored just now a moment to get there. Nothing is on
// record where there is no stream yet.
func (s *System) tracesOf(ctx context.Context, e *StoredEvent) (*traces, error) {
	looked := time.Now()
	for {
		t, err := s.tracesNow(ctx, e)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			return t, nil
		}
		if err != nil || len(t.found.Records) > 0 || t.found.Partial {
			return t, err
		}
		// The clock of the server that stored it may be another one.
		if time.Since(looked) > waitForTraces || time.Since(e.Stored) > RecordedWithin {
			return t, nil
		}
		select {
		case <-ctx.Done():
			return t, nil
		case <-time.After(lookForTraces):
		}
	}
}

// RecordedWithin is the age below which an event may not be on record although somebody has evaluated it: traces are written
// some hundred milliseconds behind, many at a time.
const RecordedWithin = 10 * time.Second

const (
	waitForTraces = time.Second // that an event which is younger than that may have
	lookForTraces = 50 * time.Millisecond
)

func (s *System) tracesNow(ctx context.Context, e *StoredEvent) (*traces, error) {
	t := &traces{judged: []Judged{}, steps: make(map[[2]string][]Step)}
	found, err := trace.Read(ctx, s.JS, trace.Query{
		Event: e.EffectID(), Partition: e.Address.Partition, Sequence: e.Sequence, Stored: e.Stored,
	})
	if err != nil {
		return t, err
	}
	t.found = found
	for _, r := range found.Records {
		if r.Evaluation != nil {
			t.judged = append(t.judged, Judged{r.At, r.By, r.Generation, *r.Evaluation})
		}
		if x := r.Effect; x != nil {
			key := [2]string{x.Observer, x.Action}
			t.steps[key] = append(t.steps[key], Step{
				At: r.At, By: r.By, Generation: r.Generation, Outcome: x.Outcome, Reason: x.Reason, Error: x.Error, Attempt: x.Attempt,
				Next: x.Next, Begun: x.Begun,
			})
		}
	}
	return t, nil
}

// by tells what an observer made of the event when it was evaluated last; empty where that is not on record.
func (t *traces) by(observer string) string {
	for _, j := range slices.Backward(t.judged) {
		switch {
		case slices.Contains(j.Matched, observer):
			return JudgedMatches
		case slices.ContainsFunc(j.Failed, func(f trace.Failure) bool { return f.Observer == observer }):
			return JudgedFailed
		case slices.Contains(j.False, observer):
			return JudgedFalse
		}
	}
	return ""
}

// strangers are the observers that are on record, and not among those that were asked now.
func (t *traces) strangers(set *observers.Set) []string {
	known := make(map[string]bool)
	for _, o := range set.Observers() {
		known[o.Name] = true
	}
	var names []string
	add := func(name string) {
		if !known[name] {
			known[name] = true
			names = append(names, name)
		}
	}
	for _, j := range t.judged {
		for _, name := range j.Matched {
			add(name)
		}
		for _, f := range j.Failed {
			add(f.Observer)
		}
		for _, name := range j.False {
			add(name)
		}
	}
	for key := range t.steps {
		add(key[0])
	}
	slices.Sort(names)
	return names
}

// actions gives the actions of an observer that are on record; empty for what was due without one.
func (t *traces) actions(observer string) []string {
	var names []string
	for key := range t.steps {
		if key[0] == observer {
			names = append(names, key[1])
		}
	}
	slices.Sort(names)
	return names
}

// complete adds the attempts that the job and its dead letters know of, and traces do not.
func complete(steps []Step, attempts []deadletter.Attempt) []Step {
	for _, a := range attempts {
		known := slices.ContainsFunc(steps, func(s Step) bool {
			return s.Attempt != nil && s.Attempt.Round == a.Round && s.Attempt.Number == a.Number &&
				s.Attempt.Started.Sub(a.Started).Abs() < time.Millisecond
		})
		if known {
			continue
		}
		at := a.Ended
		if at.IsZero() {
			at = a.Started
		}
		steps = append(steps, Step{At: at, Attempt: &Attempt{
			Round: a.Round, Number: a.Number, Started: a.Started, Ended: a.Ended, Status: a.Status, Error: a.Error,
		}})
	}
	slices.SortStableFunc(steps, func(a, b Step) int { return a.At.Compare(b.At) })
	return steps
}

// lastOutcome is how an effect stood when it was recorded last. That it was skipped says only that it was settled before.
func lastOutcome(steps []Step) trace.Outcome {
	for _, s := range slices.Backward(steps) {
		if s.Outcome != "" && s.Outcome != trace.Skipped {
			return s.Outcome
		}
	}
	return ""
}
