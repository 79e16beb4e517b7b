package worker

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestAssignGivesEveryPartitionToAMemberAndNobodyMoreThanAShare(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		members := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z0-9-]{1,12}`), 1, 12, rapid.ID).Draw(t, "members")
		partitions := rapid.IntRange(1, 64).Draw(t, "partitions")
		has := make(map[string]int)
		owners := assign(members, partitions)
		for _, owner := range owners {
			if !slices.Contains(members, owner) {
				t.Fatalf("%q owns a partition, and is no member", owner)
			}
			has[owner]++
		}
		share := (partitions + len(members) - 1) / len(members)
		for member, n := range has {
			if n > share {
				t.Fatalf("%s has %d partitions, its share is %d", member, n, share)
			}
		}
		shuffled := slices.Clone(members)
		slices.Reverse(shuffled)
		if !slices.Equal(owners, assign(shuffled, partitions)) {
			t.Fatal("the order of the members counts")
		}
	})
}

func TestAssignMovesFewPartitionsWhenAMemberGoes(t *testing.T) {
	const partitions = 64
	var members []string
	for i := range 8 {
		members = append(members, fmt.Sprintf("worker-%d", i))
	}
	before, after := assign(members, partitions), assign(members[1:], partitions)
	moved := 0
	for i := range partitions {
		if before[i] != after[i] && before[i] != members[0] {
			moved++
		}
	}
	if moved > partitions/4 {
		t.Errorf("%d partitions moved between those who stayed", moved)
	}
}

func TestAssignWithoutMembersGivesNobody(t *testing.T) {
	if owners := assign(nil, 2); !slices.Equal(owners, []string{"", ""}) {
		t.Errorf("owners are %q", owners)
	}
}
