package ingest

import (
	"context"
	"time"
)

// Standing is how a source stands in the process that leads it, at one moment.
type Standing struct {
	Leader            string   `json:"leader"`
	HeartbeatSeconds  *float64 `json:"heartbeat_seconds,omitempty"` // the round trip of the last heartbeat; absent where none has come back
	UnpublishedEvents int      `json:"unpublished_events"`          // that were read and are not stored
	UnpublishedBytes  int      `json:"unpublished_bytes"`
	InFlightEvents    int      `json:"in_flight_events"` // of them: those that EVENTS was sent, and has not acknowledged
	Trouble           string   `json:"trouble,omitempty"`
}

// RoundTrip notes how long the source's last heartbeat took: what it wrote to its origin came back through what it reads.
func (f *Feed) RoundTrip(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.roundTrip = d
}

// sending notes how many events are being stored.
func (f *fence) sending(events int) {
	f.inFlight.Store(int64(events))
	f.metrics.inFlight.Set(float64(events))
}

// standing is the session's, as of now.
func (f *fence) standing(feed *Feed, leader string) Standing {
	s := Standing{Leader: leader, InFlightEvents: int(f.inFlight.Load()), Trouble: feed.trouble(time.Now())}
	s.UnpublishedBytes, s.UnpublishedEvents = feed.Waiting()
	s.UnpublishedEvents = max(s.UnpublishedEvents, s.InFlightEvents) // of two looks
	feed.mu.Lock()
	defer feed.mu.Unlock()
	if feed.roundTrip > 0 {
		seconds := feed.roundTrip.Seconds()
		s.HeartbeatSeconds = &seconds
	}
	return s
}

// answer has Options.Serve answer for a session, for as long as it lasts.
func (p *Pipeline) answer(ctx context.Context, f *fence, feed *Feed) error {
	if p.opts.Serve == nil {
		return nil
	}
	return p.opts.Serve(ctx, f.source, func() Standing { return f.standing(feed, p.opts.Leader) })
}
