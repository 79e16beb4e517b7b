package dedupkv_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/tributary-dev/tributary/internal/natskv"
	"github.com/tributary-dev/tributary/internal/natstest"
	"github.com/tributary-dev/tributary/pkg/dedupkv"
	"github.com/tributary-dev/tributary/pkg/events"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const key = "shop-1-0000000000000001-1-1~o~a"

var (
	first  = dedupkv.Owner{Worker: "w1", Pin: "p1"}
	second = dedupkv.Owner{Worker: "w2", Pin: "p2"}
)

func newStore(t *testing.T, options dedupkv.Options) (*dedupkv.Store, jetstream.Stream) {
	t.Helper()
	return newStoreOn(t, natstest.Start(t).JetStream(t), options)
}

func makeBucket(t *testing.T, js jetstream.JetStream) jetstream.Stream {
	t.Helper()
	stream, err := js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: "KV_dedup", Subjects: []string{"$KV.dedup.>"}, MaxMsgsPerSubject: 1, AllowMsgTTL: true, AllowRollup: true,
		DenyDelete: true, Discard: jetstream.DiscardNew,
	})
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

func newStoreOn(t *testing.T, js jetstream.JetStream, options dedupkv.Options) (*dedupkv.Store, jetstream.Stream) {
	t.Helper()
	stream := makeBucket(t, js)
	store, err := dedupkv.New(natskv.Open(js, events.BucketDedup), options)
	if err != nil {
		t.Fatal(err)
	}
	return store, stream
}

func claim(t *testing.T, store *dedupkv.Store, owner dedupkv.Owner, want dedupkv.State) dedupkv.Claim {
	t.Helper()
	got, err := store.Claim(t.Context(), key, owner, "gen")
	if err != nil {
		t.Fatal(err)
	}
	if got.State != want {
		t.Fatalf("claim by %s is %s, want %s", owner.Worker, got.State, want)
	}
	return got
}

func settle(t *testing.T, store *dedupkv.Store, c dedupkv.Claim, result dedupkv.Result) {
	t.Helper()
	if err := store.Settle(t.Context(), key, c, result); err != nil {
		t.Fatal(err)
	}
}

func TestClaimTellsWhatIsSettled(t *testing.T) {
	store, _ := newStore(t, dedupkv.Options{})
	settle(t, store, claim(t, store, first, dedupkv.Fresh), dedupkv.Handed)
	if got := claim(t, store, second, dedupkv.Settled); got.Result != dedupkv.Handed || got.Owner != first {
		t.Errorf("claim of a settled effect gives %+v", got)
	}
}

func TestClaimOverridesAnotherOwnerAndKeepsTheGeneration(t *testing.T) {
	store, _ := newStore(t, dedupkv.Options{})
	old := claim(t, store, first, dedupkv.Fresh)
	got, err := store.Claim(t.Context(), key, second, "newer")
	if err != nil {
		t.Fatal(err)
	}
	if got.State != dedupkv.TakenOver || got.Begun != 2 || got.Generation != "gen" || got.Owner != second {
		t.Errorf("taken over claim is %+v", got)
	}
	if err := store.Settle(t.Context(), key, old, dedupkv.Done); !errors.Is(err, dedupkv.ErrLost) {
		t.Errorf("settle by the old owner gives %v, want ErrLost", err)
	}
	if err := store.Release(t.Context(), key, old); !errors.Is(err, dedupkv.ErrLost) {
		t.Errorf("release by the old owner gives %v, want ErrLost", err)
	}
	settle(t, store, got, dedupkv.Done)
}

func TestClaimAskedAgainByItsOwnerIsTheSame(t *testing.T) {
	store, _ := newStore(t, dedupkv.Options{})
	want := claim(t, store, first, dedupkv.Fresh)
	if got := claim(t, store, first, dedupkv.Fresh); got != want {
		t.Errorf("second claim is %+v, want %+v", got, want)
	}
}

func TestClaimCrashesAfterThreeBeginnings(t *testing.T) {
	store, _ := newStore(t, dedupkv.Options{})
	claim(t, store, first, dedupkv.Fresh)
	claim(t, store, second, dedupkv.TakenOver)
	claim(t, store, first, dedupkv.TakenOver)
	crashed := claim(t, store, second, dedupkv.Crashed)
	claim(t, store, second, dedupkv.Crashed) // nothing was written
	settle(t, store, crashed, dedupkv.Dead)
	claim(t, store, first, dedupkv.Settled)
}

