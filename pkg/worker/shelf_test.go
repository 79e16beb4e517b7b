package worker_test

import (
	"strings"
	"testing"

	"github.com/tributary-dev/tributary/pkg/worker"
	"github.com/tributary-dev/tributary/streams"
)

// What waits in ranges that can't be read would be overtaken.
func TestAPartitionIsNotTakenOverWithoutItsRanges(t *testing.T) {
	r := newRig(t, 1, hook)
	first := r.start("w1")
	r.insert(keys(10, 5)...)
	r.settled()
	if err := r.js.DeleteStream(t.Context(), "KV_circuits"); err != nil {
		t.Fatal(err)
	}
	r.insert(keys(10, 5)...)
	r.settled() // who holds the partition goes on
	first.stop()
	second := r.start("w2")
	r.insert(keys(10, 5)...)
	eventually(t, "the other one says what it waits for", func() bool {
		partitions := second.Status().Partitions
		return len(partitions) == 1 && !partitions[0].Held && strings.Contains(partitions[0].Why, "ranges of partition 0")
	})
	if n := r.sink.count(); n != 20 {
		t.Errorf("%d effects have begun, want 20", n)
	}
	if _, err := streams.Apply(t.Context(), r.js, streams.Options{Partitions: r.partitions, Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	r.settled()
	eventually(t, "it holds the partition", func() bool { return second.Status().Partitions[0] == worker.PartitionStatus{Held: true} })
	r.sink.once(t, 30)
	r.sink.inOrder(t)
}
