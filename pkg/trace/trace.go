// Package trace leaves a record of every evaluation: what the observers made of an event, and each attempt at its
// actions, so that somebody can ask later why an event did what it did.
//
// It promises that recording never blocks, delays or fails the road: what can't be kept or sent is dropped, and
// counted. So a trace explains, and decides nothing: a process that is killed takes its last 200 ms of records with it, and what
// is not on record may have happened all the same. Records hold names, times, statuses and errors, no payloads and no
// secrets. It relies on stream TRACES, whose limits of age and bytes bound what is kept.
//
// Records go together, compressed, one message for each partition and moment. The message's header says of which
// events it speaks, by which a reader finds its own without decoding the others.
package trace

import (
	"encoding/json"
	"time"

	"github.com/tributary-dev/tributary/pkg/events"
)

// Record is one thing that became of an event: either what its observers said, or what became of one effect.
type Record struct {
	Event      string    `json:"-"`                    // the id that keys the event's effects
	Sequence   uint64    `json:"-"`                    // in EVENTS; 0 where the writer does not know it
	At         time.Time `json:"at"`                   // to the microsecond, by the writer's clock
	By         string    `json:"by,omitempty"`         // the worker or the jobrunner; Read sets it
	Generation string    `json:"generation,omitempty"` // of the observers

	Evaluation *Evaluation `json:"evaluation,omitempty"`
	Effect     *Effect     `json:"effect,omitempty"`
}

// Evaluation is what the observers of one generation said of an event. Those for other sources, entities and operations
// are not in it: the generation tells.
type Evaluation struct {
	Matched []string  `json:"matched,omitempty"` // observers, sorted; the first 32
	False   []string  `json:"false,omitempty"`   // observers for such events whose condition was false; the first 16
	Failed  []Failure `json:"failed,omitempty"`  // observers whose condition failed; the first 16
	More    int       `json:"more,omitempty"`    // observers that have no place above
}

// Failure is a condition that failed rather than being false.
type Failure struct {
	Observer string `json:"observer"`
	Error    string `json:"error"`
}

// Effect is what one attempt at an effect, or the lack of one, has led to.
type Effect struct {
	Observer string    `json:"observer"`
	Action   string    `json:"action,omitempty"` // empty where no action was due, as for a condition that failed
	Outcome  Outcome   `json:"outcome"`
	Reason   string    `json:"reason,omitempty"` // of a dead letter
	Attempt  *Attempt  `json:"attempt,omitempty"`
	Error    string    `json:"error,omitempty"` // why there was no attempt
	Next     time.Time `json:"next,omitzero"`   // when it is tried again, at the earliest
	Begun    int       `json:"begun,omitempty"` // how often workers have begun it, where that is more than once
}

// Outcome says what became of an effect. Workers and jobrunners have words of their own beside these.
type Outcome string

// Outcomes that mean the same to all.
const (
	Done    Outcome = "done"    // it was carried out
	Dead    Outcome = "dead"    // it failed for good
	Handed  Outcome = "job"     // it is a job now: the next attempt is the jobrunner's
	Again   Outcome = "again"   // a job that is tried again
	Skipped Outcome = "skipped" // it was settled before
	DryRun  Outcome = "dry_run" // it was rendered, and not sent
	NotDue  Outcome = "not_due" // its condition is false, with what was looked up
	Parked  Outcome = "parked"  // its circuit is open, and it waits
)

// good tells whether nothing has gone wrong: only such records may be left out by sampling.
func (o Outcome) good() bool {
	return o == Done || o == Handed || o == Skipped || o == DryRun || o == NotDue || o == Parked
}

// Attempt is one execution of an action.
type Attempt struct {
	Round   int       `json:"round,omitempty"` // how often the effect had been retried after it had died
	Number  int       `json:"number"`          // from 1, in its round
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended,omitzero"`   // zero where the process that ran it was lost
	Status  int       `json:"status,omitempty"` // of HTTP or SMTP
	Error   string    `json:"error,omitempty"`  // without payloads or secrets; up to 512 bytes
}

// Bounds of one record, so that none is large.
const (
	mostMatched = 32
	mostOthers  = 16
	mostError   = 512
)

// failed tells whether the record speaks of something that went wrong.
func (r *Record) failed() bool {
	if x := r.Effect; x != nil && (!x.Outcome.good() || x.Attempt != nil && x.Attempt.Error != "" || x.Error != "") {
		return true
	}
	return r.Evaluation != nil && len(r.Evaluation.Failed) > 0
}

