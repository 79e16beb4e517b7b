package ingest_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/internal/natstest"
	"github.com/tributary-dev/tributary/pkg/events"
)

func TestRacingLeadersStoreEachEventOnce(t *testing.T) {
	server := natstest.Start(t)
	w := newWorld(t, server)
	for range 4 {
		w.lead(t, &generator{transactions: 400, perTransaction: 50, perBatch: 70, pause: 5 * time.Millisecond})
	}
	w.waitFor(t, 20_000)
	w.verify(t, 20_000)
	if deposed := w.metric(t, "tributary_ingest_takeovers_total"); deposed < 4 {
		t.Errorf("%v takeovers: they did not race", deposed)
	}
}

// fastBatch is what the server promises of fast batches, as far as ingest stands on it.
type fastBatch struct {
	nc      *nats.Conn
	stream  jetstream.Stream
	answers *nats.Subscription
	n       int
}

func newFastBatch(t *testing.T, w *world) *fastBatch {
	t.Helper()
	b := &fastBatch{nc: w.server.Conn(t)}
	var err error
	if b.answers, err = b.nc.SubscribeSync("answers.>"); err == nil {
		b.stream, err = w.js.Stream(t.Context(), events.StreamEvents)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// send sends the next messages; operation is that of the last of them: 1 appends, 2 commits.
func (b *fastBatch) send(t *testing.T, fence uint64, operation int, bodies ...string) {
	t.Helper()
	for i, body := range bodies {
		b.n++
		op := 1
		switch {
		case b.n == 1:
			op = 0
		case i == len(bodies)-1:
			op = operation
		}
		err := b.nc.PublishMsg(&nats.Msg{
			Subject: "events.001.shop.public.orders.insert", Reply: fmt.Sprintf("answers.batch.500.fail.%d.%d.$FI", b.n, op), Data: []byte(body),
			Header: nats.Header{
				"Nats-Expected-Last-Subject-Sequence":         {fmt.Sprint(fence)},
				"Nats-Expected-Last-Subject-Sequence-Subject": {events.PositionSubject("shop")},
			},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := b.nc.Flush(); err != nil {
		t.Fatal(err)
	}
}

// holds waits until EVENTS answers behind all that was sent, and gives the bodies of its events.
func (b *fastBatch) holds(t *testing.T) (bodies []string) {
	t.Helper()
	info, err := b.stream.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for sequence := range info.State.LastSeq {
		msg, err := b.stream.GetMsg(t.Context(), sequence+1)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(msg.Subject, "events.") {
			bodies = append(bodies, string(msg.Data))
		}
	}
	return bodies
}

func (b *fastBatch) heard(t *testing.T, words string) {
	t.Helper()
	for {
		msg, err := b.answers.NextMsg(5 * time.Second)
		if err != nil {
			t.Fatalf("no answer says %s: %v", words, err)
		}
		if strings.Contains(string(msg.Data), words) {
			return
		}
	}
}

func position(t *testing.T, w *world) uint64 {
	t.Helper()
	ack, err := w.js.Publish(t.Context(), events.PositionSubject("shop"), []byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	return ack.Sequence
}

func TestNothingOfAFastBatchIsStoredBehindATakeover(t *testing.T) {
	w := newWorld(t, natstest.Start(t))
	b := newFastBatch(t, w)
	fence := position(t, w)
	b.send(t, fence, 1, "1", "2", "3")
	position(t, w)
	b.send(t, fence, 2, "4", "5", "6")
	b.heard(t, `"count":3`)
	if got := strings.Join(b.holds(t), " "); got != "1 2 3" {
		t.Errorf("EVENTS holds %s", got)
	}
}

func TestAFastBatchEndsAtTheFirstMessageThatFindsNoRoom(t *testing.T) {
	w := newWorld(t, natstest.Start(t))
	w.config.MaxBytes = 10_000
	if _, err := w.js.UpdateStream(t.Context(), w.config); err != nil {
		t.Fatal(err)
	}
	b := newFastBatch(t, w)
	b.send(t, position(t, w), 2, "1", "2", strings.Repeat("x", 20_000), "4", "5")
	b.heard(t, `"count":2`)
	b.heard(t, `"err_code":10208`)
	if got := strings.Join(b.holds(t), " "); got != "1 2" {
		t.Errorf("EVENTS holds %s: what found room overtook what did not", got)
	}
}

func TestAFastBatchEndsWhereAMessageIsMissing(t *testing.T) {
	w := newWorld(t, natstest.Start(t))
	b := newFastBatch(t, w)
	fence := position(t, w)
	b.send(t, fence, 1, "1", "2")
	b.n++ // lost with a connection, of which nobody heard
	b.send(t, fence, 2, "4", "5")
	b.heard(t, `"count":2`)
	if got := strings.Join(b.holds(t), " "); got != "1 2" {
		t.Errorf("EVENTS holds %s", got)
	}
}
