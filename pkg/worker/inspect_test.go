package worker_test

import (
	"slices"
	"testing"

	"github.com/tributary-dev/tributary/internal/natskv"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/worker"
)

func TestConsumersAreNamedByTheirPartition(t *testing.T) {
	for name, want := range map[string]int{"worker-000": 0, "worker-015": 15, "worker-999": 999} {
		if got, ok := worker.PartitionOf(name); !ok || got != want || worker.ConsumerName(want) != name {
			t.Errorf("PartitionOf(%s) is %d, %t; ConsumerName(%d) is %s", name, got, ok, want, worker.ConsumerName(want))
		}
	}
	for _, name := range []string{"indexer", "worker-", "worker-1", "worker-0001", "worker-abc", "worker--01"} {
		if got, ok := worker.PartitionOf(name); ok {
			t.Errorf("PartitionOf(%s) is %d", name, got)
		}
	}
}

func TestMembersSayWhichPartitionsTheyHold(t *testing.T) {
	const partitions = 5
	r := newRig(t, partitions, hook)
	first := r.start("first")
	holds := func(want ...string) bool {
		members, err := worker.Members(t.Context(), r.js)
		if err != nil {
			t.Fatal(err)
		}
		var ids []string
		var held []int
		for _, m := range members {
			ids, held = append(ids, m.ID), append(held, m.Partitions...)
		}
		slices.Sort(held)
		return slices.Equal(ids, want) && slices.Equal(held, []int{0, 1, 2, 3, 4})
	}
	eventually(t, "one worker says that it holds all", func() bool { return holds("first") })
	r.start("second")
	eventually(t, "both workers say that they share them", func() bool { return holds("first", "second") })
	first.stop()
	eventually(t, "the other one says that it holds all", func() bool {
		members, err := worker.Members(t.Context(), r.js)
		return err == nil && slices.ContainsFunc(members, func(m worker.Member) bool {
			return m.ID == "second" && len(m.Partitions) == partitions
		})
	})
}

// A NATS server that was killed was seen to bring back records of workers that are gone, which no TTL ends any more.
func TestAMemberWhoseRecordOutlivedItsTimeIsGone(t *testing.T) {
	r := newRig(t, 1, hook)
	if _, err := natskv.Open(r.js, events.BucketWorkers).Put(t.Context(), "gone", []byte(`{"v":1,"id":"gone"}`), 0); err != nil {
		t.Fatal(err)
	}
	ids := func() (ids []string) {
		members, err := worker.Members(t.Context(), r.js)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range members {
			ids = append(ids, m.ID)
		}
		return ids
	}
	if got := ids(); !slices.Equal(got, []string{"gone"}) {
		t.Fatalf("a record of now names %v, want the one that is gone", got)
	}
	eventually(t, "the record counts no more", func() bool { return len(ids()) == 0 })
}
