package inspect

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/tributary-dev/tributary/internal/natskv"
	"github.com/tributary-dev/tributary/internal/natstest"
	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/deadletter"
	"github.com/tributary-dev/tributary/pkg/dedupkv"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/ingest"
	"github.com/tributary-dev/tributary/pkg/jobs"
	"github.com/tributary-dev/tributary/pkg/observers"
	"github.com/tributary-dev/tributary/pkg/retry"
	"github.com/tributary-dev/tributary/streams"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func setUp(t *testing.T) (*System, jetstream.JetStream) {
	t.Helper()
	js := natstest.Start(t).JetStream(t)
	if _, err := streams.Apply(t.Context(), js, streams.Options{Partitions: 1}); err != nil {
		t.Fatal(err)
	}
	s, err := New(js, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s, js
}

func publish(t *testing.T, js jetstream.JetStream, subject string, data []byte) {
	t.Helper()
	if _, err := js.Publish(t.Context(), subject, data); err != nil {
		t.Fatal(err)
	}
}

func position(t *testing.T, js jetstream.JetStream, source string, p ingest.Position) {
	t.Helper()
	data, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	publish(t, js, events.PositionSubject(source), data)
}

// row stores an insert under a commit and an incarnation, and gives its id.
func row(t *testing.T, js jetstream.JetStream, incarnation, commit uint64) string {
	t.Helper()
	change := events.Change{
		ID: events.AppendChangeID(nil, "shop", incarnation, events.LSN(commit), 7, 1), Source: "shop", Op: events.OpInsert, Schema: "public",
		Table: "orders", Time: time.Now(), PartitionKey: []byte("public.orders/1"), Sequence: events.Sequence{Commit: commit, Index: 1},
		After: []byte(`{"id":1}`), InTransaction: true, XID: 7, Commit: events.LSN(commit), Last: true,
	}
	publish(t, js, "events.000.shop.public.orders.insert", events.AppendChange(nil, &change))
	return string(change.ID)
}

func TestSourceIsStoredUpToTheLaterOfEventAndPosition(t *testing.T) {
	s, js := setUp(t)
	source := func() Source {
		t.Helper()
		list, err := s.Sources(t.Context())
		if err != nil || len(list) != 1 {
			t.Fatalf("%+v, %v", list, err)
		}
		return list[0]
	}
	position(t, js, "shop", ingest.Position{V: 1, Epoch: 1, Incarnation: 2, Phase: ingest.PhaseStreaming, EndLSN: 0x50})
	if got := source(); got.Stored != 0x50 || got.LastEvent != "" || got.Leader != "" || got.Lag.Seconds == nil || got.Lag.Bytes != nil {
		t.Errorf("with a position: %+v", got)
	}
	row(t, js, 1, 0x900) // of the database that was there before
	if got := source(); got.Stored != 0x50 || got.LastEvent != "" {
		t.Errorf("with an event of an earlier incarnation: %+v", got)
	}
	id := row(t, js, 2, 0x100)
	if got := source(); got.Stored != 0x101 || got.LastEvent != id {
		t.Errorf("with an event: %+v", got)
	}
	position(t, js, "shop", ingest.Position{V: 1, Epoch: 4, Incarnation: 2, Phase: ingest.PhaseStreaming, EndLSN: 0x200})
	lease := []byte(`{"owner":"ingest-a","nonce":"1"}`)
	if _, err := natskv.Open(js, events.BucketLeases).Put(t.Context(), "ingest.shop", lease, 0); err != nil {
		t.Fatal(err)
	}
	if got := source(); got.Stored != 0x200 || got.Epoch != 4 || got.Leader != "ingest-a" {
		t.Errorf("with a later position: %+v", got)
	}
}

func TestInboxLagsByTheMessagesThatWait(t *testing.T) {
	s, js := setUp(t)
	lag := func() uint64 {
		t.Helper()
		list, err := s.Sources(t.Context())
		if err != nil || len(list) != 1 || list[0].Lag.Messages == nil {
			t.Fatalf("%+v, %v", list, err)
		}
		return *list[0].Lag.Messages
	}
	position(t, js, events.InboxSource, ingest.Position{V: 1, Epoch: 1})
	if got := lag(); got != 0 {
		t.Errorf("empty: %d wait", got)
	}
	for i := range 3 {
		publish(t, js, "publish.web.cart.opened", fmt.Appendf(nil, "%d", i))
	}
	if got := lag(); got != 3 {
		t.Errorf("with three: %d wait", got)
	}
	position(t, js, events.InboxSource, ingest.Position{V: 1, Epoch: 1, CommitLSN: 2, EndLSN: 3})
	if got := lag(); got != 1 {
		t.Errorf("with two of them stored: %d wait", got)
	}
	position(t, js, events.InboxSource, ingest.Position{V: 1, Epoch: 1, CommitLSN: 3, EndLSN: 4})
	if got := lag(); got != 0 {
		t.Errorf("with all stored: %d wait", got)
	}
}

func TestChangesOfSeveralIncarnationsAreFound(t *testing.T) {
	s, js := setUp(t)
	var ids []string
	for incarnation := uint64(1); incarnation <= 3; incarnation++ {
		for i := uint64(1); i <= 40; i++ {
			ids = append(ids, row(t, js, incarnation, (5-incarnation)*0x1000+i)) // each begins lower than the one before
		}
	}
	for i, id := range ids {
		e, err := s.Event(t.Context(), id)
		if err != nil || e.Sequence != uint64(i+1) {
			t.Fatalf("%s: %+v, %v", id, e, err)
		}
	}
	if _, err := s.Event(t.Context(), "shop-4-0000000000000001-7-1"); !errors.Is(err, ErrNotFound) {
		t.Errorf("of a later incarnation: %v", err)
	}
}

func TestEffectIsExplainedThroughItsLife(t *testing.T) {
	s, js := setUp(t)
	set, err := observers.Parse("observers.yaml", []byte("observers: [{name: o, actions: [{name: a, type: log, message: hi}]}]"))
	if err != nil {
		t.Fatal(err)
	}
	id := row(t, js, 1, 0x100)
	key := events.EffectKey(id, "o", "a")
	state := func() EffectState {
		t.Helper()
		e, err := s.Event(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		x, err := s.Explain(t.Context(), e, set)
		if err != nil || len(x.Observers) != 1 || len(x.Observers[0].Effects) != 1 {
			t.Fatalf("%+v, %v", x, err)
		}
		return x.Observers[0].Effects[0].State
	}
	is := func(when string, want EffectState) {
		t.Helper()
		if got := state(); got != want {
			t.Errorf("%s it is %s, want %s", when, got, want)
		}
	}
	is("before anybody has begun it", EffectPending)
	claim, err := s.dedup.Claim(t.Context(), key, dedupkv.Owner{Worker: "w", Pin: "p"}, set.Generation())
	if err != nil {
		t.Fatal(err)
	}
	is("claimed", EffectUnderWay)
	if err := s.dedup.Settle(t.Context(), key, claim, dedupkv.Handed); err != nil {
		t.Fatal(err)
	}
	effect := actions.Effect{Key: key, EventID: id, Observer: "o", Action: "a"}
	request := actions.Request{Type: "log", Timeout: time.Second}
	if err := s.Jobs.Enqueue(t.Context(), jobs.New{Effect: effect, Request: request, Policy: retry.Default(), NotBefore: time.Now().Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	is("handed to a job", EffectJob)
	if _, err := s.Jobs.Cancel(t.Context(), key, time.Hour); err != nil {
		t.Fatal(err)
	}
	if err := deadletter.New(js).Write(t.Context(), deadletter.Record{Reason: deadletter.Exhausted, EffectKey: key, EventID: id, Effect: &effect, Request: &request}); err != nil {
		t.Fatal(err)
	}
	is("given up", EffectDead)
	letters, err := deadletter.List(t.Context(), js, 0, 10)
	if err != nil || len(letters) != 1 {
		t.Fatal(err)
	}
	if _, err := s.Jobs.Retry(t.Context(), letters[0], jobs.Again{}); err != nil {
		t.Fatal(err)
	}
	is("tried again", EffectJob)
	for _, bucket := range []string{events.BucketJobs, events.BucketDedup} {
		stream, err := js.Stream(t.Context(), "KV_"+bucket)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Purge(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := deadletter.Remove(t.Context(), js, letters[0].Sequence); err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), events.StreamEvents)
	if err != nil {
		t.Fatal(err)
	}
	line := dedupkv.Line{Made: stream.CachedInfo().Created.UnixNano(), Source: "shop", Incarnation: 1}
	if _, err := s.dedup.SaveWatermark(t.Context(), line, events.Sequence{Commit: 0x100, Index: 1}, dedupkv.Watermark{}); err != nil {
		t.Fatal(err)
	}
	is("with no record but the watermark", EffectUnknown)
}

func TestStatusOfWhatIsNotSetUp(t *testing.T) {
	js := natstest.Start(t).JetStream(t)
	s, err := New(js, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Status(t.Context()); !errors.Is(err, ErrNotSetUp) {
		t.Errorf("got %v", err)
	}
}
