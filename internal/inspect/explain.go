package inspect

import (
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
)

// Explanation is what becomes of an event, and why.
type Explanation struct {
	Event      StoredEvent       `json:"event"`
	Generation string            `json:"generation"` // of the observers that were asked
	Settled    bool              `json:"settled"`    // every effect of the event has been settled, by its partition's watermark
	Observers  []ObserverFinding `json:"observers"`
}

// ObserverFinding is what one observer makes of the event.
type ObserverFinding struct {
	Observer string         `json:"observer"`
	Matches  bool           `json:"matches"`
	Failed   observers.Step `json:"failed,omitempty"` // source, entity, op or condition, where it does not match
	Wants    string         `json:"wants,omitempty"`  // what the observer asks for at that step
	Error    string         `json:"error,omitempty"`  // where the condition failed rather than being false
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
}

// Letter is a dead letter in short.
type Letter struct {
	Sequence uint64            `json:"sequence"` // in DEADLETTERS
	Reason   deadletter.Reason `json:"reason"`
	Error    string            `json:"error,omitempty"`
	Stored   time.Time         `json:"stored"`
}

// noAction stands for the action in the effect key of a condition that failed.
const noAction = "_"

// Explain asks the observers of a set about an event, and reads what is on record of their actions. What observers of
// another generation made of it is on record under their names alone.
func (s *System) Explain(ctx context.Context, e *StoredEvent, set *observers.Set) (*Explanation, error) {
	explanation := &Explanation{Event: *e, Generation: set.Generation(), Observers: []ObserverFinding{}}
	settled, err := s.settled(ctx, e)
	if err != nil {
		return nil, err
	}
	explanation.Settled = settled
	letters, err := s.lettersOf(ctx, e)
	if err != nil {
		return nil, err
	}
	view := observers.NewView(e.Address, e.Event, e.Parsed)
	for _, f := range set.Explain(view) {
		finding := ObserverFinding{Observer: f.Observer.Name, Matches: f.Matches, Failed: f.Failed, Wants: wants(f), Effects: []Effect{}}
		if f.Err != nil {
			finding.Error = f.Err.Error()
		}
		if f.Matches || f.Failed == observers.StepCondition {
			if err := s.addEffects(ctx, e, &finding, f, settled, letters); err != nil {
				return nil, err
			}
		}
		explanation.Observers = append(explanation.Observers, finding)
	}
	return explanation, nil
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
func (s *System) addEffects(ctx context.Context, e *StoredEvent, finding *ObserverFinding, f observers.Finding, settled bool,
	letters map[string][]Letter) error {
	names := []string{noAction}
	for _, action := range f.Observer.Actions {
		names = append(names, action.Name)
	}
	for _, name := range names {
		effect, err := s.effect(ctx, events.EffectKey(e.EffectID(), f.Observer.Name, name), letters)
		if err != nil {
			return err
		}
		due := f.Matches && name != noAction || f.Err != nil && name == noAction
		if effect.State == EffectNone && due {
			effect.State = EffectPending
			if settled {
				effect.State = EffectUnknown
			}
		}
		if name != noAction {
			effect.Action = name
		}
		if effect.State != EffectNone {
			finding.Effects = append(finding.Effects, effect)
		}
	}
	return nil
}

// effect reads what is on record of one effect.
func (s *System) effect(ctx context.Context, key string, letters map[string][]Letter) (Effect, error) {
	effect := Effect{Key: key, State: EffectNone, DeadLetters: letters[key]}
	trace, claimed, err := s.dedup.Look(ctx, key)
	if err != nil {
		return effect, err
	}
	if claimed {
		effect.Claim = &trace
		effect.State = stateOf(trace)
	}
	record, err := s.Jobs.Get(ctx, key)
	switch {
	case err == nil:
		effect.Job = record
		effect.State = EffectJob
		if record.State == jobs.Done {
			effect.State = EffectDone
		}
		if record.State == jobs.Dead {
			effect.State = EffectDropped
		}
	case !errors.Is(err, jobs.ErrNotFound):
		return effect, err
	}
	if len(effect.DeadLetters) > 0 && (effect.Job == nil || effect.Job.State.Settled()) {
		effect.State = EffectDead
	}
	return effect, nil
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
			letters[r.EffectKey] = append(letters[r.EffectKey], Letter{entry.Sequence, r.Reason, r.Error, entry.Stored.UTC()})
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
