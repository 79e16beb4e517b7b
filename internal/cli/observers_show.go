package cli

import (
	"fmt"

	"github.com/tributary-dev/tributary/pkg/observers"
)

func (t *tested) show(p *printer) error {
	p.field("Event", t.ID)
	p.field("Subject", t.Subject)
	p.field("Observers", fmt.Sprintf("%d, generation %s", len(t.Observers), t.Generation))
	for _, o := range t.Observers {
		p.line("")
		switch {
		case o.Waits:
			p.line("%s: matches, if its condition is true of what its lookups answer", o.Observer)
			p.paragraph("  ", o.Wants)
		case o.Matches && o.Wants != "":
			p.line("%s: matches, its condition is true", o.Observer)
			p.paragraph("  ", o.Wants)
		case o.Matches:
			p.line("%s: matches", o.Observer)
		case o.Error != "":
			p.line("%s: its %s failed, which makes a dead letter", o.Observer, what(o))
			p.paragraph("  ", o.Error)
		case o.Failed == observers.StepCondition:
			p.line("%s: its condition is false", o.Observer)
			p.paragraph("  ", o.Wants)
		default:
			p.line("%s: is for another %s", o.Observer, o.Failed)
		}
		switch {
		case !o.Matches:
		case o.Paused:
			p.line("  it is paused: all of this waits until it is resumed")
		case o.DryRun:
			p.line("  it runs dry: none of this is sent")
		}
		for _, l := range o.Lookups {
			p.line("")
			l.show(p)
		}
		for _, r := range o.Requests {
			p.line("")
			async := ""
			if r.Async {
				async = ", asynchronous"
			}
			p.line("  %s/%s%s", o.Observer, r.Action, async)
			r.print(p)
		}
	}
	return p.err
}

// what names what has failed of an observer.
func what(o testedObserver) string {
	if len(o.Lookups) > 0 && o.Failed != observers.StepCondition {
		return "lookup"
	}
	return "condition"
}
