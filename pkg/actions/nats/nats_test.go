package nats_test

import (
	"context"
	"strings"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/tributary-dev/tributary/internal/natstest"
	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/actions/actionstest"
	"github.com/tributary-dev/tributary/pkg/actions/nats"
	"github.com/tributary-dev/tributary/pkg/retry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 30 * time.Second

func TestConformance(t *testing.T) {
	actionstest.Run(t, func(t *testing.T) actionstest.Fixture {
		server := natstest.Start(t)
		js := server.JetStream(t)
		stream := makeStream(t, js, "WAREHOUSE", "warehouse.>")
		makeStream(t, js, "FULL", "full.>", func(c *jetstream.StreamConfig) { c.MaxMsgs, c.Discard = 1, jetstream.DiscardNew })
		if _, err := js.Publish(t.Context(), "full.a", nil); err != nil {
			t.Fatal(err)
		}
		makeStream(t, js, "SILENT", "silent.>", func(c *jetstream.StreamConfig) { c.NoAck = true })
		to := func(subject string) actions.Request {
			return actions.Request{Type: nats.Type, URL: subject, Body: []byte(`{"a":"` + actionstest.Payload + `"}`)}
		}
		at := func(subject string) func(*testing.T) actions.Request {
			return func(*testing.T) actions.Request { return to(subject) }
		}
		return actionstest.Fixture{
			Action: nats.New(js), Request: to("warehouse.orders"), Keys: func() []string { return ids(t, stream) },
			Faults: map[actionstest.Fault]func(*testing.T) actions.Request{
				actionstest.Refuses: at("$JS.API.STREAM.PURGE.WAREHOUSE"), actionstest.Fails: at("full.a"), actionstest.Hangs: at("silent.a"),
			},
		}
	})
}

func TestDoStoresAnEffectOnce(t *testing.T) {
	js := natstest.Start(t).JetStream(t)
	stream := makeStream(t, js, "WAREHOUSE", "warehouse.>")
	action := nats.New(js)
	effect := actions.Effect{Key: "a~b~c", Sequence: "01.02"}
	for range 3 {
		request := actions.Request{URL: "warehouse.eu", Body: []byte("{}"), Header: []actions.Header{{Name: "X-Region", Value: "eu"}, {Name: "tributary-sequence", Value: "9"}}}
		if _, err := action.Do(deadline(t), effect, request); err != nil {
			t.Fatal(err)
		}
	}
	msg, err := stream.GetMsg(deadline(t), 1)
	if err != nil {
		t.Fatal(err)
	}
	if got := ids(t, stream); len(got) != 1 || got[0] != effect.Key || string(msg.Data) != "{}" ||
		msg.Header.Get("X-Region") != "eu" || msg.Header.Get("Tributary-Sequence") != effect.Sequence {
		t.Errorf("stored are %q, the first as %s %v", got, msg.Data, msg.Header)
	}
}

func TestDoReachesSubscribersWhereNoStreamListens(t *testing.T) {
	server := natstest.Start(t)
	js := server.JetStream(t)
	action := nats.New(js)
	subscriber := server.Conn(t)
	subscription, err := subscriber.SubscribeSync("plain.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := subscriber.Flush(); err != nil {
		t.Fatal(err)
	}
	for _, subject := range []string{"plain.a", "nobody.is.there"} {
		if _, err := action.Do(deadline(t), actions.Effect{Key: "k"}, actions.Request{URL: subject, Body: []byte("x")}); err != nil {
			t.Fatalf("%s: %v", subject, err)
		}
	}
	msg, err := subscription.NextMsgWithContext(deadline(t))
	if err != nil || msg.Header.Get("Nats-Msg-Id") != "k" || string(msg.Data) != "x" {
		t.Errorf("the subscriber got %v, %v", msg, err)
	}
}

func TestDoNoticesThatAStreamWent(t *testing.T) {
	js := natstest.Start(t).JetStream(t)
	makeStream(t, js, "WAREHOUSE", "warehouse.>")
	action, request := nats.New(js), actions.Request{URL: "warehouse.a"}
	if _, err := action.Do(deadline(t), actions.Effect{Key: "1"}, request); err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteStream(deadline(t), "WAREHOUSE"); err != nil {
		t.Fatal(err)
	}
	if _, err := action.Do(deadline(t), actions.Effect{Key: "2"}, request); err == nil || retry.IsPermanent(err) {
		t.Errorf("a stream that went gave %v, want an error to try again", err)
	}
	if outcome, err := action.Do(deadline(t), actions.Effect{Key: "2"}, request); err != nil || outcome.Detail != "no stream listens" {
		t.Errorf("the next attempt gave %+v, %v", outcome, err)
	}
}

func TestDoRefusesForGood(t *testing.T) {
	js := natstest.Start(t).JetStream(t)
	makeStream(t, js, "SMALL", "small.>", func(c *jetstream.StreamConfig) { c.MaxMsgSize = 100 })
	tests := map[string]actions.Request{
		"an own subject":                {URL: "events.000.shop.public.orders.insert"},
		"a wildcard":                    {URL: "a.*"},
		"a header that rolls up":        {URL: "a", Header: []actions.Header{{Name: "nats-rollup", Value: "all"}}},
		"a header of two lines":         {URL: "a", Header: []actions.Header{{Name: "a", Value: "b\r\nNats-Rollup: all"}}},
		"more than a server takes":      {URL: "a", Body: []byte(strings.Repeat("a", 2<<20))},
		"more than the stream takes":    {URL: "small.a", Body: []byte(strings.Repeat("a", 200))},
		"a name of a header in pieces":  {URL: "a", Header: []actions.Header{{Name: "a: b", Value: "c"}}},
		"a name of a header of nothing": {URL: "a", Header: []actions.Header{{Name: "", Value: "c"}}},
	}
	for name, request := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := nats.New(js).Do(deadline(t), actions.Effect{Key: "k"}, request); !retry.IsPermanent(err) {
				t.Errorf("the attempt gave %v, want a permanent error", err)
			}
		})
	}
}

