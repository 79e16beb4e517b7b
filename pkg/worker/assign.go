package worker

import (
	"slices"

	"github.com/tributary-dev/tributary/pkg/events"
)

// assign gives the member that each partition belongs to. Everybody who knows the same members comes to the same
// answer. A partition goes to the member that ranks first for it (rendezvous hashing, Thaler and Ravishankar 1998)
// among those that have not got their share yet, so that nobody has more than the partitions divided by the members,
// rounded up, and most partitions stay where they are when a member comes or goes.
func assign(members []string, partitions int) []string {
	owners := make([]string, partitions)
	if len(members) == 0 {
		return owners
	}
	members = slices.Compact(slices.Sorted(slices.Values(members)))
	share := (partitions + len(members) - 1) / len(members)
	has := make([]int, len(members))
	for partition := range partitions {
		best, most := -1, uint64(0)
		for i, member := range members {
			if has[i] == share {
				continue
			}
			if s := rank(member, partition); best < 0 || s > most {
				best, most = i, s
			}
		}
		owners[partition] = members[best]
		has[best]++
	}
	return owners
}

// rank is FNV-1a, mixed by the end of MurmurHash3, without which the last digits hardly count.
func rank(member string, partition int) uint64 {
	const offset, prime = 14695981039346656037, 1099511628211
	hash := uint64(offset)
	for _, text := range []string{member, "/", events.PartitionName(partition)} {
		for i := range len(text) {
			hash ^= uint64(text[i])
			hash *= prime
		}
	}
	hash ^= hash >> 33
	hash *= 0xff51afd7ed558ccd
	hash ^= hash >> 33
	hash *= 0xc4ceb9fe1a85ec53
	return hash ^ hash>>33
}
