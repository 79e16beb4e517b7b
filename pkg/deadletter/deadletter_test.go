package deadletter

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/tributary-dev/tributary/internal/natstest"
	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/streams"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func setUp(t *testing.T, change ...func(*jetstream.StreamConfig)) (jetstream.JetStream, jetstream.Stream) {
	t.Helper()
	js := natstest.Start(t).JetStream(t)
	if _, err := streams.Apply(t.Context(), js, streams.Options{}); err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), events.StreamDeadLetters)
	if err != nil {
		t.Fatal(err)
	}
	config := stream.CachedInfo().Config
	for _, c := range change {
		c(&config)
		if stream, err = js.UpdateStream(t.Context(), config); err != nil {
			t.Fatal(err)
		}
	}
	return js, stream
}

func sample() Record {
	return Record{
		Reason: Exhausted, EffectKey: "shop-1-0~order-shipped~tell-carrier", EventID: "shop-1-0", Source: "shop",
		Observer: "order-shipped", Action: "tell-carrier", Generation: "0123", Error: "status 500",
		Time:     time.Date(2026, 11, 23, 8, 45, 53, 0, time.UTC),
		Attempts: []Attempt{{Number: 1, Started: time.Unix(1, 0).UTC(), Ended: time.Unix(2, 0).UTC(), Status: 500, Error: "status 500"}},
		Request:  &actions.Request{Type: "webhook", URL: "https://carrier.example", Body: []byte(`{"id":1}`), Timeout: time.Second},
		Effect:   &actions.Effect{Key: "shop-1-0~order-shipped~tell-carrier", EventID: "shop-1-0", Observer: "order-shipped", Action: "tell-carrier"},
		Event:    json.RawMessage(`{"id":"shop-1-0"}`),
	}
}

func messages(t *testing.T, stream jetstream.Stream) uint64 {
	t.Helper()
	info, err := stream.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return info.State.Msgs
}

func TestRecordsReadAsTheyWereWritten(t *testing.T) {
	withoutAction := sample()
	withoutAction.ID, withoutAction.Observer, withoutAction.Action, withoutAction.Reason = "x", "", "", Undecodable
	withoutAction.Raw = []byte{0, 0xFF}
	large := sample()
	large.Event = json.RawMessage(`"` + strings.Repeat("0123456789", 1000) + `"`)
	for name, c := range map[string]struct {
		record  Record
		maxBody int
		subject string
		parts   int
	}{
		"in one message":                 {sample(), 0, "deadletters.exhausted.order-shipped.tell-carrier", 0},
		"without an observer":            {withoutAction, 0, "deadletters.undecodable._._", 0},
		"in parts":                       {large, 3000, "deadletters.exhausted.order-shipped.tell-carrier", 3},
		"in parts that are one too many": {large, 1, "", -1},
	} {
		t.Run(name, func(t *testing.T) {
			if c.parts < 0 {
				c.record.Event, c.parts = nil, len(mustJSON(t, filled(t, withoutEvent(c.record))))-1
				c.subject = "deadletters.exhausted.order-shipped.tell-carrier"
			}
			js, _ := setUp(t)
			w := New(js)
			w.maxBody = c.maxBody
			if err := w.Write(t.Context(), c.record); err != nil {
				t.Fatal(err)
			}
			entries, err := List(t.Context(), js, 0, 10)
			if err != nil || len(entries) != 1 {
				t.Fatalf("List gave %d entries, %v", len(entries), err)
			}
			got := entries[0]
			if diff := cmp.Diff(filled(t, c.record), got.Record); diff != "" || got.Err != nil {
				t.Errorf("%v %s", got.Err, diff)
			}
			if got.Subject != c.subject || len(got.Parts) != c.parts {
				t.Errorf("subject %s, %d parts", got.Subject, len(got.Parts))
			}
			again, err := Get(t.Context(), js, got.Sequence)
			if diff := cmp.Diff(got, again); diff != "" || err != nil {
				t.Errorf("Get: %v %s", err, diff)
			}
		})
	}
}

func withoutEvent(r Record) Record { r.Event = nil; return r }

