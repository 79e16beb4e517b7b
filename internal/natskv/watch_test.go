package natskv_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/tributary-dev/tributary/internal/natskv"
	"github.com/tributary-dev/tributary/internal/natstest"
)

func TestEachSeesLastValuesOnly(t *testing.T) {
	js := natstest.Start(t).JetStream(t)
	makeBucket(t, js, 1)
	b := natskv.Open(js, "test")
	revision := create(t, b, "a", "old")
	if _, err := b.Update(t.Context(), "a", []byte("new"), revision, 0); err != nil {
		t.Fatal(err)
	}
	if err := b.Delete(t.Context(), "gone", create(t, b, "gone", "x")); err != nil {
		t.Fatal(err)
	}
	for i := range 1000 { // more than a watcher buffers
		create(t, b, fmt.Sprint("many.", i), "x")
	}
	seen := map[string]string{}
	err := b.Each(t.Context(), func(key string, entry natskv.Entry) error {
		seen[key] = string(entry.Value)
		return nil
	})
	if err != nil || len(seen) != 1001 || seen["a"] != "new" {
		t.Errorf("got %d keys, a is %q, error %v; want 1001 keys, new", len(seen), seen["a"], err)
	}
	stop := errors.New("enough")
	if err := b.Each(t.Context(), func(string, natskv.Entry) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got error %v, want the callback's", err)
	}
}

func TestWatchSeesChanges(t *testing.T) {
	js := natstest.Start(t).JetStream(t)
	makeBucket(t, js, 1)
	b := natskv.Open(js, "test")
	create(t, b, "a", "1")
	create(t, b, "other", "1")
	ctx, cancel := context.WithCancel(t.Context())
	changes := make(chan string, 10)
	ended := make(chan error, 1)
	go func() {
		ended <- b.Watch(ctx, "a", func(c *natskv.Change) error {
			if c == nil {
				changes <- "all"
			} else {
				changes <- c.Key + "=" + string(c.Entry.Value)
			}
			return nil
		})
	}()
	for _, want := range []string{"a=1", "all"} {
		if got := <-changes; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if _, err := b.Put(t.Context(), "a", []byte("2"), 0); err != nil {
		t.Fatal(err)
	}
	if got := <-changes; got != "a=2" {
		t.Errorf("got %s, want a=2", got)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want Canceled", err)
	}
}
