package cli

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/tributary-dev/tributary/pkg/deadletter"
	"github.com/tributary-dev/tributary/pkg/indexer"
)

// picky is an index that refuses every document until it is mended.
type picky struct {
	mu     sync.Mutex
	mended bool
	bodies map[string]string // by id
}

func (p *picky) Write(_ context.Context, documents []indexer.Document) ([]indexer.Outcome, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	outcomes := make([]indexer.Outcome, len(documents))
	for i, d := range documents {
		if !p.mended {
			outcomes[i] = indexer.Outcome{State: indexer.Refused, Err: errors.New("the mapping is too narrow")}
			continue
		}
		p.bodies[d.ID] = string(d.Body)
	}
	return outcomes, nil
}

func (p *picky) Search(context.Context, indexer.Request) (indexer.Found, error) {
	return indexer.Found{}, nil
}

func (p *picky) Describe(context.Context) (indexer.Info, error) { return indexer.Info{}, nil }

func (p *picky) mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mended = true
}

func (p *picky) body(id string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bodies[id]
}

func TestADocumentThatTheIndexRefusedIsIndexedAgain(t *testing.T) {
	w := newWorld(t)
	index := &picky{bodies: map[string]string{}}
	metrics := indexer.NewMetrics(nil)
	js := w.server.JetStream(t)
	loop, err := indexer.New(js, index, deadletter.New(js), indexer.Options{Metrics: metrics})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() { loop.Run(ctx) })
	running.Go(func() {
		s := indexer.Server{Index: index, Writer: index, Log: slog.New(slog.DiscardHandler), Metrics: metrics}
		if err := s.Run(ctx, js.Conn()); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	ids := []string{w.insert(1), w.insert(2)}
	letters := func() int {
		list, err := deadletter.List(t.Context(), w.js, 0, 10)
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	eventually(t, "both are dead letters", func() bool { return letters() == 2 })

	if out := w.must("dlq", "retry-all", "--reason", "mapping", "--dry-run"); out != "    2  would be indexed: the index has its document, and it goes\n" {
		t.Errorf("the dry run says %q", out)
	}
	out, err := w.run("dlq", "retry-all", "--reason", "mapping")
	if err == nil || !strings.Contains(err.Error(), "the index refuses the document: the mapping is too narrow") || letters() != 2 {
		t.Errorf("while the index refuses them: %v, %d are left\n%s", err, letters(), out)
	}
	index.mend()
	w.must("dlq", "retry-all", "--reason", "mapping")
	if n := letters(); n != 0 {
		t.Errorf("%d dead letters are left", n)
	}
	for _, id := range ids {
		if body := index.body(id); !strings.Contains(body, id) || !strings.Contains(body, `"sequence":`) {
			t.Errorf("the document of %s is %s", id, body)
		}
	}
}
