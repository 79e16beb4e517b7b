package ingest_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tributary-dev/tributary/internal/natstest"
	"github.com/tributary-dev/tributary/pkg/ingest"
)

// said keeps what a pipeline tells of its health.
type said struct {
	mu   sync.Mutex
	last string
}

func (s *said) report(source string, ok bool, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = fmt.Sprintf("%s %v: %s", source, ok, why)
}

func (s *said) is(prefix string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.HasPrefix(s.last, prefix)
}

// busyLease is held by somebody else until it is freed.
type busyLease chan struct{}

func (b busyLease) Hold(ctx context.Context, work func(context.Context) error) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-b:
		return work(ctx)
	}
}

// moody is a source that does what it is told: "read", "hang" or "fail".
type moody struct{ moods chan string }

func (moody) Name() string { return "shop" }

func (m moody) Run(ctx context.Context, _ ingest.State, feed *ingest.Feed) error {
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case mood := <-m.moods:
			if mood == "fail" {
				return errors.New("the server is away")
			}
			feed.InTouch()
		}
	}
}

func TestHealthFollowsTheSource(t *testing.T) {
	w := newWorld(t, natstest.Start(t))
	heard := &said{}
	w.health = heard.report
	pipeline, lease, source := w.pipeline(), make(busyLease), moody{make(chan string)}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- pipeline.Run(ctx, source, lease) }()

	eventually(t, "it stands by", func() bool { return heard.is("shop true: stands by") })
	lease <- struct{}{}
	eventually(t, "it leads, and does not read", func() bool { return heard.is("shop false: leads, and does not read yet") })
	source.moods <- "read"
	eventually(t, "it reads", func() bool { return heard.is("shop true: leads") })
	source.moods <- "fail"
	eventually(t, "it failed", func() bool { return heard.is("shop false: reading stopped: read shop: the server is away") })
	lease <- struct{}{}
	source.moods <- "read"
	eventually(t, "it reads again", func() bool { return heard.is("shop true: leads") })
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestHealthIsBadWhileTheOriginIsSilentOrTheStreamFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		feed := ingest.NewFeed(1 << 20)
		expect := func(step, prefix string) {
			t.Helper()
			if got := ingest.Trouble(feed, time.Now()); !strings.HasPrefix(got, prefix) || (prefix == "") != (got == "") {
				t.Errorf("%s: got %q, want %q", step, got, prefix)
			}
		}
		expect("before anything was heard", "leads, and does not read yet")
		feed.InTouch()
		expect("just heard", "")
		time.Sleep(15 * time.Second)
		expect("a short silence", "")
		time.Sleep(10 * time.Second)
		expect("a long silence", "leads, and has heard nothing from its origin for 25s")

		put := func() *ingest.Batch {
			b := feed.Batch()
			b.Buf = append(b.Buf, "event"...)
			if err := feed.Put(t.Context(), b); err != nil {
				t.Fatal(err)
			}
			return b
		}
		first := put()
		expect("something waits", "")
		time.Sleep(5 * time.Second)
		second := put()
		time.Sleep(6 * time.Second)
		expect("what waits is not stored", "leads, and EVENTS has taken nothing for 11s")
		feed.Stored(first)
		expect("some of it is stored", "")
		time.Sleep(11 * time.Second)
		expect("the rest is not", "leads, and EVENTS has taken nothing for 11s")
		feed.Stored(second)
		expect("all is stored", "")
		feed.Report("the slot stands still")
		expect("the source complains", "leads, and the slot stands still")
		feed.Report("")
		expect("it does so no more", "")
	})
}
