package worker_test

import (
	"context"
	"strings"
	"testing"

	"github.com/tributary-dev/tributary/pkg/worker"
)

// A pull ends when its bytes are spent. What one effect that hangs holds up is its lane, and not the next pull.
func TestHungEffectDoesNotHoldUpWhatComesAfterAFullPull(t *testing.T) {
	const others = 300
	r := newRig(t, 1, hook)
	release := make(chan struct{})
	r.sink.answer = func(ctx context.Context, c call) error {
		if !strings.HasSuffix(c.key, "/hung") {
			return nil
		}
		select {
		case <-release:
		case <-ctx.Done():
		}
		return nil
	}
	r.insert("hung")
	r.insert(keys(others, 50)...)
	r.start("w1", func(_ *worker.Parts, o *worker.Options) { o.PartitionBytes = 32 << 10 }) // about 40 events
	eventually(t, "all others are done", func() bool { return r.sink.done() == others })
	close(release)
	r.settled()
}
