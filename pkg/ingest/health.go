package ingest

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// When a source is not well, and when a process that lost the lead after trouble counts as well again.
const (
	takenWithin = 10 * time.Second // what was put waits for EVENTS no longer
	heardWithin = 20 * time.Second // a source hears of its origin at least this often; PostgreSQL says something in 10 s

	// Somebody else would have had the lead, and given it up again, within that time.
	calmAfterStart   = 2 * time.Second
	calmAfterTrouble = 30 * time.Second

	lookEvery = 250 * time.Millisecond
)

const notReading = "leads, and does not read yet"

// health tells Options.Health of one source. It is safe for concurrent use.
type health struct {
	source string
	report func(source string, ok bool, why string)

	mu    sync.Mutex
	quiet *time.Timer // until standing by counts as being well; guarded by mu

	ended string // why the last session did, until all is well again; of the pipeline's goroutine and, within a session, watch's
}

func (h *health) set(ok bool, why string) {
	if h.report != nil {
		h.report(h.source, ok, why)
	}
}

// waits says that the lead is waited for: all is well once it was not ours for so long.
func (h *health) waits(calm time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var quiet *time.Timer
	quiet = time.AfterFunc(calm, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.quiet == quiet { // else it leads meanwhile
			h.set(true, "stands by")
		}
	})
	h.quiet = quiet
}

// leads ends the waiting.
func (h *health) leads() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.quiet != nil {
		h.quiet.Stop()
		h.quiet = nil
	}
}

// watch tells of a session for as long as it lasts.
func (h *health) watch(ctx context.Context, feed *Feed, metrics *sourceMetrics) error {
	h.set(false, h.afterTrouble(notReading))
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case now := <-tick.C:
			bytes, events := feed.Waiting()
			metrics.waiting.Set(float64(bytes))
			metrics.waitingEvents.Set(float64(events))
			if trouble := feed.trouble(now); trouble != "" {
				h.set(false, h.afterTrouble(trouble))
			} else {
				h.ended = ""
				h.set(true, "leads")
			}
		}
	}
}

// afterTrouble adds to what is wrong now why reading had to begin again.
func (h *health) afterTrouble(trouble string) string {
	if h.ended == "" {
		return trouble
	}
	return trouble + "; before, " + h.ended
}

// InTouch notes that the source hears of its origin: that there is nothing to read is known, and not only that nothing
// was read. A source calls it at least every few seconds while all is well.
func (f *Feed) InTouch() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.touched = time.Now()
}

// Report notes what the source finds wrong with its origin, such as a slot that does not move though it should; nothing is
// wrong where it is empty.
func (f *Feed) Report(complaint string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.complaint = complaint
}

// trouble says in words why the source does not get on, or nothing where it does.
func (f *Feed) trouble(now time.Time) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch untaken, unheard := now.Sub(f.taken), now.Sub(f.touched); {
	case f.bytes > 0 && untaken > takenWithin:
		return fmt.Sprintf("leads, and EVENTS has taken nothing for %v", untaken.Round(time.Second))
	case f.touched.IsZero():
		return notReading
	case f.bytes == 0 && unheard > heardWithin:
		return fmt.Sprintf("leads, and has heard nothing from its origin for %v", unheard.Round(time.Second))
	case f.complaint != "":
		return "leads, and " + f.complaint
	default:
		return ""
	}
}
