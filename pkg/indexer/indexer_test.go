package indexer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/internal/stall"
	"github.com/tributary-dev/tributary/pkg/deadletter"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/indexer"
	"github.com/tributary-dev/tributary/pkg/indexer/indextest"
)

var errAway = errors.New("the index is away")

func TestEveryEventIsIndexedOnceAndAcknowledged(t *testing.T) {
	r := newRig(t)
	r.publish(300)
	r.start(indexer.Options{BulkCount: 50})
	r.settled(300)
	r.publish(10)
	r.settled(310)
	if got := r.metric("indexed_total"); got != 310 {
		t.Errorf("%v were counted", got)
	}
	for _, name := range []string{"duplicates_total", "retried_total", "dead_total", "held_bytes"} {
		if got := r.metric(name); got != 0 {
			t.Errorf("%s is %v", name, got)
		}
	}
	if r.metric("bulk_seconds") == 0 {
		t.Error("no bulk was measured")
	}
	r.eventually("the lag is 0", func() bool { return r.metric("lag") == 0 })
}

func TestPositionsAreNoEvents(t *testing.T) {
	r := newRig(t)
	r.store(events.PositionSubject("shop"), []byte(`{}`))
	r.publish(1)
	r.start(indexer.Options{})
	r.settled(1)
}

func TestBulksAreBoundedByCountAndBytes(t *testing.T) {
	m := indextest.Row(1, events.OpInsert, "", `{"id":1,"status":"packed"}`)
	size := len(indextest.Documents(t, m)[0].Body)
	for name, c := range map[string]struct {
		options indexer.Options
		most    int
	}{
		"by count":                           {indexer.Options{BulkCount: 7, BulkAge: time.Hour}, 7},
		"by bytes":                           {indexer.Options{BulkBytes: 5*size + size/2, BulkAge: time.Hour}, 5},
		"by bytes that one document exceeds": {indexer.Options{BulkBytes: size / 2, BulkAge: time.Hour}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.publish(70)
			x := r.start(c.options)
			r.eventually("bulks are written", func() bool { return r.index.count() >= 70-c.most })
			x.stop() // which writes the rest, but for what it had not looked at
			r.start(indexer.Options{Metrics: indexer.NewMetrics(nil), BulkCount: c.most})
			r.settled(70)
			for _, bulk := range r.index.written() {
				if len(bulk) > c.most {
					t.Errorf("a bulk has %d documents, want at most %d", len(bulk), c.most)
				}
			}
		})
	}
}

func TestAgeCountsFromTheFirstDocument(t *testing.T) {
	r := newRig(t)
	r.start(indexer.Options{BulkAge: 200 * time.Millisecond})
	stop := make(chan struct{})
	var stored atomic.Int64
	done := make(chan struct{})
	go func() { // one event after another, each sooner than the age
		defer close(done)
		ticker := time.NewTicker(20 * time.Millisecond)
		defer ticker.Stop()
		for n := 1; ; n++ {
			m := indextest.Row(n, events.OpInsert, "", `{"id":1}`)
			if _, err := r.js.Publish(context.Background(), m.Subject, m.Data); err != nil {
				t.Error(err)
				return
			}
			stored.Store(int64(n))
			select {
			case <-ticker.C:
			case <-stop:
				return
			}
		}
	}()
	r.eventually("a bulk is written while events still come", func() bool { return r.index.count() > 0 })
	if n := stored.Load(); n > 100 {
		t.Errorf("it took %d events", n)
	}
	if first := r.index.written()[0]; len(first) < 2 {
		t.Errorf("the first bulk has %d documents: nothing waited", len(first))
	}
	close(stop)
	<-done
	r.settled(int(stored.Load()))
}

func TestOnlyTheItemsThatWereRejectedAreWrittenAgain(t *testing.T) {
	r := newRig(t)
	let := make(chan struct{})
	r.index.set(func(ctx context.Context, bulk int, ids []string) ([]indexer.Outcome, error) {
		if bulk == 0 {
			outcomes := make([]indexer.Outcome, len(ids))
			for i := range outcomes {
				if i%2 == 1 {
					outcomes[i] = indexer.Outcome{State: indexer.Again, Err: errors.New("status 429")}
				}
			}
			return outcomes, nil
		}
		select {
		case <-let:
		case <-ctx.Done():
		}
		return nil, ctx.Err()
	})
	r.publish(10)
	x := r.start(indexer.Options{BulkCount: 10, BulkAge: time.Hour})
	r.eventually("the rejected ones are written again", func() bool { return len(r.index.written()) == 2 })
	if got, want := r.index.written()[1], []string{id(2), id(4), id(6), id(8), id(10)}; !slices.Equal(got, want) {
		t.Errorf("written again: %v, want %v", got, want)
	}
	r.eventually("the others are acknowledged", func() bool { return r.consumer().NumAckPending == 5 })
	if ok, why := x.ready.is(); ok || !strings.Contains(why, "429") {
		t.Errorf("ready is %v, %q", ok, why)
	}
	close(let)
	r.settled(10)
	r.eventually("it is ready", func() bool { ok, _ := x.ready.is(); return ok })
	if got := r.metric("retried_total"); got != 5 {
		t.Errorf("%v were retried", got)
	}
}

