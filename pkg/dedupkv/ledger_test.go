package dedupkv_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/internal/natstest"
	"github.com/tributary-dev/tributary/pkg/dedupkv"
	"github.com/tributary-dev/tributary/pkg/events"
)

// owned gives a ledger of its own for an owner, as another process would have it.
func owned(t *testing.T, store *dedupkv.Store, owner dedupkv.Owner) *dedupkv.Ledger {
	t.Helper()
	l := run(t, store)
	own(t, l, owner)
	return l
}

func run(t *testing.T, store *dedupkv.Store) *dedupkv.Ledger {
	t.Helper()
	l := store.Ledger(0, nil)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		l.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return l
}

func own(t *testing.T, l *dedupkv.Ledger, owner dedupkv.Owner) map[dedupkv.Line]events.Sequence {
	t.Helper()
	estate, err := l.Own(t.Context(), owner, nil)
	if err != nil {
		t.Fatal(err)
	}
	return estate.Reached
}

func begin(t *testing.T, l *dedupkv.Ledger, key string, want dedupkv.State) dedupkv.Claim {
	t.Helper()
	c, err := l.Claim(t.Context(), key, "gen")
	if err != nil {
		t.Fatal(err)
	}
	if c.State != want {
		t.Fatalf("claim of %s is %s, want %s", key, c.State, want)
	}
	return c
}

func end(t *testing.T, l *dedupkv.Ledger, key string, c dedupkv.Claim, result dedupkv.Result) {
	t.Helper()
	if err := l.Settle(t.Context(), key, c, result); err != nil {
		t.Fatal(err)
	}
}

func TestLedgerTellsWhatIsSettledToItsNextOwner(t *testing.T) {
	store, _ := newStore(t, dedupkv.Options{})
	l := owned(t, store, first)
	end(t, l, key, begin(t, l, key, dedupkv.Fresh), dedupkv.Handed)
	if c := begin(t, l, key, dedupkv.Settled); c.Result != dedupkv.Handed {
		t.Errorf("settled claim is %+v", c)
	}
	for _, owner := range []dedupkv.Owner{second, first, second} { // what is left moves on with the owners
		if c := begin(t, owned(t, store, owner), key, dedupkv.Settled); c.Result != dedupkv.Handed {
			t.Errorf("settled claim is %+v", c)
		}
	}
}

func TestOwnerThatWasReplacedIsRefused(t *testing.T) {
	store, _ := newStore(t, dedupkv.Options{})
	old := owned(t, store, first)
	c := begin(t, old, key, dedupkv.Fresh)
	heir := owned(t, store, second)
	for name, err := range map[string]error{
		"hold":    old.Holds(t.Context(), key, c),
		"settle":  old.Settle(t.Context(), key, c, dedupkv.Done),
		"release": old.Release(t.Context(), key, c),
		"claim":   claimError(t, old, "another"),
	} {
		if !errors.Is(err, dedupkv.ErrLost) {
			t.Errorf("%s by the old owner gives %v, want ErrLost", name, err)
		}
	}
	taken := begin(t, heir, key, dedupkv.TakenOver)
	if taken.Begun != 2 || taken.Generation != "gen" {
		t.Errorf("taken over claim is %+v", taken)
	}
	end(t, heir, key, taken, dedupkv.Done)
	// A claim from before is lost for good, even where its owner comes back.
	own(t, old, first)
	if err := old.Settle(t.Context(), key, c, dedupkv.Dead); !errors.Is(err, dedupkv.ErrLost) {
		t.Errorf("settle of a claim from before gives %v, want ErrLost", err)
	}
}

func claimError(t *testing.T, l *dedupkv.Ledger, key string) error {
	_, err := l.Claim(t.Context(), key, "gen")
	return err
}

func TestOwnerWithANewPinKeepsWhatItHasBegun(t *testing.T) {
	store, _ := newStore(t, dedupkv.Options{})
	l := owned(t, store, first)
	c := begin(t, l, key, dedupkv.Fresh)
	own(t, l, dedupkv.Owner{Worker: first.Worker, Pin: "later"})
	if err := l.Holds(t.Context(), key, c); err != nil {
		t.Error(err)
	}
	if again := begin(t, l, key, dedupkv.Fresh); again.Begun != 1 {
		t.Errorf("claim asked again is %+v", again)
	}
	end(t, l, key, c, dedupkv.Done)
	end(t, l, key, c, dedupkv.Done) // its answer was lost
}

func TestEffectOfALedgerCrashesAfterThreeBeginnings(t *testing.T) {
	store, _ := newStore(t, dedupkv.Options{})
	for i := range dedupkv.MostBegun {
		c, err := owned(t, store, dedupkv.Owner{Worker: fmt.Sprint("w", i), Pin: "p"}).Claim(t.Context(), key, "gen")
		if err != nil || c.Begun != i+1 {
			t.Fatalf("claim is %+v, %v", c, err)
		}
	}
	l := owned(t, store, second)
	end(t, l, key, begin(t, l, key, dedupkv.Crashed), dedupkv.Dead)
	begin(t, l, key, dedupkv.Settled)
}

