package observers

import "fmt"

// Judgement is what a set says of an event.
type Judgement struct {
	Matches []Match     // as Match gives them
	False   []*Observer // whose match fits and whose condition was false, sorted by name; the first ones
	More    int         // such observers that False has no place for
}

// mostFalse bounds what is told of observers that do nothing: there may be thousands for one table.
const mostFalse = 16

// Judge gives what Match gives, paused observers too, whose conditions are not evaluated, and which observers an event missed by their condition alone.
func (s *Set) Judge(v *View) Judgement {
	var j Judgement
	found := s.index.find(v.address)
	if len(found) == 0 {
		return j
	}
	j.Matches = make([]Match, 0, len(found))
	for _, i := range found {
		o := s.observers[i]
		if o.when == nil || o.later() || o.Paused {
			j.Matches = append(j.Matches, Match{Observer: o})
			continue
		}
		switch ok, err := o.when.Eval(v.input); {
		case err != nil:
			j.Matches = append(j.Matches, Match{Observer: o, Err: fmt.Errorf("evaluate when of %s: %w", o.Name, err)})
		case ok:
			j.Matches = append(j.Matches, Match{Observer: o})
		case len(j.False) < mostFalse:
			j.False = append(j.False, o)
		default:
			j.More++
		}
	}
	return j
}
