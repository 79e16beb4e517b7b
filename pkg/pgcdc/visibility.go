package pgcdc

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// visibility tells which transactions a query saw: pg_current_snapshot, in its text xmin:xmax:xip,xip,…
type visibility struct {
	min, max uint64
	running  []uint64 // ascending
}

func parseVisibility(text string) (*visibility, error) {
	bad := func() error { return fmt.Errorf("snapshot %q is not of the form xmin:xmax:xip,…", text) }
	parts := strings.Split(text, ":")
	if len(parts) != 3 {
		return nil, bad()
	}
	v := new(visibility)
	var errMin, errMax error
	v.min, errMin = strconv.ParseUint(parts[0], 10, 64)
	v.max, errMax = strconv.ParseUint(parts[1], 10, 64)
	if errMin != nil || errMax != nil || v.min > v.max {
		return nil, bad()
	}
	for number := range strings.SplitSeq(parts[2], ",") {
		if number == "" {
			continue
		}
		xid, err := strconv.ParseUint(number, 10, 64)
		if err != nil {
			return nil, bad()
		}
		v.running = append(v.running, xid)
	}
	slices.Sort(v.running)
	return v, nil
}

// sees tells whether a transaction that committed was seen. The stream has the low half of its number; no two that are
// compared lie further apart than 2^31, as PostgreSQL itself relies on.
func (v *visibility) sees(xid uint32) bool {
	ahead := int64(int32(xid - uint32(v.max)))
	if ahead >= 0 {
		return false
	}
	whole := uint64(int64(v.max) + ahead)
	if whole < v.min {
		return true
	}
	_, running := slices.BinarySearch(v.running, whole)
	return !running
}

// changed tells whether a row that a later query finds was written by a transaction that v does not see, by its xmin. A
// row that was frozen keeps its number, which may be of any age: what lies outside of the numbers that were given out since
// is not one of them.
func (v *visibility) changed(xmin uint32, later *visibility) bool {
	const firstNormal = 3
	if xmin < firstNormal || xmin-uint32(v.min) >= uint32(later.max-v.min) {
		return false
	}
	return !v.sees(xmin)
}
