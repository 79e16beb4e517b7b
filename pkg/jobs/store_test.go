package jobs

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tributary-dev/tributary/pkg/retry"
)

func TestEnqueueingTwiceIsOnce(t *testing.T) {
	w := newWorld(t)
	j := job(1)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if err := w.store.Enqueue(t.Context(), j); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := count(w.metrics.enqueued); n != 1 {
		t.Errorf("%d are counted", n)
	}
	a := newAction(succeed)
	w.start(t, a.registry())
	w.await(t, j, in(Done))
	w.awaitEmpty(t)
	w.enqueue(t, j) // it is known to be done
	if n := w.messages(t); n != 0 {
		t.Errorf("%d tickets for a job that is done", n)
	}
	if n := len(a.begun(j.Effect.Key)); n != 1 {
		t.Errorf("%d runs", n)
	}
}

func TestEnqueueingAgainMakesSureOfTheTicket(t *testing.T) {
	w := newWorld(t)
	ready, scheduled := job(1), job(2, func(n *New) { n.NotBefore = time.Now().Add(time.Hour) })
	w.enqueue(t, ready, scheduled)
	w.purgeTickets(t) // as if their writer had died before
	w.enqueue(t, ready, scheduled, scheduled)
	if n := w.messages(t); n != 2 {
		t.Errorf("%d tickets", n)
	}
	other := ready
	other.Generation = "another"
	w.enqueue(t, other)
	if record, err := w.store.Get(t.Context(), ready.Effect.Key); err != nil || record.Generation != "" {
		t.Errorf("the job was changed: %+v %v", record, err)
	}
}

func TestWhatCannotBeEnqueued(t *testing.T) {
	w := newWorld(t)
	for name, c := range map[string]struct {
		change func(*New)
		want   error
		text   string
	}{
		"without a key":           {func(n *New) { n.Effect.Key = "" }, ErrInvalid, "key"},
		"without a timeout":       {func(n *New) { n.Request.Timeout = 0 }, ErrInvalid, "timeout must be above 0, got 0s"},
		"no attempts":             {func(n *New) { n.Policy.MaxAttempts = 0 }, ErrInvalid, "max_attempts must be at least 1, got 0"},
		"an unknown end":          {func(n *New) { n.OnFailure = "shrug" }, ErrInvalid, "on_failure"},
		"an event that is not":    {func(n *New) { n.Event = []byte("{") }, ErrInvalid, "event"},
		"more than a message has": {func(n *New) { n.Request.Body = make([]byte, 1<<20) }, ErrTooLarge, "bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			err := w.store.Enqueue(t.Context(), job(1, c.change))
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v", err)
			}
		})
	}
	if n := w.messages(t); n != 0 {
		t.Errorf("%d tickets", n)
	}
}

func TestABodyThatIsTheEventMayBeLarge(t *testing.T) {
	w := newWorld(t)
	j := job(1, func(n *New) {
		n.Event = []byte(`"` + strings.Repeat("x", 500<<10) + `"`)
		n.Request.Body = n.Event
	})
	w.enqueue(t, j)
	w.start(t, newAction(func(context.Context, int) error { return retry.Permanent(errRefused) }).registry())
	w.await(t, j, in(Dead))
	if letters := w.letters(t); len(letters) != 1 || string(letters[0].Record.Event) != string(j.Event) {
		t.Errorf("%d dead letters", len(letters))
	}
}

func TestEnqueueWaitsForRoom(t *testing.T) {
	w := newWorld(t)
	stream, err := w.js.Stream(t.Context(), kvStream)
	if err != nil {
		t.Fatal(err)
	}
	config := stream.CachedInfo().Config
	config.MaxMsgs = 1
	if _, err := w.js.UpdateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	w.enqueue(t, job(1))
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := w.store.Enqueue(short, job(2)); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a full bucket took it: %v", err)
	}
	enqueued := make(chan error)
	go func() { enqueued <- w.store.Enqueue(t.Context(), job(2)) }()
	if err := stream.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-enqueued; err != nil {
		t.Error(err)
	}
}

func TestEnqueueWaitsForTheServer(t *testing.T) {
	w := newWorld(t)
	j := job(1)
	w.server.Stop()
	enqueued := make(chan error)
	go func() { enqueued <- w.store.Enqueue(t.Context(), j) }()
	w.server.Restart(t)
	if err := <-enqueued; err != nil {
		t.Error(err)
	}
	if n := w.messages(t); n != 1 {
		t.Errorf("%d tickets", n)
	}
}

func TestMetricsExistAtZero(t *testing.T) {
	registry := prometheus.NewRegistry()
	NewMetrics(registry)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	if len(families) != 15 {
		t.Errorf("%d metrics", len(families))
	}
	for _, family := range families {
		if !strings.HasPrefix(family.GetName(), "tributary_jobs_") {
			t.Errorf("name %s", family.GetName())
		}
	}
}
