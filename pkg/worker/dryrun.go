package worker

import (
	"errors"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/dedupkv"
)

// outcomeDryRun is the outcome of an effect that was rendered, and is not sent.
const outcomeDryRun dedupkv.Result = "dry_run"

// rehearse ends an effect whose observer runs dry: what would be sent is told, without what is in it. Lookups are asked, for
// they change nothing. Its record says that there was nothing to do, so it is not made up for when the observer goes live.
func (w *Worker) rehearse(x *effect) dedupkv.Result {
	d := x.due
	log := w.log.With("effect", x.key)
	if d.err == nil && d.request.Type == actions.Pending && w.lookups != nil {
		d.request, d.err = d.pending.Resolve(w.acting, w.lookups.Fetch)
		if errors.Is(d.err, actions.ErrNotDue) {
			return dedupkv.Skipped
		}
	}
	if d.err != nil {
		x.trace = effectTrace{reason: d.reason, cause: d.err}
		log.Warn("dry run: it would fail", "reason", d.reason, "error", d.err)
	} else {
		log.Info("dry run: nothing is sent", "type", d.request.Type, "endpoint", d.request.Endpoint, "bytes", len(d.request.Body))
	}
	x.rehearsed = true
	return dedupkv.Skipped
}
