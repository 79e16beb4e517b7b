package ingest

import (
	"time"

	"github.com/tributary-dev/tributary/pkg/events"
)

// rewind decides how far PostgreSQL may forget. An acknowledgement is no fsync: a power cut may take what a NATS server
// stored last. So what was stored counts as kept only some time later, and until then the slot can send it again.
type rewind struct {
	after  time.Duration // 0 confirms at once
	bytes  uint64        // of WAL that may be kept for a rewind; 0 is no bound
	stamps []stamp       // ascending, a few hundred at most
	newest events.LSN
}

// stamp says that every commit before through was stored at the latest at closed.
type stamp struct {
	opened, closed time.Time
	through        events.LSN
}

// stored notes that every commit before through is stored at this time. One stamp serves a slice of the time, so that
// there are few: what it names is confirmed late, never early.
func (r *rewind) stored(now time.Time, through events.LSN) {
	const slices = 256
	if through <= r.newest {
		return
	}
	r.newest = through
	if n := len(r.stamps); n > 0 && now.Sub(r.stamps[n-1].opened) < r.after/slices {
		r.stamps[n-1].closed, r.stamps[n-1].through = now, through
		return
	}
	r.stamps = append(r.stamps, stamp{opened: now, closed: now, through: through})
}

// confirmable gives the newest LSN that was stored long enough ago, or lies too far back to be kept; 0 for none yet.
func (r *rewind) confirmable(now time.Time) events.LSN {
	var through events.LSN
	n := 0
	for n < len(r.stamps) {
		s := r.stamps[n]
		tooFar := r.bytes > 0 && uint64(r.newest-s.through) > r.bytes
		if now.Sub(s.closed) < r.after && !tooFar {
			break
		}
		through = s.through
		n++
	}
	r.stamps = r.stamps[n:]
	return through
}
