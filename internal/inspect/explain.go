package inspect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tributary-dev/tributary/pkg/deadletter"
	"github.com/tributary-dev/tributary/pkg/dedupkv"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/jobs"
	"github.com/tributary-dev/tributary/pkg/observers"
	"github.com/tributary-dev/tributary/pkg/trace"
)

// Explanation is what becomes of an event, and why.
type Explanation struct {
	Event      StoredEvent       `json:"event"`
	Generation string            `json:"generation"` // of the observers that were asked
	Settled    bool              `json:"settled"`    // every effect of the event has been settled, by its partition's watermark
	Observers  []ObserverFinding `json:"observers"`

	// What is on record of the evaluations, oldest first; and since when records are kept, zero where there are none. Partial: there was
	// more than could be looked through.
	Evaluations []Judged  `json:"evaluations"`
	TracedSince time.Time `json:"traced_since,omitzero"`
	Partial     bool      `json:"partial,omitempty"`
}

// ObserverFinding is what one observer makes of the event.
type ObserverFinding struct {
	Observer string         `json:"observer"`
	Matches  bool           `json:"matches"`
	Failed   observers.Step `json:"failed,omitempty"` // source, entity, op or condition, where it does not match
	Wants    string         `json:"wants,omitempty"`  // what the observer asks for at that step
	Error    string         `json:"error,omitempty"`  // where the condition failed rather than being false
	Judged   string         `json:"judged,omitempty"` // what it made of the event when that was evaluated: matches, condition_false or condition_failed
	Gone     bool           `json:"gone,omitempty"`   // it is on record, and not among the observers that were asked now
	Effects  []Effect       `json:"effects"`          // that are due, or on record
}

// EffectState says what became of an effect.
type EffectState string

// The states of effects.
const (
	EffectPending  EffectState = "pending"   // no worker has begun it
	EffectUnderWay EffectState = "under_way" // a worker has begun it
	EffectDone     EffectState = "done"
	EffectJob      EffectState = "job"         // it is tried by jobs, whose record tells how it stands
	EffectDead     EffectState = "dead"        // there is a dead letter
	EffectDryRun   EffectState = "dry_run"     // its observer ran dry: nothing was sent
	EffectDropped  EffectState = "dropped"     // it failed for good, and there is no dead letter (any more)
	EffectUnknown  EffectState = "settled"     // it is settled; how is not on record any more
	EffectNone     EffectState = "not_on_file" // nothing is on record, and no observer of now asks for it
)

// Effect is what is on record of one action for the event.
type Effect struct {
	Action      string         `json:"action,omitempty"` // empty for the dead letter of a condition that failed
	Key         string         `json:"key"`
	State       EffectState    `json:"state"`
	Claim       *dedupkv.Trace `json:"claim,omitempty"` // the worker's record
	Job         *jobs.Record   `json:"job,omitempty"`
	DeadLetters []Letter       `json:"dead_letters,omitempty"`
	Steps       []Step         `json:"steps,omitempty"` // what is on record of it, oldest first
}

// Letter is a dead letter in short.
type Letter struct {
	Sequence uint64            `json:"sequence"` // in DEADLETTERS
	Reason   deadletter.Reason `json:"reason"`
	Error    string            `json:"error,omitempty"`
	Stored   time.Time         `json:"stored"`

	attempts []deadletter.Attempt
}

// noAction stands for the action in the effect key of a condition that failed.
const noAction = "_"

// Explain asks the observers of a set about an event, and reads what is on record: of its evaluations and of each
// attempt in TRACES, of what is under way and of what failed in the jobs and the dead letters.
func (s *System) Explain(ctx context.Context, e *StoredEvent, set *observers.Set) (*Explanation, error) {
	settled, err := s.settled(ctx, e)
	if err != nil {
		return nil, err
	}
	traces, err := s.tracesOf(ctx, e)
	if err != nil {
		return nil, err
	}
	letters, err := s.lettersOf(ctx, e) // behind the traces: a letter is stored before its trace, and what has none was dropped
	if err != nil {
		return nil, err
	}
	x := explaining{s, e, settled, letters, traces}
	explanation := &Explanation{
		Event: *e, Generation: set.Generation(), Settled: settled, Observers: []ObserverFinding{},
		Evaluations: traces.judged, TracedSince: traces.found.Since, Partial: traces.found.Partial,
	}
	view := observers.NewView(e.Address, e.Event, e.Parsed)
	for _, f := range set.Explain(view) {
		finding := ObserverFinding{
			Observer: f.Observer.Name, Matches: f.Matches, Failed: f.Failed, Wants: wants(f), Judged: traces.by(f.Observer.Name),
			Effects: []Effect{},
		}
		if f.Err != nil {
			finding.Error = f.Err.Error()
		}
		if f.Matches || f.Failed == observers.StepCondition || finding.Judged != "" {
			if err := x.addEffects(ctx, &finding, f); err != nil {
				return nil, err
			}
		}
		explanation.Observers = append(explanation.Observers, finding)
	}
	for _, name := range traces.strangers(set) {
		finding := ObserverFinding{Observer: name, Judged: traces.by(name), Gone: true, Effects: []Effect{}}
		if err := x.addRecorded(ctx, &finding); err != nil {
			return nil, err
		}
		explanation.Observers = append(explanation.Observers, finding)
	}
	return explanation, nil
}

// explaining is what an explanation of one event is made of.
type explaining struct {
	*System
	event   *StoredEvent
	settled bool
	letters map[string][]Letter // by effect key
	traces  *traces
}