func filled(t *testing.T, r Record) Record {
	t.Helper()
	if err := r.fill(time.Now()); err != nil {
		t.Fatal(err)
	}
	return r
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestWritingTwiceIsOnce(t *testing.T) {
	for name, maxBody := range map[string]int{"in one message": 0, "in parts": 100} {
		t.Run(name, func(t *testing.T) {
			js, stream := setUp(t)
			w := New(js)
			w.maxBody = maxBody
			write := func(change func(*Record)) {
				t.Helper()
				record := sample()
				change(&record)
				if err := w.Write(t.Context(), record); err != nil {
					t.Fatal(err)
				}
			}
			write(func(*Record) {})
			once := messages(t, stream)
			write(func(*Record) {})
			write(func(r *Record) { r.Error = "another text of another length" })
			if got := messages(t, stream); got != once {
				t.Errorf("%d messages after three writes, %d after one", got, once)
			}
			write(func(r *Record) { r.Round = 1 })
			entries, err := List(t.Context(), js, 0, 10)
			if err != nil || len(entries) != 2 {
				t.Fatalf("List gave %d entries, %v", len(entries), err)
			}
			if entries[0].Record.Error != sample().Error || entries[1].Record.Round != 1 {
				t.Errorf("got %q of round %d, and round %d", entries[0].Record.Error, entries[0].Record.Round, entries[1].Record.Round)
			}
		})
	}
}

func TestAWriteThatWasCutOffIsNotSeenUntilItIsWhole(t *testing.T) {
	js, stream := setUp(t)
	record := filled(t, sample())
	body := mustJSON(t, record)
	w := New(js)
	w.maxBody = len(body)/2 + 1
	head := message(record.subject(), record.messageID(), nil)
	if err := w.Write(t.Context(), record); err != nil {
		t.Fatal(err)
	}
	entries, err := List(t.Context(), js, 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	// A stop between the part and the head leaves the part alone.
	js2, stream2 := setUp(t)
	part, err := stream.GetMsg(t.Context(), entries[0].Parts[0])
	if err != nil {
		t.Fatal(err)
	}
	head.Subject, head.Header, head.Data = part.Subject, part.Header, part.Data
	if _, err := js2.PublishMsg(t.Context(), head); err != nil {
		t.Fatal(err)
	}
	if entries, err := List(t.Context(), js2, 0, 1); err != nil || len(entries) != 0 {
		t.Errorf("List gave %d entries, %v", len(entries), err)
	}
	if _, err := Get(t.Context(), js2, 1); !errors.Is(err, ErrNotFound) {
		t.Errorf("Get of a part: %v", err)
	}
	w2 := New(js2)
	w2.maxBody = w.maxBody
	if err := w2.Write(t.Context(), record); err != nil {
		t.Fatal(err)
	}
	if entries, err = List(t.Context(), js2, 0, 1); err != nil || len(entries) != 1 || messages(t, stream2) != 2 {
		t.Errorf("List gave %d entries of %d messages, %v", len(entries), messages(t, stream2), err)
	}
}

func TestListGoesOnOverWhatCannotBeRead(t *testing.T) {
	js, stream := setUp(t)
	w := New(js)
	w.maxBody = 300
	first, second := sample(), sample()
	second.Round = 1
	for _, r := range []Record{first, second} {
		if err := w.Write(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := List(t.Context(), js, 0, 2)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.DeleteMsg(t.Context(), entries[0].Parts[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "deadletters.mapping._._", []byte("no JSON")); err != nil {
		t.Fatal(err)
	}
	if entries, err = List(t.Context(), js, 0, 10); err != nil || len(entries) != 3 {
		t.Fatalf("List gave %d entries, %v", len(entries), err)
	}
	for i, readable := range []bool{false, true, false} {
		if (entries[i].Err == nil) != readable {
			t.Errorf("entry %d: %v", i, entries[i].Err)
		}
	}
	if rest, err := List(t.Context(), js, entries[0].Sequence+1, 1); err != nil || len(rest) != 1 || rest[0].Sequence != entries[1].Sequence {
		t.Errorf("the second page has %d entries, %v", len(rest), err)
	}
}

func TestWriteRefusesWhatIsNoRecord(t *testing.T) {
	js, stream := setUp(t)
	for name, change := range map[string]func(*Record){
		"an unknown reason":        func(r *Record) { r.Reason = "bored" },
		"neither id nor key":       func(r *Record) { r.EffectKey = "" },
		"an event that is no JSON": func(r *Record) { r.Event = json.RawMessage("{") },
	} {
		t.Run(name, func(t *testing.T) {
			record := sample()
			change(&record)
			if err := New(js).Write(t.Context(), record); !errors.Is(err, ErrInvalid) {
				t.Errorf("got %v", err)
			}
		})
	}
	if n := messages(t, stream); n != 0 {
		t.Errorf("%d messages", n)
	}
}

func TestWriteWaitsForRoom(t *testing.T) {
	js, stream := setUp(t, func(c *jetstream.StreamConfig) { c.MaxMsgs = 1 })
	if err := New(js).Write(t.Context(), sample()); err != nil {
		t.Fatal(err)
	}
	second := sample()
	second.Round = 1
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := New(js).Write(short, second); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a full stream took it: %v", err)
	}
	written := make(chan error)
	go func() { written <- New(js).Write(t.Context(), second) }()
	if err := stream.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-written; err != nil {
		t.Fatal(err)
	}
}
