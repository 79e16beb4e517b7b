package worker

import (
	"github.com/tributary-dev/tributary/pkg/dedupkv"
)

// outcomeDryRun is the outcome of an effect that was rendered, and is not sent.
const outcomeDryRun dedupkv.Result = "dry_run"

// rehearse ends an effect whose observer runs dry: what would be sent is told, without what is in it. Its record says that
// there was nothing to do, so it is not made up for when the observer goes live.
func (w *Worker) rehearse(x *effect) dedupkv.Result {
	d := &x.due
	log := w.log.With("effect", x.key)
	if d.err != nil {
		x.trace = effectTrace{reason: d.reason, cause: d.err}
		log.Warn("dry run: it would be a dead letter", "reason", d.reason, "error", d.err)
	} else {
		log.Info("dry run: nothing is sent", "type", d.request.Type, "endpoint", d.request.Endpoint, "bytes", len(d.request.Body))
	}
	x.rehearsed = true
	return dedupkv.Skipped
}
