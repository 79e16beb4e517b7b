package worker_test

import (
	"context"
	"strings"
	"testing"
)

// A power cut takes the end of EVENTS, and ingest reads the last four minutes of the slot again: the same events come
// once more, under later sequences of the stream.
func TestRewindOfTheLastFourMinutesRepeatsNoEffect(t *testing.T) {
	const all, again = 300, 200
	r := newRig(t, 2, hook)
	w := r.start("w1")
	r.insert(keys(all, 20)...)
	r.settled()
	r.rewind(again)
	r.settled()
	w.stop()
	r.rewind(again)
	r.start("w2") // knows of nothing but what is stored
	r.settled()
	r.sink.once(t, all)
	r.sink.inOrder(t)
}

// What is settled above an event that hangs is on record one by one, also after its worker has died.
func TestRewindAboveAnEventThatHangsRepeatsNoEffect(t *testing.T) {
	const others = 1500
	r := newRig(t, 1, hook)
	died := make(chan struct{})
	r.sink.answer = func(ctx context.Context, c call) error {
		if strings.HasSuffix(c.key, "/hung") {
			select {
			case <-died:
			case <-ctx.Done():
			}
		}
		return nil
	}
	r.insert("hung")
	r.insert(keys(others, 50)...)
	w := r.start("w1")
	eventually(t, "all others are done", func() bool { return r.sink.done() == others })
	eventually(t, "all others are on record", func() bool { return w.Status().Partitions[0].InFlight == 1 })
	w.kill()
	close(died)
	r.rewind(others)
	r.start("w2")
	r.settled()
	times := r.sink.times()
	hung := effectKey(1, "o", "a")
	if len(times) != others+1 {
		t.Errorf("%d effects began, want %d", len(times), others+1)
	}
	for key, n := range times {
		if n > 1 && key != hung {
			t.Errorf("effect %s began %d times", key, n)
		}
	}
}

// rewind publishes the last n events once more.
func (r *rig) rewind(n int) {
	r.t.Helper()
	commit := r.commit
	r.commit -= uint64(n)
	r.insert(r.keys[len(r.keys)-n:]...)
	r.keys = r.keys[:len(r.keys)-n]
	r.published -= n
	if r.commit != commit {
		r.t.Fatalf("published up to %d, want %d", r.commit, commit)
	}
}
