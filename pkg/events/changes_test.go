package events_test

import (
	"time"

	"github.com/tributary-dev/tributary/pkg/events"
)

// example is the change of the design's example.
func example() *events.Change {
	commit := events.LSN(0x16B37488)
	return &events.Change{
		ID:           events.AppendChangeID(nil, "shop", 1, commit, 771, 3),
		Source:       "shop",
		Op:           events.OpUpdate,
		Schema:       "public",
		Table:        "orders",
		Time:         time.Date(2026, 11, 23, 8, 45, 53, 123_456_789, time.UTC),
		PartitionKey: events.AppendEntityKey(nil, "public", "orders", []byte("42")),
		Sequence:     events.Sequence{Commit: uint64(commit), Index: 3},
		Key:          []byte(`{"id":42}`),
		Before:       []byte(`{"id":42,"status":"packed","total":19.90}`),
		After:        []byte(`{"id":42,"status":"shipped","total":19.90}`),
		Changed:      []string{"status"},

		InTransaction: true,
		XID:           771,
		Commit:        commit,
		Last:          true,
	}
}
