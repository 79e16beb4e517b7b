package worker

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/internal/natskv"
	"github.com/tributary-dev/tributary/pkg/events"
)

// Member is a worker that lives, as it said within the last seconds.
type Member struct {
	ID         string    `json:"id"`
	Started    time.Time `json:"started"`
	Leaving    bool      `json:"leaving,omitempty"` // it takes no partitions any more
	Partitions []int     `json:"partitions"`        // that it holds, or waits for
	InFlight   int       `json:"in_flight"`         // effects that are under way
}

// Members gives the workers that live, the one that started first coming first. An announcement of another version is
// left out, and so is one that should have ended: a NATS server that was killed was seen to bring such records back.
func Members(ctx context.Context, js jetstream.JetStream) ([]Member, error) {
	bucket, err := js.Stream(ctx, streamWorkers)
	if err != nil {
		return nil, fmt.Errorf("list workers: %w", err)
	}
	ended := bucket.CachedInfo().TimeStamp.Add(-2 * memberTTL)
	list := []Member{}
	err = natskv.Open(js, events.BucketWorkers).Each(ctx, func(_ string, entry natskv.Entry) error {
		var said announcement
		if err := json.Unmarshal(entry.Value, &said); err != nil || said.V != announcementVersion || entry.Written.Before(ended) {
			return nil
		}
		partitions := slices.Sorted(slices.Values(said.Partitions))
		if partitions == nil {
			partitions = []int{}
		}
		list = append(list, Member{said.ID, said.Started, said.Leaving, partitions, said.InFlight})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list workers: %w", err)
	}
	slices.SortFunc(list, func(a, b Member) int {
		return cmp.Or(a.Started.Compare(b.Started), strings.Compare(a.ID, b.ID))
	})
	return list, nil
}

// ConsumerName names the durable consumer of a partition.
func ConsumerName(partition int) string { return consumerPrefix + events.PartitionName(partition) }

// PartitionOf gives the partition of a durable consumer, where it is one of workers.
func PartitionOf(consumer string) (int, bool) {
	digits, ok := strings.CutPrefix(consumer, consumerPrefix)
	partition, err := strconv.Atoi(digits)
	return partition, ok && err == nil && events.PartitionName(partition) == digits
}