func wants(f observers.Finding) string {
	source, entity, ops := f.Observer.Match()
	switch f.Failed {
	case observers.StepSource:
		return source
	case observers.StepEntity:
		return entity
	case observers.StepOp:
		return fmt.Sprint(ops)
	case observers.StepCondition:
		return f.Observer.When()
	default:
		return ""
	}
}

// addEffects adds the actions of an observer: all of one that matches, of another those that are on record.
func (x *explaining) addEffects(ctx context.Context, finding *ObserverFinding, f observers.Finding) error {
	names := []string{noAction}
	for _, action := range f.Observer.Actions {
		names = append(names, action.Name)
	}
	for _, name := range names {
		effect, err := x.effect(ctx, f.Observer.Name, name)
		if err != nil {
			return err
		}
		due := f.Matches && name != noAction || f.Err != nil && name == noAction
		if effect.State == EffectNone && due {
			effect.State = EffectPending
			if x.settled {
				effect.State = EffectUnknown
			}
		}
		if effect.State != EffectNone {
			finding.Effects = append(finding.Effects, effect)
		}
	}
	return nil
}

// addRecorded adds the actions that are on record of an observer that is not there any more.
func (x *explaining) addRecorded(ctx context.Context, finding *ObserverFinding) error {
	for _, name := range x.traces.actions(finding.Observer) {
		effect, err := x.effect(ctx, finding.Observer, cmp.Or(name, noAction))
		if err != nil {
			return err
		}
		finding.Effects = append(finding.Effects, effect)
	}
	return nil
}

// effect reads what is on record of one effect. The records of what goes on count first, then traces, and last what dedup
// still knows: it forgets soon.
func (x *explaining) effect(ctx context.Context, observer, name string) (Effect, error) {
	key := events.EffectKey(x.event.EffectID(), observer, name)
	effect := Effect{Key: key, State: EffectNone, DeadLetters: x.letters[key]}
	if name != noAction {
		effect.Action = name
	}
	claim, claimed, err := x.dedup.Look(ctx, x.event.Address.Partition, key)
	if err != nil {
		return effect, err
	}
	if claimed {
		effect.Claim = &claim
		effect.State = stateOf(claim)
	}
	record, err := x.Jobs.Get(ctx, key)
	if err != nil && !errors.Is(err, jobs.ErrNotFound) {
		return effect, err
	}
	steps := x.traces.steps[[2]string{observer, effect.Action}]
	for _, letter := range effect.DeadLetters {
		steps = complete(steps, letter.attempts)
	}
	if err == nil {
		effect.Job = record
		steps = complete(steps, record.Attempts)
	}
	effect.Steps = steps
	effect.settle()
	return effect, nil
}

// settle finds the state that all which is on record says.
func (e *Effect) settle() {
	last := lastOutcome(e.Steps)
	settled := e.State == EffectNone || e.State == EffectUnknown // nothing else tells
	switch {
	case e.Job == nil && last == trace.DryRun:
		e.State = EffectDryRun
	case e.Job != nil && e.Job.State == jobs.Done:
		e.State = EffectDone
	case e.Job != nil && e.Job.State == jobs.Dead:
		e.State = EffectDropped
	case e.Job != nil:
		e.State = EffectJob
	case settled && (last == trace.Done || last == trace.NotDue):
		e.State = EffectDone
	case settled && last == trace.Dead:
		e.State = EffectDropped
	case settled && len(e.Steps) > 0:
		e.State = EffectUnknown
	}
	if len(e.DeadLetters) > 0 && (e.Job == nil || e.Job.State.Settled()) {
		e.State = EffectDead
	}
}

func stateOf(trace dedupkv.Trace) EffectState {
	switch trace.Result {
	case "":
		return EffectUnderWay
	case dedupkv.Done, dedupkv.Skipped:
		return EffectDone
	case dedupkv.Handed:
		return EffectUnknown // unless the job or its dead letter is there to tell
	case dedupkv.Dead:
		return EffectDropped // unless its dead letter is there
	default:
		return EffectUnknown
	}
}

// lettersOf gives the dead letters of an event, by effect key.
func (s *System) lettersOf(ctx context.Context, e *StoredEvent) (map[string][]Letter, error) {
	letters := make(map[string][]Letter)
	err := deadletter.Each(ctx, s.JS, deadletter.Filter{EventID: e.ID}, func(entry deadletter.Entry) error {
		r := &entry.Record
		if entry.Err == nil && r.EffectKey != "" {
			letters[r.EffectKey] = append(letters[r.EffectKey], Letter{entry.Sequence, r.Reason, r.Error, entry.Stored.UTC(), r.Attempts})
		}
		return nil
	})
	return letters, err
}

// settled tells whether the event lies at or below its partition's watermark.
func (s *System) settled(ctx context.Context, e *StoredEvent) (bool, error) {
	stream, err := s.JS.Stream(ctx, events.StreamEvents)
	if err != nil {
		return false, fmt.Errorf("look at %s: %w", events.StreamEvents, err)
	}
	line := dedupkv.Line{Made: stream.CachedInfo().Created.UnixNano(), Source: e.Source, Partition: e.Address.Partition}
	if !e.Address.FromApplication() {
		at, ok := placeOf(e.ID)
		if !ok {
			return false, nil
		}
		line.Incarnation = at.incarnation
	}
	mark, err := s.dedup.Watermark(ctx, line)
	if err != nil {
		return false, err
	}
	return mark.Revision > 0 && e.Parsed.Sequence.Compare(mark.At) <= 0, nil
}

// Matching gives the names of the observers that match.
func (x *Explanation) Matching() []string {
	var names []string
	for _, f := range x.Observers {
		if f.Matches {
			names = append(names, f.Observer)
		}
	}
	return slices.Clip(names)
}
