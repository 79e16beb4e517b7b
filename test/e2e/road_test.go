package e2e

import (
	"testing"
	"time"

	"github.com/tributary-dev/tributary/test/harness"
)

func TestEveryCommittedChangeHasItsEffectOnce(t *testing.T) {
	s := harness.New(t, harness.Options{})
	s.Receiver.Fail(0.1)
	s.Start("ingest", "worker", "worker-2", "worker-3", "jobrunner")
	s.WaitForLeader()

	changes := s.Write(20_000, 8, 500, 1).Wait()
	s.Receiver.WaitFor(changes, 3*time.Minute)

	s.CheckStream(changes)
	s.Receiver.CheckOrder()
	s.Receiver.CheckBytes()
	if done := s.Receiver.Done(); done != changes {
		t.Errorf("%d effects were done for %d changes", done, changes)
	}
	if effects, more := s.Receiver.Repeated(); effects > 0 {
		t.Errorf("%d effects were done %d times more than once", effects, more)
	}
	s.Stop("ingest", "worker", "worker-2", "worker-3", "jobrunner")
}

func TestRowsOfBeforeAreSnapshotEvents(t *testing.T) {
	s := harness.New(t, harness.Options{})
	s.Exec(`INSERT INTO orders (id, status) SELECT i, 'old' FROM generate_series(1, 2500) i`)
	s.Start("ingest", "worker", "jobrunner")
	s.WaitForEvents(2500, time.Minute)
	s.Exec(`UPDATE orders SET status = 'new' WHERE id <= 100`)
	s.WaitForEvents(2600, time.Minute)
	s.Receiver.WaitFor(2600, time.Minute)
	for i, e := range s.Events("shop") {
		want := "snapshot"
		if i >= 2500 {
			want = "update"
		}
		if string(e.Row.Op) != want {
			t.Fatalf("event %d is %s, want %s", i, e.Row.Op, want)
		}
	}
}

func TestApplicationsPublishBesideTheDatabase(t *testing.T) {
	s := harness.New(t, harness.Options{Observers: `
observers:
  - name: placed
    match: {source: web, entity: order.placed}
    when: event.data.total > 10
    actions:
      - {name: tell, type: webhook, url: "${receiver}/placed", body: '{"total": event.data.total}'}
`})
	s.Start("ingest", "worker", "jobrunner")
	s.WaitForLeader()
	js := s.JetStream()
	publish := func(subject, body string) {
		t.Helper()
		if _, err := js.Publish(t.Context(), subject, []byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	publish("publish.web.order.placed.1", `{"total": 5}`)
	publish("publish.web.order.placed.2", `{"total": 50}`)
	publish("publish.web.order.placed.3", `not JSON`)
	publish("publish.WEB.order.placed.4", `{"total": 50}`)
	s.Receiver.WaitFor(1, 30*time.Second)
	harness.Eventually(t, 20*time.Second, "both bad messages are quarantined", func() bool { return s.CountDeadLetters() == 2 })
	if got := len(s.Events("web")); got != 2 {
		t.Errorf("EVENTS holds %d events of web, want 2", got)
	}
	if got := s.Receiver.Done(); got != 1 {
		t.Errorf("%d effects, want 1: the condition holds for one event", got)
	}
}