func TestWhatTheIndexRefusesBecomesADeadLetter(t *testing.T) {
	r := newRig(t)
	r.index.set(func(_ context.Context, _ int, ids []string) ([]indexer.Outcome, error) {
		outcomes := make([]indexer.Outcome, len(ids))
		for i := range ids {
			if ids[i] == id(2) {
				outcomes[i] = indexer.Outcome{State: indexer.Refused, Err: errors.New("too deep" + strings.Repeat("!", 5000))}
			}
		}
		return outcomes, nil
	})
	r.publish(3)
	r.start(indexer.Options{})
	r.settled(2)
	dead := r.deadLetters()
	if len(dead) != 1 {
		t.Fatalf("%d dead letters", len(dead))
	}
	got := dead[0].Record
	if got.Reason != deadletter.Mapping || got.EventID != id(2) || !strings.HasPrefix(got.Error, "too deep!") || len(got.Error) > 2100 {
		t.Errorf("%s %s %.20s of %d", got.Reason, got.EventID, got.Error, len(got.Error))
	}
	if want := indextest.Row(2, events.OpInsert, "", `{"id":2,"status":"packed"}`); !bytes.Equal(got.Event, want.Data) || got.Subject != want.Subject {
		t.Errorf("the dead letter has %s under %s", got.Event, got.Subject)
	}
	if n := r.metric("dead_total"); n != 1 {
		t.Errorf("%v dead letters were counted", n)
	}
}

func TestWhatIsNoEventBecomesADeadLetter(t *testing.T) {
	r := newRig(t)
	r.store("events.001.shop.public.orders.insert", []byte("no JSON"))
	r.publish(1)
	r.start(indexer.Options{})
	r.settled(1)
	dead := r.deadLetters()
	if len(dead) != 1 || dead[0].Record.Reason != deadletter.Undecodable || string(dead[0].Record.Raw) != "no JSON" {
		t.Errorf("dead letters: %+v", dead)
	}
}

func TestABulkThatIsRefusedAsAWholeIsSplit(t *testing.T) {
	r := newRig(t)
	r.index.set(func(_ context.Context, _ int, ids []string) ([]indexer.Outcome, error) {
		if len(ids) > 3 || slices.Contains(ids, id(5)) {
			return nil, fmt.Errorf("%w: status 413", indexer.ErrBulkRefused)
		}
		return nil, nil
	})
	r.publish(16)
	r.start(indexer.Options{BulkCount: 16, BulkAge: time.Hour})
	r.settled(15)
	dead := r.deadLetters()
	if len(dead) != 1 || dead[0].Record.EventID != id(5) || !strings.Contains(dead[0].Record.Error, "413") {
		t.Errorf("dead letters: %+v", dead)
	}
}

func TestAnIndexThatIsAwayIsWaitedForInBoundedMemory(t *testing.T) {
	const most = 8 << 20
	r := newRig(t)
	r.index.set(func(context.Context, int, []string) ([]indexer.Outcome, error) { return nil, errAway })
	large := strings.Repeat("x", 20_000)
	const n = 400
	for i := range n {
		m := indextest.Row(i+1, events.OpInsert, "", `{"id":1,"note":"`+large+`"}`)
		r.store(m.Subject, m.Data)
	}
	x := r.start(indexer.Options{QueueBytes: most, BulkBytes: 1 << 20, AckWait: 2 * time.Second})
	r.eventually("it is not ready", func() bool { ok, why := x.ready.is(); return !ok && why == errAway.Error() })
	r.eventually("as much is held as may be", func() bool { return r.metric("held_bytes") > most/3 })
	if tries := len(r.index.written()); tries == 0 {
		t.Error("nothing was tried")
	}
	r.index.set(nil)
	peak := 0.0
	r.eventually("all is indexed", func() bool {
		peak = max(peak, r.metric("held_bytes"))
		return r.index.count() == n
	})
	r.settled(n)
	if peak > most*3/2 {
		t.Errorf("%v bytes were held, want at most %d and a little", peak, most)
	}
	r.eventually("it is ready", func() bool { ok, _ := x.ready.is(); return ok })
}

