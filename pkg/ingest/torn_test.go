package ingest_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/tributary-dev/tributary/internal/natstest"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/ingest"
)

// A power cut may leave the beginning of a batch in EVENTS, and take the mark at its end.
func TestATornBatchOfInboxIsNotStoredAgain(t *testing.T) {
	cases := map[string]struct {
		cut       int  // messages that EVENTS loses, the mark first
		inboxCut  bool // INBOX lost all that was published at last, too
		takeovers int  // before anything is stored again
		want      int  // events in the end
	}{
		"without its mark":                    {cut: 1, want: 60},
		"in the middle":                       {cut: 20, want: 60},
		"over several takeovers":              {cut: 20, takeovers: 3, want: 60},
		"and INBOX has others in their place": {cut: 20, inboxCut: true, want: 10 + 31 + 50},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var store string
			server := natstest.Start(t, func(o *natsserver.Options) { store = o.StoreDir })
			w := newInboxWorld(t, server)
			publish := func(what string, n int) {
				for i := range n {
					w.publish(t, "publish.web.order.placed", fmt.Sprintf("\"%s %d\"", what, i), nats.Header{"Nats-Msg-Id": {fmt.Sprint(what, i)}})
				}
			}
			stop := w.start(t, w.inbox())
			publish("first", 10)
			eventually(t, "the first are stored", func() bool { return len(w.events(t)) == 10 })
			stop()
			inbox, copied := filepath.Join(store, "jetstream", "$G", "streams", "INBOX"), filepath.Join(t.TempDir(), "INBOX")
			server.Stop()
			if err := os.CopyFS(copied, os.DirFS(inbox)); err != nil {
				t.Fatal(err)
			}
			server.Restart(t)
			publish("torn", 50)
			stop = w.start(t, w.inbox())
			eventually(t, "all are stored", func() bool { return len(w.events(t)) == 60 })
			stop()

			stream, err := w.js.Stream(t.Context(), events.StreamEvents)
			if err != nil {
				t.Fatal(err)
			}
			for i := range c.cut {
				if err := stream.DeleteMsg(t.Context(), stream.CachedInfo().State.LastSeq-uint64(i)); err != nil {
					t.Fatal(err)
				}
			}
			if c.inboxCut {
				server.Stop()
				if err := errors.Join(os.RemoveAll(inbox), os.CopyFS(inbox, os.DirFS(copied))); err != nil {
					t.Fatal(err)
				}
				server.Restart(t)
				publish("other", 50)
			}
			for range c.takeovers {
				before := w.takeovers(t)
				stop := w.start(t, &idle{w.inbox().Name()})
				eventually(t, "another takes over", func() bool { return w.takeovers(t) > before })
				stop()
			}
			w.lead(t, w.inbox())
			eventually(t, "all are stored", func() bool { return len(w.events(t)) >= c.want })
			w.publish(t, "publish.web.order.placed", `"end"`, nil)
			eventually(t, "the end is stored", func() bool { return len(w.events(t)) > c.want })
			ids := map[string]bool{}
			var before events.Sequence
			all := w.events(t)
			for i, e := range all {
				if ids[e.ID] || e.Sequence.Compare(before) <= 0 {
					t.Errorf("event %d has the id %s, and lies at %s behind %s", i, e.ID, e.Sequence, before)
				}
				ids[e.ID], before = true, e.Sequence
			}
			if len(all) != c.want+1 || string(all[len(all)-1].Data) != `"end"` {
				t.Errorf("EVENTS holds %d events, and ends with %s", len(all), all[len(all)-1].Data)
			}
		})
	}
}

// idle is a source that gives nothing.
type idle struct{ name string }

func (i *idle) Name() string { return i.name }
func (*idle) Run(ctx context.Context, _ ingest.State, _ *ingest.Feed) error {
	<-ctx.Done()
	return nil
}

func (w *inboxWorld) takeovers(t *testing.T) float64 {
	return w.metric(t, "tributary_ingest_takeovers_total")
}
