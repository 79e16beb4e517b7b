package checkpoint

import (
	"cmp"
	"fmt"
	"strings"
)

// row is what the table holds for a source; version is 0 where it holds nothing.
type row struct {
	Checkpoint
	version int64
}

// judge tells what becomes of next where the table holds now: an error, nothing at all, or a change.
func judge(now row, next Checkpoint) (changes bool, err error) {
	if now.version == 0 {
		return true, nil
	}
	if next.Epoch < now.Epoch {
		return false, fmt.Errorf("%w: epoch %d of %s, not %d", ErrStale, now.Epoch, now.Leader, next.Epoch)
	}
	switch order := next.compare(now.Checkpoint); {
	case order < 0:
		return false, fmt.Errorf("%w: %s, not %s", ErrBackwards, now.Checkpoint.place(), next.place())
	case order == 0:
		same := next
		same.Leader = now.Leader
		return same != now.Checkpoint, nil
	default:
		return true, nil
	}
}

// compare orders by what may only grow: the incarnation, and within one the place of the last event, then the end.
func (c Checkpoint) compare(other Checkpoint) int {
	return cmp.Or(cmp.Compare(c.Incarnation, other.Incarnation), cmp.Compare(c.Commit, other.Commit),
		cmp.Compare(c.Index, other.Index), cmp.Compare(c.End, other.End))
}

func (c Checkpoint) place() string {
	return fmt.Sprintf("incarnation %d at %s, index %d, end %s", c.Incarnation, c.Commit, c.Index, c.End)
}

// reason says what about next is worth a line in the history; empty where it is only further on.
func reason(now row, next Checkpoint) string {
	if now.version == 0 {
		return "first checkpoint"
	}
	var reasons []string
	note := func(what string, before, after any) {
		if before != after {
			reasons = append(reasons, fmt.Sprintf("%s %v → %v", what, before, after))
		}
	}
	note("takeover: epoch", now.Epoch, next.Epoch)
	note("incarnation", now.Incarnation, next.Incarnation)
	note("phase", now.Phase, next.Phase)
	note("database system", now.SystemID, next.SystemID)
	note("timeline", now.Timeline, next.Timeline)
	note("slot", now.Slot, next.Slot)
	return strings.Join(reasons, "; ")
}