func TestAnAnswerOfTheWrongLengthIsNotBelieved(t *testing.T) {
	r := newRig(t)
	r.index.set(func(_ context.Context, bulk int, _ []string) ([]indexer.Outcome, error) {
		if bulk == 0 {
			return []indexer.Outcome{{State: indexer.Created}}, nil
		}
		return nil, nil
	})
	r.publish(5)
	r.start(indexer.Options{BulkCount: 5, BulkAge: time.Hour})
	r.settled(5)
}

func TestWhatIsHeldForLongIsNotDeliveredAgain(t *testing.T) {
	r := newRig(t)
	let := make(chan struct{})
	r.index.set(func(ctx context.Context, _ int, _ []string) ([]indexer.Outcome, error) {
		select {
		case <-let:
		case <-ctx.Done():
		}
		return nil, ctx.Err()
	})
	r.publish(5)
	r.start(indexer.Options{AckWait: 600 * time.Millisecond, BulkCount: 2})
	r.eventually("writing began", func() bool { return len(r.index.written()) > 0 })
	hold := time.NewTimer(2 * time.Second) // more than three times as long as an event may be silent
	<-hold.C
	if got := r.consumer().NumRedelivered; got != 0 {
		t.Errorf("%d events were delivered again", got)
	}
	close(let)
	r.settled(5)
	if got := r.metric("duplicates_total"); got != 0 {
		t.Errorf("%v were written twice", got)
	}
}

func TestAStopWritesWhatIsHeld(t *testing.T) {
	r := newRig(t)
	r.publish(5)
	x := r.start(indexer.Options{BulkAge: time.Hour})
	m := indextest.Row(1, events.OpInsert, "", `{"id":1,"status":"packed"}`)
	each := float64(len(m.Data) + len(indextest.Documents(t, m)[0].Body))
	r.eventually("the events are held", func() bool { return r.metric("held_bytes") > 5*each })
	x.stop()
	r.settled(5)
}

func TestAStopLeavesWhatCannotBeWritten(t *testing.T) {
	r := newRig(t)
	r.index.set(func(context.Context, int, []string) ([]indexer.Outcome, error) { return nil, errAway })
	r.publish(5)
	x := r.start(indexer.Options{ShutdownTimeout: 500 * time.Millisecond, AckWait: time.Second})
	r.eventually("writing is tried", func() bool { return len(r.index.written()) > 1 })
	began := stall.Begin(t)
	x.stop()
	began.Within(2*time.Second, "the stop")
	if got := r.consumer().NumAckPending; got != 5 {
		t.Errorf("%d events are unacknowledged, want 5", got)
	}
	r.index.set(nil)
	r.start(indexer.Options{AckWait: time.Second, Metrics: indexer.NewMetrics(nil)})
	r.settled(5)
}

func TestIndexersShareTheEvents(t *testing.T) {
	r := newRig(t)
	for range 3 {
		r.start(indexer.Options{BulkCount: 20, Metrics: indexer.NewMetrics(nil)})
	}
	r.publish(500)
	r.settled(500)
}

func TestARestartOfNATSLosesNothing(t *testing.T) {
	r := newRig(t)
	r.start(indexer.Options{AckWait: time.Second, BulkCount: 20})
	r.publish(200)
	r.eventually("some are indexed", func() bool { return r.index.count() > 0 })
	r.server.Restart(t)
	r.eventually("events can be stored", func() bool {
		_, err := r.js.Stream(t.Context(), events.StreamEvents)
		return err == nil
	})
	r.publish(200)
	r.settled(400)
}

func TestADeletedConsumerIsMadeAgain(t *testing.T) {
	r := newRig(t)
	r.start(indexer.Options{})
	r.publish(5)
	r.settled(5)
	if err := r.js.DeleteConsumer(t.Context(), events.StreamEvents, indexer.ConsumerName); err != nil {
		t.Fatal(err)
	}
	r.publish(5)
	r.settled(10)
	if got := r.metric("duplicates_total"); got != 5 {
		t.Errorf("%v were there already, want the first 5", got)
	}
}

func TestSettingsAreChecked(t *testing.T) {
	r := newRig(t)
	for want, options := range map[string]indexer.Options{
		"indexer.bulk_count must not be negative, got -1":                                  {BulkCount: -1},
		"indexer.bulk_bytes must be at most indexer.queue_bytes (33554432), got 134217728": {BulkBytes: 128 << 20},
	} {
		if _, err := indexer.New(r.js, r.index, deadletter.New(r.js), options); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
