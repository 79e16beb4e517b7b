package observers

import (
	"slices"
	"strings"

	"github.com/tributary-dev/tributary/pkg/events"
)

// Match is an observer that an event concerns.
type Match struct {
	Observer *Observer
	Err      error // its condition failed for this event; nil where it held
}

// matchRule is the match of an observer; what is empty matches everything.
type matchRule struct {
	source, entity string
	ops            []events.Op
}

// index finds observers without asking each. Observers of exact sources and entities lie in a map; patterns are asked
// one by one, but each only once, however many observers share it.
type index struct {
	exact    map[triple][]int // positions in the set
	patterns []patternGroup
}

type triple struct {
	source, entity string // empty for any
	op             events.Op
}

type patternGroup struct {
	source, entity string
	observers      map[events.Op][]int
}

func newIndex(list []*Observer) index {
	x := index{exact: make(map[triple][]int)}
	groups := make(map[[2]string]int)
	for i, o := range list {
		m := o.match
		ops := m.ops
		if len(ops) == 0 {
			ops = events.Ops()
		}
		if !isPattern(m.source) && !isPattern(m.entity) {
			for _, op := range ops {
				key := triple{m.source, m.entity, op}
				x.exact[key] = append(x.exact[key], i)
			}
			continue
		}
		key := [2]string{m.source, m.entity}
		group, ok := groups[key]
		if !ok {
			group = len(x.patterns)
			groups[key] = group
			x.patterns = append(x.patterns, patternGroup{m.source, m.entity, make(map[events.Op][]int)})
		}
		for _, op := range ops {
			x.patterns[group].observers[op] = append(x.patterns[group].observers[op], i)
		}
	}
	return x
}

// find gives the positions of the observers that match an address, ascending.
func (x *index) find(a events.Address) []int {
	entity := a.Entity()
	var found []int
	for _, key := range [...]triple{{a.Source, entity, a.Op}, {a.Source, "", a.Op}, {"", entity, a.Op}, {"", "", a.Op}} {
		found = append(found, x.exact[key]...)
	}
	for _, group := range x.patterns {
		if list := group.observers[a.Op]; len(list) > 0 && matches(group.source, a.Source) && matches(group.entity, entity) {
			found = append(found, list...)
		}
	}
	slices.Sort(found)
	return found
}

// Match gives the observers that an event concerns, sorted by name: those whose match fits and whose condition holds,
// and with an error those whose condition failed. A condition that reads lookups is judged when they are answered.
func (s *Set) Match(v *View) []Match { return s.Judge(v).Matches }

func isPattern(text string) bool { return strings.Contains(text, "*") }

// matches tells whether text has as many dotted parts as the pattern, and each fits: * stands for any characters of
// its part. An empty pattern matches everything.
func matches(pattern, text string) bool {
	if pattern == "" {
		return true
	}
	for {
		wantPart, wantRest, wantMore := strings.Cut(pattern, ".")
		part, rest, more := strings.Cut(text, ".")
		if wantMore != more || !fits(wantPart, part) {
			return false
		}
		if !more {
			return true
		}
		pattern, text = wantRest, rest
	}
}

// fits matches one part. After a star the earliest place of what follows is as good as any later one, but for the last.
func fits(pattern, part string) bool {
	head, rest, star := strings.Cut(pattern, "*")
	if !star {
		return pattern == part
	}
	part, ok := strings.CutPrefix(part, head)
	if !ok {
		return false
	}
	for {
		piece, more, star := strings.Cut(rest, "*")
		if !star {
			return strings.HasSuffix(part, piece)
		}
		at := strings.Index(part, piece)
		if at < 0 {
			return false
		}
		part, rest = part[at+len(piece):], more
	}
}
