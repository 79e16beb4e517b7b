package dedupkv

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// Events are judged in order, and claimed in any.
func TestWhatWasClaimedIsJudgedTheSameAgain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const made = 7
		by := make(map[uint64]string)
		var order []uint64
		generation := 0
		for sequence := uint64(1); sequence <= mostSpans; sequence++ {
			if generation < 5 && rapid.IntRange(0, 5).Draw(t, "swap") == 0 {
				generation++
			}
			if rapid.Bool().Draw(t, "claimed") {
				by[sequence] = fmt.Sprint("g", generation%3) // one may come back
				order = append(order, sequence)
			}
		}
		var j Judged
		for _, sequence := range rapid.Permutation(order).Draw(t, "order") {
			j.note(Judgement{by[sequence], made, sequence})
		}
		for sequence, want := range by {
			if got, ok := j.Of(made, sequence); !ok || got != want {
				t.Fatalf("event %d was judged by %s, and is by %q (%t): %+v", sequence, want, got, ok, j)
			}
		}
		if _, ok := j.Of(made, mostSpans+1); ok {
			t.Error("an event that nobody has claimed an effect of is judged")
		}
		if _, ok := j.Of(made+1, 1); ok {
			t.Error("an event of another stream is judged")
		}
		j.note(Judgement{"new", made + 1, 3})
		if _, ok := j.Of(made, 1); ok {
			t.Error("what was said of a stream that is gone is kept")
		}
	})
}
