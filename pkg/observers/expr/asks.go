package expr

import "slices"

// AsksForChange tells whether the condition calls changed, changed_to or changed_from, which need to know the whole old
// row of an update: REPLICA IDENTITY FULL.
func (c *Condition) AsksForChange() bool { return c.program.asks }

// AsksForChange is that of Condition.
func (j *JSON) AsksForChange() bool { return j.program.asks }

// AsksForChange is that of Condition.
func (t *Text) AsksForChange() bool { return anyAsks(t.parts) }

// AsksForChange is that of Condition.
func (u *URL) AsksForChange() bool {
	return anyAsks(u.query) || slices.ContainsFunc(u.path, anyAsks)
}

func anyAsks(parts []part) bool {
	return slices.ContainsFunc(parts, func(p part) bool { return p.program != nil && p.program.asks })
}

func asksForChange(function string) bool {
	switch function {
	case fnChanged, fnChangedTo, fnChangedFrom:
		return true
	default:
		return false
	}
}
