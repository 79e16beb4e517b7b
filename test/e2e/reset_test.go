package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/test/harness"
)

// change is what scenarios read of the history.
type change struct {
	Who, Why string
	To       struct{ Epoch, Incarnation uint64 }
}

func TestALostSlotIsRefusedUntilTheSourceIsReset(t *testing.T) {
	s := harness.New(t, harness.Options{})
	s.Exec(`INSERT INTO orders (id) VALUES (1), (2)`)
	s.Start("ingest")
	s.WaitForLeader()
	s.WaitForEvents(2, 30*time.Second)
	s.Stop("ingest")
	s.DropSlot()

	refused := s.StartWith("ingest")
	if status := refused.ExitCode(20 * time.Second); status != 1 || !strings.Contains(refused.Tail(4), "tributary snapshot --reset shop") {
		t.Fatalf("status %d, and it says %s", status, refused.Tail(4))
	}
	for _, wrong := range []struct {
		args []string
		says string
	}{
		{[]string{"snapshot", "--reset", "shop"}, "--yes"}, // nobody can be asked
		{[]string{"snapshot", "--reset", "web", "--yes"}, `no source "web"`},
		{[]string{"snapshot"}, "--reset"},
	} {
		if r := tributary(t, s, wrong.args...); r.status != 2 || !strings.Contains(r.stderr, wrong.says) {
			t.Errorf("%v: status %d: %s", wrong.args, r.status, r.stderr)
		}
	}
	if r := tributary(t, s, "snapshot", "--reset", "shop", "--yes", "--why", "the slot was dropped"); r.status != 0 || !strings.Contains(r.stdout, "incarnation 2") {
		t.Fatalf("reset: status %d: %s%s", r.status, r.stdout, r.stderr)
	}
	s.Exec(`INSERT INTO orders (id) VALUES (3)`)
	s.Start("ingest")
	s.WaitForLeader()
	s.Exec(`INSERT INTO orders (id) VALUES (4)`)
	s.WaitForEvents(6, 30*time.Second)

	var got []string
	for _, e := range s.Events("shop") {
		got = append(got, fmt.Sprintf("%s %s %s", strings.Join(strings.Split(e.Event.ID, "-")[:2], "-"), e.Row.Op, e.Row.Key))
	}
	want := []string{
		`shop-1 snapshot {"id":1}`, `shop-1 snapshot {"id":2}`,
		`shop-2 snapshot {"id":1}`, `shop-2 snapshot {"id":2}`, `shop-2 snapshot {"id":3}`, `shop-2 insert {"id":4}`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("EVENTS holds\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	var history []change
	read(t, s, &history, "checkpoint", "history", "shop")
	found := false
	for _, c := range history {
		found = found || c.Why == "the slot was dropped" && c.To.Incarnation == 2 && strings.Contains(c.Who, "@")
	}
	if !found {
		t.Errorf("the reset is not on record: %+v", history)
	}
}

// TestLostEventsAreExplainedByTheMirror deletes EVENTS: what was stored is known from the mirror alone.
func TestLostEventsAreExplainedByTheMirror(t *testing.T) {
	s := harness.New(t, harness.Options{Config: "ingest: {rewind: 1h}\n"})
	s.Start("ingest")
	s.WaitForLeader()
	s.Exec(`INSERT INTO orders (id) VALUES (1)`)
	s.WaitForEvents(1, 30*time.Second)
	last := s.Events("shop")[0].Event
	waitForMirror(t, s, last.Sequence)
	s.Stop("ingest")
	if err := s.JetStream().DeleteStream(context.Background(), events.StreamEvents); err != nil {
		t.Fatal(err)
	}
	s.Exec(`INSERT INTO orders (id) VALUES (2)`)
	refused := s.StartWith("ingest")
	status, tail := refused.ExitCode(20*time.Second), refused.Tail(6)
	commit := events.LSN(last.Sequence.Commit).String()
	for _, words := range []string{"the mirror says", commit, "ingest-", "checkpoint set shop --from-mirror", "snapshot --reset shop"} {
		if status != 1 || !strings.Contains(tail, words) {
			t.Errorf("status %d, and it does not say %q: %s", status, words, tail)
		}
	}

	set := []string{"checkpoint", "set", "shop", "--from-mirror", "--why", "EVENTS was deleted"}
	if r := tributary(t, s, append(set, "--dry-run")...); r.status != 0 || !strings.Contains(r.stdout, "would go on behind "+commit) {
		t.Errorf("dry run: status %d: %s%s", r.status, r.stdout, r.stderr)
	}
	again := s.StartWith("ingest")
	if status := again.ExitCode(20 * time.Second); status != 1 {
		t.Errorf("after a dry run ingest ended with status %d: %s", status, again.Tail(6))
	}
	if r := tributary(t, s, append(set, "--yes")...); r.status != 0 || !strings.Contains(r.stdout, "goes on behind "+commit) {
		t.Fatalf("set: status %d: %s%s", r.status, r.stdout, r.stderr)
	}
	s.Start("ingest")
	s.WaitForLeader()
	s.WaitForEvents(1, 30*time.Second)
	e := s.Events("shop")[0]
	if string(e.Row.Key) != `{"id":2}` || !strings.HasPrefix(e.Event.ID, "shop-1-") {
		t.Errorf("ingest went on with %s, %s", e.Event.ID, e.Row.Key)
	}
	if r := tributary(t, s, "checkpoint", "set", "shop", "--commit", "0/1", "--why", "back", "--yes"); r.status != 1 || !strings.Contains(r.stderr, "can't go back") {
		t.Errorf("set backwards: status %d: %s", r.status, r.stderr)
	}
	var shown []struct {
		Source, Phase, Leader string
		Epoch                 uint64
	}
	read(t, s, &shown, "checkpoint", "show")
	if len(shown) != 1 || shown[0].Source != "shop" || shown[0].Phase != "streaming" || shown[0].Epoch < 3 {
		t.Errorf("the mirror has %+v", shown)
	}
}

// waitForMirror waits until the mirror has come to a place.
func waitForMirror(t *testing.T, s *harness.System, at events.Sequence) {
	t.Helper()
	harness.Eventually(t, 20*time.Second, "the mirror comes to "+at.String(), func() bool {
		var commit string
		var index uint32
		err := s.DB.QueryRow(context.Background(), `SELECT commit_lsn::text, change_index FROM tributary.checkpoints WHERE source = 'shop'`).Scan(&commit, &index)
		return err == nil && commit == events.LSN(at.Commit).String() && index == at.Index
	})
}

// TestASourceThatEVENTSForgotIsSetUpInTheNextIncarnation purges EVENTS, and makes the database anew under the same name: without
// a mirror, nothing but KV knows of the past, whose ids may be on record still.
func TestASourceThatEVENTSForgotIsSetUpInTheNextIncarnation(t *testing.T) {
	s := harness.New(t, harness.Options{Config: "ingest: {checkpoints: false}\n"})
	s.Exec(`INSERT INTO orders (id) VALUES (1)`)
	s.Start("ingest")
	s.WaitForLeader()
	s.WaitForEvents(1, 30*time.Second)
	s.Stop("ingest")
	s.DropSlot()
	s.Exec(`DROP PUBLICATION tributary_shop`)
	if err := s.JetStream().DeleteStream(t.Context(), events.StreamEvents); err != nil {
		t.Fatal(err)
	}
	s.Start("ingest")
	s.WaitForLeader()
	s.WaitForEvents(1, 30*time.Second)
	if e := s.Events("shop")[0].Event; !strings.HasPrefix(e.ID, "shop-2-") {
		t.Errorf("the first event after that is %s, whose id may be one of the past", e.ID)
	}
}
