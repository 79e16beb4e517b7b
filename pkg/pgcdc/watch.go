package pgcdc

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tributary-dev/tributary/pkg/events"
)

const (
	watchEvery = 2 * time.Second

	// movesWithin is how long PostgreSQL may take to forget what it was told to, and a heartbeat to come back. Status goes out
	// each second, and a restart of the stream within them is nothing to report.
	movesWithin = 30 * time.Second
)

// walStatuses are those of pg_replication_slots.
var walStatuses = []string{"reserved", "extended", "unreserved", "lost"}

// watch looks each few seconds how the slot stands, tells it as metrics, and reports to the feed a slot that does not move
// though it should.
type watch struct {
	*run
	status *status
	beat   *heartbeat

	marks     []logMark // of the log's end, the oldest first
	confirmed events.LSN
	unmoved   time.Time // since when the slot has not been where it should; zero where it is
}

// logMark says when the log ended where.
type logMark struct {
	at  time.Time
	end events.LSN
}

func (w *watch) loop(ctx context.Context) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	defer w.metrics.forgetStanding()
	for {
		var standing Standing
		err := w.query.do(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
			standing, err = stand(ctx, conn, w.opts.Slot)
			return err
		})
		if err == nil { // a server that does not answer is seen by what reads it
			now := time.Now()
			w.tell(standing, now)
			w.feed.Report(w.complaint(standing, now))
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// stored is what is in EVENTS: all that was received where nothing waits, else what the last stored event tells.
func (w *watch) stored() events.LSN {
	received := events.LSN(w.status.received.Load())
	if w.feed.Idle() {
		return received
	}
	return min(max(w.feed.Through(), w.state.Through), received)
}

func (w *watch) tell(s Standing, now time.Time) {
	stored := w.stored()
	w.metrics.lagBytes.Set(float64(s.Flushed - min(stored, s.Flushed)))
	w.metrics.lagSeconds.Set(w.lag(s.Flushed, stored, now).Seconds())
	w.metrics.retained.Set(float64(s.Retained()))
	w.metrics.safe.Set(float64(s.SafeBytes))
	for _, status := range walStatuses {
		value := 0.0
		if status == s.WALStatus {
			value = 1
		}
		w.metrics.walStatus[status].Set(value)
	}
}

// lag is how long ago the log ended where everything is stored by now, as far as that is known: since the begin of the session.
func (w *watch) lag(end, stored events.LSN, now time.Time) time.Duration {
	const most = 1000
	if stored >= end {
		w.marks = append(w.marks[:0], logMark{now, end})
		return 0
	}
	behind := 0
	for behind+1 < len(w.marks) && w.marks[behind+1].end <= stored {
		behind++
	}
	w.marks = append(w.marks[behind:], logMark{now, end})
	if len(w.marks) > most { // every other one will do
		kept := w.marks[:1]
		for i := 2; i < len(w.marks); i += 2 {
			kept = append(kept, w.marks[i])
		}
		w.marks = kept
	}
	return now.Sub(w.marks[0].at)
}

// complaint says what is wrong with the slot, or nothing.
func (w *watch) complaint(s Standing, now time.Time) string {
	if s.WALStatus == "lost" {
		return fmt.Sprintf("slot %s is lost: the server removed what it has not sent", w.opts.Slot)
	}
	told := events.LSN(w.status.told.Load())
	if s.Confirmed >= told || s.Confirmed > w.confirmed {
		w.confirmed, w.unmoved = s.Confirmed, time.Time{}
	} else if w.unmoved.IsZero() {
		w.unmoved = now
	}
	if !w.unmoved.IsZero() && now.Sub(w.unmoved) > movesWithin {
		return fmt.Sprintf("slot %s has stood at %s for %v, and PostgreSQL was told to forget up to %s",
			w.opts.Slot, s.Confirmed, now.Sub(w.unmoved).Round(time.Second), told)
	}
	if sent := w.beat.sent.Load(); sent != 0 && w.out.blockedFor(now) == 0 {
		if gone := now.Sub(time.Unix(0, sent)); gone > max(movesWithin, 2*w.opts.Heartbeat) {
			return fmt.Sprintf("a heartbeat has not come back through slot %s for %v", w.opts.Slot, gone.Round(time.Second))
		}
	}
	return ""
}
