package worker

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// newTestHold gives a hold without a server, on a clock that the test moves.
func newTestHold(now *time.Duration) *hold {
	return &hold{pin: "p", inbox: "i", expected: 1, clock: func() time.Duration { return *now }}
}

func answer(h *hold, n int, status, description string) error {
	msg := &nats.Msg{Subject: fmt.Sprintf("i.%d", n), Header: nats.Header{headerStatus: {status}, headerDescription: {description}}}
	return h.status(msg, status)
}

func TestHoldLastsFromTheSendingOfTheLastConfirmedPull(t *testing.T) {
	var now time.Duration
	h := newTestHold(&now)
	h.reply()
	if h.sure() {
		t.Error("the hold is sure before any answer")
	}
	now = time.Second
	if err := answer(h, 1, statusConflict, tooLarge); err != nil {
		t.Fatal(err)
	}
	now = pinnedTTL - margin - 1
	if !h.sure() {
		t.Error("the hold is not sure within the pin's time")
	}
	now++
	if h.sure() || !errors.Is(h.expired(), errUnsure) {
		t.Error("the hold is sure after the pin's time")
	}
}

// A process that was stopped finds the answers to what it sent before, and to what it sends as it wakes.
func TestExpiredPullConfirmsOnlyAHoldThatLasts(t *testing.T) {
	var now time.Duration
	h := newTestHold(&now)
	h.reply()
	if err := answer(h, 1, statusTimeout, ""); err != nil || h.sure() {
		t.Fatalf("an expired pull confirms a hold that never was: %v", err)
	}
	h.confirm(1)
	now = 2 * time.Second
	h.reply()
	if err := answer(h, 2, statusTimeout, ""); err != nil {
		t.Fatal(err)
	}
	now = 4 * time.Second
	if !h.sure() {
		t.Error("the expired pull has not prolonged the hold")
	}
	h.reply()
	now = 10 * time.Second // stopped
	if err := answer(h, 3, statusTimeout, ""); err != nil || h.sure() {
		t.Errorf("the hold is sure after a stop: %v", err)
	}
}

func TestStatusSaysWhyAHoldIsOver(t *testing.T) {
	cases := map[string]struct {
		status, description string
		want                error
	}{
		"another pin is in force":         {statusWrongPin, "Nats-Pin-Id mismatch", errPinLost},
		"the consumer was deleted":        {statusConflict, deleted, errNoServer},
		"nobody listens":                  {statusNoServer, "", errNoServer},
		"the leader has changed":          {statusConflict, "Leadership Change", errMoved},
		"a status that nobody knows":      {"499", "", errMoved},
		"a pull has expired":              {statusTimeout, "", nil},
		"there is nothing":                {statusNoMessages, "", nil},
		"the next message is too large":   {statusConflict, tooLarge, nil},
		"a pull is complete but in bytes": {statusConflict, completed, nil},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var now time.Duration
			h := newTestHold(&now)
			h.reply()
			if err := answer(h, 1, c.status, c.description); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestDeliveriesComeWithoutAGapAndUnderThePin(t *testing.T) {
	deliver := func(h *hold, consumer int, pin string) error {
		_, err := h.admit(&nats.Msg{
			Reply:  fmt.Sprintf("$JS.ACK.EVENTS.worker-000.1.%d.%d.1700000000000000000.0", 100+consumer, consumer),
			Header: nats.Header{headerPin: {pin}},
		})
		return err
	}
	var now time.Duration
	h := newTestHold(&now)
	if err := deliver(h, 1, "p"); err != nil || h.last != 101 {
		t.Errorf("first delivery gives %v", err)
	}
	if err := deliver(h, 2, "other"); !errors.Is(err, errPinLost) {
		t.Errorf("delivery under another pin gives %v", err)
	}
	if err := deliver(h, 3, "p"); !errors.Is(err, errGap) {
		t.Errorf("delivery 3 after 1 gives %v", err)
	}
}

func TestParseDelivery(t *testing.T) {
	cases := map[string]struct {
		reply string
		want  delivery
		ok    bool
	}{
		"a plain one":                      {"$JS.ACK.EVENTS.c.1.22.3.1700.0", delivery{22, 3, 1700}, true},
		"one with a domain and an account": {"$JS.ACK.hub.ACC.EVENTS.c.1.22.3.1700.0.rnd", delivery{22, 3, 1700}, true},
		"another subject":                  {"_INBOX.x", delivery{}, false},
		"one that is too short":            {"$JS.ACK.EVENTS.c.1.22", delivery{}, false},
		"letters for a sequence":           {"$JS.ACK.EVENTS.c.1.x.3.1700.0", delivery{}, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got, ok := parseDelivery(c.reply); ok != c.ok || ok && got != c.want {
				t.Errorf("got %+v, %t", got, ok)
			}
		})
	}
}

func FuzzParseDelivery(f *testing.F) {
	f.Add("$JS.ACK.EVENTS.c.1.22.3.1700.0")
	f.Fuzz(func(_ *testing.T, reply string) { parseDelivery(reply) })
}
