package worker_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/worker"
)

// consumer gives the consumer of a partition as it is now.
func (r *rig) consumer(partition int) *jetstream.ConsumerInfo {
	r.t.Helper()
	consumer, err := r.js.Consumer(r.t.Context(), events.StreamEvents, worker.ConsumerName(partition))
	if err != nil {
		r.t.Fatal(err)
	}
	return consumer.CachedInfo()
}

// hangs makes the effects of a row wait for what it gives to be called.
func (r *rig) hangs(key string) (free func()) {
	held := make(chan struct{})
	entity := string(events.AppendEntityKey(nil, "public", "orders", []byte(key)))
	r.sink.answer = func(ctx context.Context, c call) error {
		if c.key != entity {
			return nil
		}
		select {
		case <-held:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return func() { close(held) }
}

func TestNothingBehindAnEventUnderWayIsAcknowledged(t *testing.T) {
	r := newRig(t, 1, hook)
	free := r.hangs("hangs")
	r.start("w1")
	r.insert("a", "b", "hangs", "c", "d", "e")
	eventually(t, "the others are done", func() bool { return r.sink.done() == 5 })
	eventually(t, "what is before it is acknowledged", func() bool { return r.consumer(0).AckFloor.Stream == 2 })
	r.insert("f") // the server has taken what was said of the others by the time at which it has this one's
	eventually(t, "the next is done", func() bool { return r.sink.done() == 6 })
	if info := r.consumer(0); info.AckFloor.Stream != 2 || info.NumAckPending != 5 {
		t.Errorf("acknowledged up to %d, and %d are not; want 2 and 5", info.AckFloor.Stream, info.NumAckPending)
	}
	free()
	r.settled()
	r.sink.once(t, 7)
}

func TestWhatIsSettledBehindAnEventUnderWayIsNotRepeatedByTheNextOwner(t *testing.T) {
	r := newRig(t, 1, hook)
	free := r.hangs("hangs")
	first := r.start("w1")
	const n = 300 // more than are acknowledged at once
	r.insert("hangs")
	r.insert(keys(n, 50)...)
	eventually(t, "the others are done", func() bool { return r.sink.done() == n })
	first.kill()
	r.start("w2")
	free()
	r.settled()
	// The one under way is begun again. Of the others the last of a lane may not have been on record.
	if extra := r.sink.count() - n - 1; extra > 1+50 {
		t.Errorf("%d effects were repeated, more than one and the last of each lane", extra)
	}
	r.sink.inOrder(t)
}

func TestAnAcknowledgementOfAnEarlierOwnerDoesNotStopThePartition(t *testing.T) {
	r := newRig(t, 1, hook)
	free := r.hangs("hangs")
	w := r.start("w1")
	r.insert("hangs", "a", "b", "c")
	eventually(t, "the others are done", func() bool { return r.sink.done() == 3 })
	// It was sent under numbers that were far higher than those since the reset.
	late := fmt.Sprintf("$JS.ACK.%s.%s.1.1.100000.1700000000000000000.0", events.StreamEvents, worker.ConsumerName(0))
	if err := w.conn.Publish(late, []byte("+ACK")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the server has taken it", func() bool { return r.consumer(0).AckFloor.Consumer == 100_000 })
	free()
	r.settled()
	if w.repins() == 0 {
		t.Error("the partition was not held anew: what the test is about did not happen")
	}
	r.sink.once(t, 4)
}

func TestAConsumerOfAnEarlierReleaseGoesOnWhereItWas(t *testing.T) {
	r := newRig(t, 1, hook)
	r.insert(keys(10, 10)...)
	old, err := r.js.CreateConsumer(t.Context(), events.StreamEvents, jetstream.ConsumerConfig{
		Durable: worker.ConsumerName(0), FilterSubject: events.EventsOfPartition(0), AckPolicy: jetstream.AckExplicitPolicy,
	})
	if err != nil {
		t.Fatal(err)
	}
	batch, err := old.Fetch(6)
	if err != nil {
		t.Fatal(err)
	}
	for msg := range batch.Messages() {
		meta, err := msg.Metadata()
		if err != nil {
			t.Fatal(err)
		}
		if meta.Sequence.Stream == 5 { // it was under way, so what is behind it comes again
			continue
		}
		if err := msg.DoubleAck(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	r.start("w1")
	r.settled()
	r.sink.once(t, 6)
	for _, c := range r.sink.seen() {
		if c.at.Commit <= 4 {
			t.Errorf("the event of commit %d came again", c.at.Commit)
		}
	}
	if info := r.consumer(0); info.Config.AckPolicy != jetstream.AckAllPolicy {
		t.Errorf("acknowledgements are %s", info.Config.AckPolicy)
	}
}
