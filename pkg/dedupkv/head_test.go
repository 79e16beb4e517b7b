package dedupkv

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tributary-dev/tributary/pkg/events"
)

func TestHeadRoundTrips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const partition = 3
		id := func() ID { return ID(rapid.SliceOfN(rapid.Byte(), len(ID{}), len(ID{})).Draw(t, "id")) }
		want := newState(partition)
		for range rapid.IntRange(0, 5).Draw(t, "open") {
			b := beginning{begun: rapid.IntRange(0, 3).Draw(t, "begun"), generation: rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "generation")}
			if b.mine = rapid.Bool().Draw(t, "mine"); !b.mine {
				b.since = int64(rapid.Uint32().Draw(t, "since"))
			}
			want.open[id()] = b
		}
		for range rapid.IntRange(0, 5).Draw(t, "settled") {
			want.settled[id()] = rapid.SampledFrom(results[1:]).Draw(t, "result")
		}
		for range rapid.IntRange(0, 3).Draw(t, "lines") {
			line := Line{
				Made: rapid.Int64().Draw(t, "made"), Source: rapid.StringMatching(`[a-z][a-z0-9_]{0,9}`).Draw(t, "source"),
				Incarnation: rapid.Uint64().Draw(t, "incarnation"), Partition: partition,
			}
			want.reached[line] = events.Sequence{Commit: rapid.Uint64().Draw(t, "commit"), Index: rapid.Uint32().Draw(t, "index")}
		}
		for range rapid.IntRange(0, 5).Draw(t, "judgements") {
			want.judged.note(Judgement{
				Generation: rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "judged by"), Made: rapid.Int64Range(0, 1).Draw(t, "stream"),
				Sequence: rapid.Uint64().Draw(t, "sequence"),
			})
		}
		for range rapid.IntRange(0, 3).Draw(t, "segments") {
			want.segments = append(want.segments, &segment{name: rapid.StringN(1, 20, -1).Draw(t, "name"), left: 7, until: 1 << 31})
		}
		owner := Owner{Worker: rapid.String().Draw(t, "worker"), Pin: "p"}
		got, err := decodeHead(want.encode(9, owner), partition)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(head{9, owner, want}, got, cmp.AllowUnexported(head{}, state{}, beginning{}, sealed{}, segment{}, Judged{}, judgedSpan{})); diff != "" {
			t.Fatal(diff)
		}
		settled, err := decodeSegment(encodeSegment(want.settled))
		if diff := cmp.Diff(want.settled, settled); err != nil || diff != "" {
			t.Fatal(err, diff)
		}
	})
}

func FuzzDecodeHead(f *testing.F) {
	s := newState(0)
	s.open[ID{1}] = beginning{begun: 1, generation: "g", mine: true}
	s.settled[ID{2}] = Done
	f.Add(s.encode(1, Owner{Worker: "w", Pin: "p"}))
	f.Fuzz(func(_ *testing.T, data []byte) {
		if h, err := decodeHead(data, 0); err == nil {
			h.state.encode(h.writes, h.owner)
		}
		if settled, err := decodeSegment(data); err == nil {
			encodeSegment(settled)
		}
	})
}
