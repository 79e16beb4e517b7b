package worker

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/tributary-dev/tributary/pkg/dedupkv"
	"github.com/tributary-dev/tributary/pkg/events"
)

func at(commit int) events.Sequence { return events.Sequence{Commit: uint64(commit)} }

// The model is a plain set of what is settled: the watermark is the end of its longest unbroken beginning.
func TestWatermarkIsTheEndOfWhatIsSettledWithoutAGap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := &line{}
		var delivered []*entry // since the last restart
		isSettled := make(map[int]bool)
		known := make(map[int]*entry)
		floor, start, next := 0, 0, 1 // what is acknowledged without a gap; the reset point; the next event to be delivered
		published := rapid.IntRange(0, 40).Draw(t, "events")
		var saved dedupkv.Watermark
		freed := make(map[string]bool)

		t.Repeat(map[string]func(*rapid.T){
			"deliver": func(t *rapid.T) {
				if next > published {
					t.Skip("all are delivered")
				}
				n := next
				next++
				if l.past(at(n)) {
					if !isSettled[n] {
						t.Fatalf("event %d is taken for settled", n)
					}
					return
				}
				e, there := known[n]
				if !there {
					e = &entry{at: at(n), line: l, records: []settledRecord{{key: at(n).String()}}}
					known[n] = e
				}
				l.append(e)
				delivered = append(delivered, e)
				l.advance(func(*entry) {})
			},
			"settle": func(t *rapid.T) {
				if len(delivered) == 0 {
					t.Skip("nothing is delivered")
				}
				e := rapid.SampledFrom(delivered).Draw(t, "event")
				e.settled = true
				isSettled[int(e.at.Commit)] = true
				l.advance(func(*entry) {})
			},
			"restart": func(t *rapid.T) {
				for isSettled[floor+1] {
					floor++
				}
				// The server's floor may lie behind ours, never before: acknowledgements get lost.
				start = rapid.IntRange(0, floor).Draw(t, "start")
				next = start + 1
				delivered = nil
				l.restart()
				l.load(saved)
			},
			"save": func(*rapid.T) {
				if !l.unsaved() {
					return
				}
				saved = dedupkv.Watermark{At: l.reached, Revision: saved.Revision + 1}
				for _, r := range l.saved(saved) {
					freed[r.key] = true
				}
			},
			"": func(t *rapid.T) {
				end := 0
				for isSettled[end+1] {
					end++
				}
				if got := int(l.reached.Commit); got > end {
					t.Fatalf("watermark is %d, and %d is not settled", got, end+1)
				}
				// What is before the reset point is settled, and counts with the first event behind it.
				if got, want := int(l.reached.Commit), min(end, next-1); want > start && got < want {
					t.Fatalf("watermark is %d, and all up to %d are settled and delivered", got, want)
				}
				for key := range freed {
					if sequence, _ := events.ParseSequence(key); sequence.Compare(saved.At) > 0 {
						t.Fatalf("record of %s is given up, and only %s is saved", key, saved.At)
					}
				}
			},
		})
	})
}

func TestLoadedWatermarkOfAnotherOwnerCounts(t *testing.T) {
	l := &line{}
	l.load(dedupkv.Watermark{At: at(5), Revision: 1})
	if !l.past(at(5)) || l.past(at(6)) || l.unsaved() {
		t.Errorf("line is %+v after it was loaded", l)
	}
	e := &entry{at: at(7), settled: true} // 6 was another partition's
	l.append(e)
	l.advance(func(*entry) {})
	if !l.past(at(7)) || !l.unsaved() {
		t.Errorf("line is %+v after 7 was settled", l)
	}
}
