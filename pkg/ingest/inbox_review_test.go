package ingest_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"github.com/tributary-dev/tributary/internal/natstest"
	"github.com/tributary-dev/tributary/pkg/events"
)

func TestLargeMessagesOfInboxAreReadThrough(t *testing.T) {
	const n = 30
	server := natstest.Start(t)
	w := newInboxWorld(t, server)
	large := strings.Repeat("x", 400<<10)
	for i := range n {
		w.publish(t, "publish.web.order.placed", fmt.Sprintf(`{"n":%d,"text":%q}`, i, large), nil)
	}
	w.lead(t, w.inbox())
	eventually(t, "all are stored", func() bool { return w.last(t) == n })
}

// last gives the place of the last message of INBOX that is stored.
func (w *inboxWorld) last(t *testing.T) uint64 {
	stream, err := w.js.Stream(t.Context(), events.StreamEvents)
	if err != nil {
		t.Fatal(err)
	}
	msg, err := stream.GetLastMsgForSubject(t.Context(), events.EventsOfSource("web"))
	if err != nil {
		return 0
	}
	event, err := events.Parse(msg.Data)
	if err != nil {
		t.Fatal(err)
	}
	return event.Sequence.Commit
}

// A power cut may take the tail of INBOX, and leave EVENTS what it held: the same sequences then go to other messages.
func TestMessagesAfterALostTailOfInboxAreStored(t *testing.T) {
	cases := map[string]struct {
		after int  // messages that come then
		live  bool // INBOX is read all the time
	}{
		"fewer than were lost":           {after: 1},
		"as many as were lost, and more": {after: 5},
		"while it is read":               {after: 5, live: true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var store string
			server := natstest.Start(t, func(o *natsserver.Options) { store = o.StoreDir })
			w := newInboxWorld(t, server)
			stop := w.start(t, w.inbox())
			defer func() { stop() }()
			publish := func(what string, n int) {
				for i := range n {
					w.publish(t, "publish.web.order.placed", fmt.Sprintf("\"%s %d\"", what, i), nil)
				}
			}
			publish("kept", 3)
			eventually(t, "three are stored", func() bool { return w.last(t) == 3 })
			inbox, copied := filepath.Join(store, "jetstream", "$G", "streams", "INBOX"), filepath.Join(t.TempDir(), "INBOX")
			server.Stop()
			if err := os.CopyFS(copied, os.DirFS(inbox)); err != nil {
				t.Fatal(err)
			}
			server.Restart(t)
			w.untilAnswered(t)
			publish("lost", 2)
			eventually(t, "five are stored", func() bool { return w.last(t) == 5 })
			if !c.live {
				stop()
			}
			server.Stop()
			if err := errors.Join(os.RemoveAll(inbox), os.CopyFS(inbox, os.DirFS(copied))); err != nil {
				t.Fatal(err)
			}
			server.Restart(t)
			w.untilAnswered(t)
			publish("after", c.after)
			if !c.live {
				stop = w.start(t, w.inbox())
			}
			eventually(t, "what came after is stored", func() bool { return len(w.events(t)) >= 5+c.after })
			ids := map[string]bool{}
			var before events.Sequence
			for i, e := range w.events(t) {
				if ids[e.ID] || e.Sequence.Compare(before) <= 0 {
					t.Errorf("event %d has the id %s, and lies at %s behind %s", i, e.ID, e.Sequence, before)
				}
				ids[e.ID], before = true, e.Sequence
				if want := fmt.Sprintf("\"after %d\"", i-5); i >= 5 && string(e.Data) != want {
					t.Errorf("event %d holds %s, want %s", i, e.Data, want)
				}
			}
		})
	}
}
