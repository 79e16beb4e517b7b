package worker_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	applied "github.com/tributary-dev/tributary/internal/generations"
	"github.com/tributary-dev/tributary/pkg/worker"
)

// numbered is rules whose two actions tell which generation they are of.
func numbered(n int) string {
	return fmt.Sprintf(`
observers:
  - name: o
    actions:
      - {name: a, type: webhook, url: "http://generation-%[1]d.example/"}
      - {name: b, type: webhook, url: "http://generation-%[1]d.example/"}
`, n)
}

func TestNoEventIsJudgedByTwoGenerations(t *testing.T) {
	const workers, last = 3, 8
	r := newRig(t, 6, numbered(1))
	store := applied.Open(r.js)
	apply := func(n int) {
		if _, _, err := store.Apply(t.Context(), parse(t, numbered(n)), "the test"); err != nil {
			t.Fatal(err)
		}
	}
	apply(1)
	ctx, stop := context.WithCancel(t.Context())
	var following sync.WaitGroup
	t.Cleanup(func() {
		stop()
		following.Wait()
	})
	for i := range workers {
		rules, err := store.Follow(ctx, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		following.Go(func() { _ = rules.Run(ctx) }) // it gives nil at the end
		r.start(fmt.Sprintf("w%d", i), func(p *worker.Parts, _ *worker.Options) { p.Rules = rules })
	}
	for n := 2; n <= last; n++ {
		r.insert(keys(150, 30)...)
		apply(n)
		r.insert(keys(50, 30)...)
		eventually(t, "the workers keep up", func() bool { return r.sink.count() > 2*r.published-400 })
	}
	eventually(t, "the last generation is in force everywhere", func() bool {
		r.insert(keys(6, 6)...)
		r.settled()
		calls := r.sink.seen()
		for _, c := range calls[len(calls)-12:] {
			if !strings.Contains(c.request.URL, fmt.Sprintf("generation-%d.", last)) {
				return false
			}
		}
		return true
	})
	r.sink.once(t, 2*r.published)
	r.sink.inOrder(t)
	of, seen := make(map[string]string), make(map[string]bool)
	for _, c := range r.sink.seen() {
		seen[c.request.URL] = true
		if was, there := of[c.effect.EventID]; there && was != c.request.URL {
			t.Errorf("event %s went to %s and to %s", c.effect.EventID, was, c.request.URL)
		}
		of[c.effect.EventID] = c.request.URL
	}
	if len(seen) < last/2 {
		t.Errorf("only %d generations were seen under load", len(seen))
	}
}