// line is a record as it is stored. Times are microseconds since 1970, lengths of time microseconds.
type line struct {
	Event      string      `json:"e"`
	Sequence   uint64      `json:"q"`
	At         int64       `json:"t"`
	Generation string      `json:"g"`
	Evaluated  bool        `json:"v"`
	Matched    []string    `json:"m"`
	False      []string    `json:"f"`
	Failed     [][2]string `json:"x"`
	More       int         `json:"l"`
	Observer   string      `json:"o"`
	Action     string      `json:"a"`
	Outcome    Outcome     `json:"r"`
	Reason     string      `json:"y"`
	Number     int         `json:"n"`
	Round      int         `json:"u"`
	Started    int64       `json:"s"`
	Took       *int64      `json:"d"`
	Status     int         `json:"c"`
	Error      string      `json:"w"` // of the attempt, where there was one
	Next       int64       `json:"i"`
	Begun      int         `json:"b"`
}

// appendLine appends r as a line of JSON.
func appendLine(dst []byte, r *Record) []byte {
	dst = events.AppendString(append(dst, `{"e":`...), r.Event)
	dst = appendNumber(dst, `,"q":`, int64(r.Sequence))
	dst = appendNumber(dst, `,"t":`, r.At.UnixMicro())
	dst = appendText(dst, `,"g":`, r.Generation)
	if e := r.Evaluation; e != nil {
		dst = appendEvaluation(dst, e)
	}
	if x := r.Effect; x != nil {
		dst = appendEffect(dst, x)
	}
	return append(dst, "}\n"...)
}

func appendEvaluation(dst []byte, e *Evaluation) []byte {
	matched, others, failed := clip(e.Matched, mostMatched), clip(e.False, mostOthers), clip(e.Failed, mostOthers)
	dst = append(dst, `,"v":true`...)
	dst = appendNames(dst, `,"m":`, matched)
	dst = appendNames(dst, `,"f":`, others)
	if len(failed) > 0 {
		dst = append(dst, `,"x":[`...)
		for i, f := range failed {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = events.AppendString(append(dst, '['), f.Observer)
			dst = events.AppendString(append(dst, ','), shorten(f.Error))
			dst = append(dst, ']')
		}
		dst = append(dst, ']')
	}
	more := e.More + len(e.Matched) - len(matched) + len(e.False) - len(others) + len(e.Failed) - len(failed)
	return appendNumber(dst, `,"l":`, int64(more))
}

func appendEffect(dst []byte, x *Effect) []byte {
	dst = appendText(dst, `,"o":`, x.Observer)
	dst = appendText(dst, `,"a":`, x.Action)
	dst = appendText(dst, `,"r":`, string(x.Outcome))
	dst = appendText(dst, `,"y":`, x.Reason)
	message := x.Error
	if a := x.Attempt; a != nil {
		message = a.Error
		dst = appendNumber(dst, `,"n":`, int64(a.Number))
		dst = appendNumber(dst, `,"u":`, int64(a.Round))
		dst = appendNumber(dst, `,"s":`, a.Started.UnixMicro())
		if !a.Ended.IsZero() {
			dst = append(dst, `,"d":`...)
			dst = appendInt(dst, a.Ended.Sub(a.Started).Microseconds())
		}
		dst = appendNumber(dst, `,"c":`, int64(a.Status))
	}
	dst = appendText(dst, `,"w":`, shorten(message))
	if !x.Next.IsZero() {
		dst = appendNumber(dst, `,"i":`, x.Next.UnixMicro())
	}
	return appendNumber(dst, `,"b":`, int64(x.Begun))
}

// parseLine reads what appendLine wrote.
func parseLine(data []byte) (Record, error) {
	var l line
	if err := json.Unmarshal(data, &l); err != nil {
		return Record{}, err
	}
	r := Record{Event: l.Event, Sequence: l.Sequence, At: moment(l.At), Generation: l.Generation}
	if l.Evaluated {
		r.Evaluation = &Evaluation{Matched: l.Matched, False: l.False, More: l.More}
		for _, f := range l.Failed {
			r.Evaluation.Failed = append(r.Evaluation.Failed, Failure{f[0], f[1]})
		}
	}
	if l.Outcome == "" {
		return r, nil
	}
	x := &Effect{Observer: l.Observer, Action: l.Action, Outcome: l.Outcome, Reason: l.Reason, Begun: l.Begun, Next: moment(l.Next)}
	r.Effect = x
	if l.Number == 0 {
		x.Error = l.Error
		return r, nil
	}
	x.Attempt = &Attempt{Round: l.Round, Number: l.Number, Started: moment(l.Started), Status: l.Status, Error: l.Error}
	if l.Took != nil {
		x.Attempt.Ended = x.Attempt.Started.Add(time.Duration(*l.Took) * time.Microsecond)
	}
	return r, nil
}

func moment(micros int64) time.Time {
	if micros == 0 {
		return time.Time{}
	}
	return time.UnixMicro(micros).UTC()
}
