package dedupkv_test

import (
	"testing"

	"github.com/tributary-dev/tributary/pkg/dedupkv"
)

func TestLookTellsWhatIsOnRecordAndTakesNothing(t *testing.T) {
	store, stream := newStore(t, dedupkv.Options{})
	if _, there, err := store.Look(t.Context(), 0, key); there || err != nil {
		t.Errorf("before: %t, %v", there, err)
	}
	c := claim(t, store, first, dedupkv.Fresh)
	trace, there, err := store.Look(t.Context(), 0, key)
	if want := (dedupkv.Trace{Begun: 1, Worker: "w1", Generation: "gen"}); !there || err != nil || trace != want {
		t.Errorf("claimed: %+v, %t, %v", trace, there, err)
	}
	settle(t, store, c, dedupkv.Handed)
	trace, there, err = store.Look(t.Context(), 0, key)
	if !there || err != nil || trace.Result != dedupkv.Handed || trace.Worker != "w1" {
		t.Errorf("settled: %+v, %t, %v", trace, there, err)
	}
	info, err := stream.Info(t.Context())
	if err != nil || info.State.LastSeq != 2 {
		t.Errorf("%d writes, %v; want those of the claim and the result", info.State.LastSeq, err)
	}
}
