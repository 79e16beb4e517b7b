package pgcdc

import (
	"fmt"
	"time"

	"github.com/tributary-dev/tributary/pkg/ingest"
)

// checkMirror refuses to go on as if nothing had been, where the mirror knows more of this database than EVENTS does. The
// mirror does not decide where to go on: that is for a person.
func (r *run) checkMirror(s *system) error {
	known, position := &r.state.Mirrored, &r.state.Position
	if known.SystemID != s.id {
		return nil // it came along in a copy of another database, or there is none
	}
	switch {
	case position.Phase == "" && known.Phase != ingest.PhaseSetup:
		return refused("EVENTS has no position of source %s, although %s: EVENTS was deleted, or restored from before its first start; "+
			"to go on from there: tributary checkpoint set %s --from-mirror; to start over with a new slot and snapshot: %s",
			r.opts.Name, r.mirrorSays(""), r.opts.Name, r.resetCommand())
	case position.Phase != "" && position.Incarnation < known.Incarnation:
		return refused("EVENTS ends in incarnation %d of source %s, although %s: EVENTS was restored from before a reset; "+
			"to start over with a new slot and snapshot: %s", position.Incarnation, r.opts.Name, r.mirrorSays(""), r.resetCommand())
	default:
		return nil
	}
}

// mirrorSays tells behind lead what the mirror knows; nothing where it knows nothing.
func (r *run) mirrorSays(lead string) string {
	p := &r.state.Mirrored
	if p.Incarnation == 0 {
		return ""
	}
	return fmt.Sprintf("%sthe mirror says that incarnation %d of %s (%s) was stored up to %s, index %d, by %s at %s",
		lead, p.Incarnation, r.opts.Name, p.Phase, p.CommitLSN, p.Index, p.Leader, p.Time.Format(time.RFC3339))
}
