package dedupkv

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"github.com/tributary-dev/tributary/pkg/events"
)

// Judgement says by which generation of the rules the event of an effect was judged. Its zero value says nothing.
type Judgement struct {
	Generation string
	Made       int64  // when EVENTS was made, in Unix nanoseconds
	Sequence   uint64 // of the event in EVENTS; 0: it is not told
}

// Judged says by which generations those events of a partition were judged of which effects were claimed: whoever takes the
// partition over judges them by the same, also for the effects that nobody had claimed. Events are judged in order, so it
// is a few spans.
type Judged struct {
	made  int64
	spans []judgedSpan // in order; what lies between two is of the first
}

// judgedSpan is from the first to the last event that is known to be of a generation, without one between them that is of another.
type judgedSpan struct {
	From       uint64 `json:"from"`
	To         uint64 `json:"to"`
	Generation string `json:"generation"`
}

// mostSpans is more than the generations that are kept behind the one in force.
const mostSpans = 16

// Of gives the generation of an event of the stream that was made then; false where none of its effects was claimed, nor of
// an event behind it.
func (j *Judged) Of(made int64, sequence uint64) (generation string, ok bool) {
	i := j.find(sequence)
	if made != j.made || i < 0 || i == len(j.spans)-1 && sequence > j.spans[i].To {
		return "", false
	}
	return j.spans[i].Generation, true
}

func (j *Judged) clone() Judged { return Judged{j.made, slices.Clone(j.spans)} }

// find gives the span that an event lies in; -1 where it lies before all.
func (j *Judged) find(sequence uint64) int {
	for i := len(j.spans) - 1; i >= 0; i-- {
		if j.spans[i].From <= sequence {
			return i
		}
	}
	return -1
}

// note takes a judgement in, and tells whether it is news. Claims need not come in the order of their events.
func (j *Judged) note(by Judgement) (changed bool) {
	at := by.Sequence
	switch {
	case at == 0:
		return false
	case by.Made != j.made:
		*j = Judged{made: by.Made}
	}
	i := j.find(at)
	if i >= 0 && j.spans[i].Generation == by.Generation && at <= j.spans[i].To {
		return false
	}
	spans := j.spans
	if i >= 0 && at <= spans[i].To { // a generation that came back has been taken for never gone
		before, after := spans[i], spans[i]
		before.To, after.From = at-1, at+1
		spans = slices.Replace(spans, i, i+1, before, after)
		if after.From > after.To {
			spans = slices.Delete(spans, i+1, i+2)
		}
		if before.From > before.To {
			spans = slices.Delete(spans, i, i+1)
			i--
		}
	}
	switch next := i + 1; {
	case i >= 0 && spans[i].Generation == by.Generation:
		spans[i].To = at
	case next < len(spans) && spans[next].Generation == by.Generation:
		spans[next].From = at
	default:
		spans = slices.Insert(spans, next, judgedSpan{at, at, by.Generation})
	}
	merged := spans[:1]
	for _, s := range spans[1:] {
		if last := &merged[len(merged)-1]; last.Generation == s.Generation {
			last.To = s.To
		} else {
			merged = append(merged, s)
		}
	}
	spans = merged
	j.spans = spans[max(0, len(spans)-mostSpans):]
	return true
}

// appendJudged writes ,"judged":{"made":…,"spans":[{"from":…,"to":…,"generation":"…"}]}.
func appendJudged(dst []byte, j *Judged) []byte {
	if len(j.spans) == 0 {
		return dst
	}
	dst = append(dst, `,"judged":{"made":`...)
	dst = strconv.AppendInt(dst, j.made, 10)
	dst = append(dst, `,"spans":`...)
	separator := byte('[')
	for _, s := range j.spans {
		dst = append(dst, separator)
		dst = append(dst, `{"from":`...)
		dst = strconv.AppendUint(dst, s.From, 10)
		dst = append(dst, `,"to":`...)
		dst = strconv.AppendUint(dst, s.To, 10)
		dst = append(dst, `,"generation":`...)
		dst = append(events.AppendString(dst, s.Generation), '}')
		separator = ','
	}
	return append(dst, "]}"...)
}

// UnmarshalJSON reads what appendJudged wrote.
func (j *Judged) UnmarshalJSON(data []byte) error {
	var wire struct {
		Made  int64        `json:"made"`
		Spans []judgedSpan `json:"spans"`
	}
	if err := json.Unmarshal(data, &wire); err != nil {
		return fmt.Errorf("decode by which generations events were judged: %w", err)
	}
	if !slices.IsSortedFunc(wire.Spans, func(a, b judgedSpan) int { return cmp.Compare(a.From, b.From) }) {
		return fmt.Errorf("decode by which generations events were judged: %w", errShape)
	}
	*j = Judged{made: wire.Made, spans: wire.Spans}
	return nil
}