func TestDoKeepsNothingForLaterWhileNATSIsAway(t *testing.T) {
	server := natstest.Start(t)
	gone := make(chan struct{})
	js := server.JetStream(t, natsgo.DisconnectErrHandler(func(*natsgo.Conn, error) { close(gone) }))
	action, request := nats.New(js), actions.Request{URL: "plain.a"}
	if _, err := action.Do(deadline(t), actions.Effect{Key: "1"}, request); err != nil {
		t.Fatal(err)
	}
	server.Stop()
	<-gone
	if _, err := action.Do(deadline(t), actions.Effect{Key: "2"}, request); err == nil || retry.IsPermanent(err) {
		t.Errorf("the attempt gave %v, want an error to try again", err)
	}
	if n, _ := js.Conn().Buffered(); n > 0 {
		t.Errorf("%d bytes wait for the server's return", n)
	}
}

func makeStream(t *testing.T, js jetstream.JetStream, name, subject string, change ...func(*jetstream.StreamConfig)) jetstream.Stream {
	t.Helper()
	config := jetstream.StreamConfig{Name: name, Subjects: []string{subject}, Storage: jetstream.MemoryStorage}
	for _, c := range change {
		c(&config)
	}
	stream, err := js.CreateStream(deadline(t), config)
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

// ids gives the ids of what a stream holds.
func ids(t *testing.T, stream jetstream.Stream) []string {
	t.Helper()
	info, err := stream.Info(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	if info.State.Msgs == 0 {
		return nil
	}
	for seq := info.State.FirstSeq; seq <= info.State.LastSeq; seq++ {
		msg, err := stream.GetMsg(deadline(t), seq)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, msg.Header.Get("Nats-Msg-Id"))
	}
	return list
}

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}
