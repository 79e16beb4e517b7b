package dedupkv

import (
	"testing"

	"pgregory.net/rapid"
)

func TestRecordRoundTrips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := record{
			result:     Result(rapid.SampledFrom([]Result{"", Done, Handed, Dead, Skipped}).Draw(t, "result")),
			begun:      rapid.IntRange(0, 5).Draw(t, "begun"),
			worker:     rapid.String().Draw(t, "worker"),
			pin:        rapid.StringMatching(`[A-Za-z0-9]*`).Draw(t, "pin"),
			generation: rapid.StringMatching(`[a-f0-9]*`).Draw(t, "generation"),
		}
		got, err := decodeRecord(want.encode())
		if err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Fatalf("got %+v, want %+v", got, want)
		}
	})
}

func FuzzDecodeRecord(f *testing.F) {
	f.Add(record{begun: 1, worker: "w", pin: "p", generation: "g"}.encode())
	f.Fuzz(func(_ *testing.T, data []byte) {
		if r, err := decodeRecord(data); err == nil {
			r.encode()
		}
	})
}