func TestReleasedEffectIsBegunAgainByItsGeneration(t *testing.T) {
	store, _ := newStore(t, dedupkv.Options{})
	l := owned(t, store, first)
	for range 2 * dedupkv.MostBegun {
		c, err := l.Claim(t.Context(), key, "gen")
		if err != nil || c.Begun != 1 {
			t.Fatalf("claim is %+v, %v", c, err)
		}
		if err := l.Release(t.Context(), key, c); err != nil {
			t.Fatal(err)
		}
	}
	c, err := owned(t, store, second).Claim(t.Context(), key, "newer")
	if err != nil || c.Begun != 1 || c.Generation != "gen" {
		t.Errorf("claim is %+v, %v", c, err)
	}
}

// An effect that is reserved before its turn counts as begun where its owner dies, but only once.
func TestReservedEffectIsClaimedInItsTurnByTheNextOwner(t *testing.T) {
	store, _ := newStore(t, dedupkv.Options{})
	l := owned(t, store, first)
	c, err := l.Reserve(dedupkv.IDOf(key), dedupkv.Judgement{Generation: "gen"}).Wait(t.Context(), time.Minute)
	if err != nil || c.State != dedupkv.Fresh {
		t.Fatalf("reservation is %+v, %v", c, err)
	}
	l.Reserve(dedupkv.IDOf("given back"), dedupkv.Judgement{Generation: "gen"})
	l.Withdraw(dedupkv.IDOf("given back"))
	if err := l.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	heir := owned(t, store, second)
	for range 2 * dedupkv.MostBegun {
		if _, err := heir.Reserve(dedupkv.IDOf(key), dedupkv.Judgement{Generation: "gen"}).Wait(t.Context(), time.Minute); !errors.Is(err, dedupkv.ErrOpen) {
			t.Fatalf("reservation of what was begun gives %v, want ErrOpen", err)
		}
	}
	begin(t, heir, "given back", dedupkv.Fresh)
	if c := begin(t, heir, key, dedupkv.TakenOver); c.Begun != 2 {
		t.Errorf("claim is %+v", c)
	}
}

func TestLedgerKnowsHowFarItsLinesCame(t *testing.T) {
	store, _ := newStore(t, dedupkv.Options{})
	line := dedupkv.Line{Made: 5, Source: "shop", Incarnation: 1}
	l := owned(t, store, first)
	end(t, l, key, begin(t, l, key, dedupkv.Fresh), dedupkv.Done)
	l.Pass(line, events.Sequence{Commit: 7, Index: 2}, []dedupkv.ID{dedupkv.IDOf(key)})
	l.Pass(line, events.Sequence{Commit: 6}, nil) // never back
	if err := l.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	heir := run(t, store)
	if got := own(t, heir, second)[line]; got != (events.Sequence{Commit: 7, Index: 2}) {
		t.Errorf("the line has reached %s", got)
	}
	if _, there, err := store.Look(t.Context(), 0, key); there || err != nil {
		t.Errorf("what was passed is on record: %t, %v", there, err)
	}
	heir.Saved(line, events.Sequence{Commit: 7, Index: 2})
	if err := heir.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if reached := own(t, run(t, store), first); len(reached) != 0 {
		t.Errorf("the ledger still knows %v", reached)
	}
}