func TestReleaseTakesTheBeginningBack(t *testing.T) {
	store, _ := newStore(t, dedupkv.Options{})
	for range 2 * dedupkv.MostBegun {
		for _, owner := range []dedupkv.Owner{first, second} {
			c, err := store.Claim(t.Context(), key, owner, "gen")
			if err != nil {
				t.Fatal(err)
			}
			if c.Begun != 1 {
				t.Fatalf("begun %d times, want 1", c.Begun)
			}
			if err := store.Release(t.Context(), key, c); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestSettleTwiceIsSuccess(t *testing.T) {
	store, _ := newStore(t, dedupkv.Options{})
	c := claim(t, store, first, dedupkv.Fresh)
	settle(t, store, c, dedupkv.Done)
	settle(t, store, c, dedupkv.Done)
}

func TestOnlyOneOfManyOwnersEndsWithTheClaim(t *testing.T) {
	store, _ := newStore(t, dedupkv.Options{})
	var (
		wg      sync.WaitGroup
		mu      sync.Mutex
		settled int
	)
	for _, owner := range []dedupkv.Owner{first, second, {Worker: "w3", Pin: "p3"}} {
		wg.Go(func() {
			c, err := store.Claim(t.Context(), key, owner, "gen")
			if err != nil {
				t.Error(err)
				return
			}
			if c.State == dedupkv.Settled {
				return
			}
			err = store.Settle(t.Context(), key, c, dedupkv.Done)
			if err != nil && !errors.Is(err, dedupkv.ErrLost) {
				t.Error(err)
			}
			if err == nil {
				mu.Lock()
				settled++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if settled != 1 {
		t.Errorf("%d owners settled the effect, want 1", settled)
	}
}

func TestForgottenRecordExpires(t *testing.T) {
	store, stream := newStore(t, dedupkv.Options{Window: time.Second})
	settle(t, store, claim(t, store, first, dedupkv.Fresh), dedupkv.Done)
	if err := store.Forget(key, dedupkv.Done); err != nil {
		t.Fatal(err)
	}
	claim(t, store, second, dedupkv.Settled) // for the window
	deadline := time.After(time.Minute)
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for {
		info, err := stream.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if info.State.Msgs == 0 {
			break
		}
		select {
		case <-look.C:
		case <-deadline:
			t.Fatal("the record is still there")
		}
	}
	claim(t, store, second, dedupkv.Fresh)
}

func TestWatermarkNeverGoesBack(t *testing.T) {
	store, _ := newStore(t, dedupkv.Options{})
	line := dedupkv.Line{Source: "shop", Incarnation: 1, Partition: 7}
	at := func(commit uint64) events.Sequence { return events.Sequence{Commit: commit, Index: 1} }

	none, err := store.Watermark(t.Context(), line)
	if err != nil || none != (dedupkv.Watermark{}) {
		t.Fatalf("watermark of a new line is %+v, %v", none, err)
	}
	ten, err := store.SaveWatermark(t.Context(), line, at(10), none)
	if err != nil {
		t.Fatal(err)
	}
	// A stale writer, which knows of none, is lower, then higher.
	if got, err := store.SaveWatermark(t.Context(), line, at(5), none); err != nil || got != ten {
		t.Errorf("lower watermark gives %+v, %v, want %+v", got, err, ten)
	}
	if _, err := store.SaveWatermark(t.Context(), line, at(20), none); err != nil {
		t.Error(err)
	}
	got, err := store.Watermark(t.Context(), line)
	if err != nil || got.At != at(20) {
		t.Errorf("watermark is %+v, %v, want 20", got, err)
	}
	other, err := store.Watermark(t.Context(), dedupkv.Line{Source: "shop", Incarnation: 2, Partition: 7})
	if err != nil || !other.At.IsZero() {
		t.Errorf("watermark of another incarnation is %+v, %v", other, err)
	}
}

func TestNewNamesTheKeyOfABadOption(t *testing.T) {
	if _, err := dedupkv.New(nil, dedupkv.Options{Window: time.Millisecond}); err == nil {
		t.Error("a window of 1ms is taken")
	}
	if _, err := dedupkv.New(nil, dedupkv.Options{Window: time.Hour, Hold: time.Minute}); err == nil {
		t.Error("a hold below the window is taken")
	}
}

func BenchmarkClaimAndSettle(b *testing.B) {
	js := natstest.Start(b).JetStream(b)
	if _, err := js.CreateStream(b.Context(), jetstream.StreamConfig{
		Name: "KV_dedup", Subjects: []string{"$KV.dedup.>"}, MaxMsgsPerSubject: 1, AllowMsgTTL: true,
	}); err != nil {
		b.Fatal(err)
	}
	store, err := dedupkv.New(natskv.Open(js, events.BucketDedup), dedupkv.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.SetParallelism(32)
	var n int64
	var mu sync.Mutex
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			mu.Lock()
			n++
			key := events.EffectKey(events.LSN(n).String(), "o", "a")
			mu.Unlock()
			c, err := store.Claim(b.Context(), key, first, "gen")
			if err != nil {
				b.Error(err)
				return
			}
			if err := store.Settle(b.Context(), key, c, dedupkv.Done); err != nil {
				b.Error(err)
				return
			}
			if err := store.Forget(key, dedupkv.Done); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