// What is settled above a stuck event is much, and must not be written again with every claim.
func TestSettledEffectsAreSealed(t *testing.T) {
	const many = 5000
	store, stream := newStore(t, dedupkv.Options{})
	l := owned(t, store, first)
	var wait sync.WaitGroup
	for i := range many {
		wait.Go(func() {
			c, err := l.Claim(t.Context(), fmt.Sprint("e", i), "gen")
			if err == nil {
				err = l.Settle(t.Context(), fmt.Sprint("e", i), c, dedupkv.Done)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	begin(t, l, "one more", dedupkv.Fresh)
	if size := sizeOf(t, stream, "$KV.dedup.ledger.000"); size > 32<<10 {
		t.Errorf("the record of the ledger has %d bytes", size)
	}
	if trace, there, err := store.Look(t.Context(), 0, "e7"); !there || err != nil || trace.Result != dedupkv.Done {
		t.Errorf("a sealed effect is %+v, %t, %v", trace, there, err)
	}
	heir := owned(t, store, second)
	ids := make([]dedupkv.ID, many)
	for i := range many {
		begin(t, heir, fmt.Sprint("e", i), dedupkv.Settled)
		ids[i] = dedupkv.IDOf(fmt.Sprint("e", i))
	}
	heir.Forget(ids...)
	if err := heir.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	begin(t, heir, "e7", dedupkv.Fresh)
	if info, err := stream.Info(t.Context()); err != nil || info.State.Msgs != 1 {
		t.Errorf("%d records are left, %v; want the ledger's alone", info.State.Msgs, err)
	}
}

func sizeOf(t *testing.T, stream jetstream.Stream, subject string) int {
	t.Helper()
	msg, err := stream.GetLastMsgForSubject(t.Context(), subject)
	if err != nil {
		t.Fatal(err)
	}
	return len(msg.Data)
}

func TestManyClaimsShareWrites(t *testing.T) {
	const many = 2000
	store, stream := newStore(t, dedupkv.Options{})
	l := owned(t, store, first)
	pending := make([]dedupkv.Pending, many)
	for i := range many {
		pending[i] = l.Reserve(dedupkv.IDOf(fmt.Sprint("e", i)), dedupkv.Judgement{Generation: "gen"})
	}
	for i, p := range pending {
		if c, err := p.Wait(t.Context(), time.Minute); err != nil || c.State != dedupkv.Fresh {
			t.Fatalf("claim %d is %+v, %v", i, c, err)
		}
	}
	if info, err := stream.Info(t.Context()); err != nil || info.State.LastSeq > many/10 {
		t.Errorf("%d writes for %d claims, %v", info.State.LastSeq, many, err)
	}
}

func TestLedgerWithoutItsBucketErrsAndGoesOnWhenItIsThere(t *testing.T) {
	js := natstest.Start(t).JetStream(t)
	store, _ := newStoreOn(t, js, dedupkv.Options{})
	l := owned(t, store, first)
	c := begin(t, l, key, dedupkv.Fresh)
	if err := js.DeleteStream(t.Context(), "KV_dedup"); err != nil {
		t.Fatal(err)
	}
	if err := l.Settle(t.Context(), key, c, dedupkv.Done); err == nil || errors.Is(err, dedupkv.ErrLost) {
		t.Errorf("settle without a bucket gives %v", err)
	}
	makeBucket(t, js)
	if err := l.Settle(t.Context(), key, c, dedupkv.Done); !errors.Is(err, dedupkv.ErrLost) {
		t.Errorf("settle in another bucket gives %v, want ErrLost", err)
	}
	own(t, l, first)
	begin(t, l, key, dedupkv.Fresh)
}

func TestLedgerThatHasEndedErrs(t *testing.T) {
	store, _ := newStore(t, dedupkv.Options{})
	l := store.Ledger(0, nil)
	ctx, cancel := context.WithCancelCause(t.Context())
	stopped := errors.New("stopped")
	cancel(stopped)
	l.Run(ctx)
	told := make(chan error, 1)
	l.SettleID(dedupkv.IDOf(key), dedupkv.Claim{}, dedupkv.Done, func(err error) { told <- err })
	if err := <-told; !errors.Is(err, stopped) {
		t.Errorf("settle after the end gives %v", err)
	}
	if err := claimError(t, l, key); !errors.Is(err, stopped) {
		t.Errorf("claim after the end gives %v", err)
	}
}

func TestLedgerThatNobodyOwnsErrs(t *testing.T) {
	store, _ := newStore(t, dedupkv.Options{})
	if err := claimError(t, run(t, store), key); !errors.Is(err, dedupkv.ErrUnowned) {
		t.Errorf("claim gives %v, want ErrUnowned", err)
	}
}

func TestForgottenOwnershipEndsWithItsContext(t *testing.T) {
	store, _ := newStore(t, dedupkv.Options{})
	heir := owned(t, store, second)
	c := begin(t, heir, key, dedupkv.Fresh)
	ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	<-ctx.Done()
	if _, err := run(t, store).Own(ctx, first, nil); err == nil {
		t.Error("a ledger was taken by who had given it up")
	}
	end(t, heir, key, c, dedupkv.Done)
}

// Who was frozen on the way must not take the ledger from the next owner when it wakes, wherever that came in.
func TestLedgerIsNotTakenByWhoHasLostThePartition(t *testing.T) {
	gone := errors.New("the partition is another's")
	for name, before := range map[string]int{"before it is asked": 0, "after it is asked": 1} {
		t.Run(name, func(t *testing.T) {
			store, _ := newStore(t, dedupkv.Options{})
			owned(t, store, dedupkv.Owner{Worker: "the last one"})
			heir := run(t, store)
			var c dedupkv.Claim
			asked := 0
			_, err := run(t, store).Own(t.Context(), first, func(context.Context) error {
				if asked++; asked == 1 { // it stands still here
					own(t, heir, second)
					c = begin(t, heir, key, dedupkv.Fresh)
				}
				if asked > before {
					return gone
				}
				return nil
			})
			if !errors.Is(err, gone) || asked != before+1 {
				t.Errorf("asked %d times, the ledger is taken with %v", asked, err)
			}
			end(t, heir, key, c, dedupkv.Done)
		})
	}
}
