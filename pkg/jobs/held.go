package jobs

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/pkg/actions/circuit"
)

// held is a ticket between its delivery and its end here.
type held struct {
	delivery
	due      time.Time
	postpone bool          // it can't wait here, a schedule takes it
	endpoint string        // that its job needs; known when the record was read and there was no place
	placed   bool          // it holds a place of endpoint
	pass     *circuit.Pass // to call it; nil where there is none to give back
	msg      jetstream.Msg // the latest delivery; guarded by the runner's mu
}

const (
	pullFor       = 15 * time.Second // one pull stays open for that long
	pullHeartbeat = time.Second      // and is given up after two of them were missed
	pullPause     = 200 * time.Millisecond

	// horizon is the longest that a ticket waits here: what is published as near, and some difference of clocks.
	horizon = near + time.Second
)

// pull gives tickets to accept until ctx ends. It asks for no more than what there are slots for, and a few.
func (r *Runner) pull(ctx context.Context, accept func(jetstream.Msg)) {
	failing := false
	for ctx.Err() == nil {
		room := r.room(ctx)
		if room == 0 {
			return
		}
		err := r.pullOnce(ctx, room, accept)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil && failing:
			failing = false
			r.log.Info("job tickets come again")
		case err != nil && !failing:
			failing = true
			r.log.Warn("no job tickets come", "error", err)
		}
		if err != nil && sleep(ctx, pullPause) != nil {
			return
		}
	}
}

func (r *Runner) pullOnce(ctx context.Context, room int, accept func(jetstream.Msg)) error {
	consumer, err := r.consumer(ctx)
	if err != nil {
		return err
	}
	for ctx.Err() == nil && room > 0 {
		if err := r.fetch(ctx, consumer, room, accept); err != nil {
			return err
		}
		room = r.room(ctx)
	}
	return nil
}

func (r *Runner) fetch(ctx context.Context, consumer jetstream.Consumer, room int, accept func(jetstream.Msg)) error {
	ctx, cancel := context.WithTimeout(ctx, pullFor)
	defer cancel()
	batch, err := consumer.Fetch(room, jetstream.FetchContext(ctx), jetstream.FetchHeartbeat(pullHeartbeat))
	if err != nil {
		return err
	}
	for msg := range batch.Messages() {
		accept(msg)
	}
	if err := batch.Error(); err != nil && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// room waits until there is room for tickets, and says for how many; 0 when ctx has ended.
func (r *Runner) room(ctx context.Context) int {
	for {
		r.mu.Lock()
		room := r.options.Concurrency + r.options.Concurrency/4 + 1 - (len(r.held) - r.waiting)
		r.mu.Unlock()
		if room > 0 {
			return room
		}
		select {
		case <-ctx.Done():
			return 0
		case <-r.freed:
		}
	}
}

func (r *Runner) signalRoom() {
	select {
	case r.freed <- struct{}{}:
	default:
	}
}

// accept takes a message into what is held; nil where nothing is to do for it.
func (r *Runner) accept(msg jetstream.Msg) *held {
	metadata, err := msg.Metadata()
	if err != nil {
		r.log.Error("ticket has no metadata", "error", err)
		return nil
	}
	t, err := parseTicket(msg.Data())
	if err != nil {
		r.log.Error("ticket can't be read, it is dropped", "sequence", metadata.Sequence.Stream, "error", err)
		r.settled(msg.TermWithReason("undecodable"))
		return nil
	}
	h := &held{
		delivery: delivery{ticket: t, sequence: metadata.Sequence.Stream, redelivered: metadata.NumDelivered > 1},
		due:      t.Due, msg: msg,
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if there, ok := r.held[h.sequence]; ok {
		there.msg = msg // the server had not heard of us for a while; we go on
		return nil
	}
	r.held[h.sequence] = h
	return h
}

// drop takes a ticket out of what is held.
func (r *Runner) drop(h *held) {
	r.mu.Lock()
	delete(r.held, h.sequence)
	r.mu.Unlock()
	r.signalRoom()
}

// ripen waits until the ticket is due, with a timer and a place among the unacknowledged, but without a slot. It says
// no when ctx ended first. What can't wait here is marked to be postponed.
func (r *Runner) ripen(ctx context.Context, h *held) bool {
	for {
		left := time.Until(h.due)
		if left <= 0 {
			return ctx.Err() == nil
		}
		if h.postpone = left > horizon || !r.wait(); h.postpone {
			return ctx.Err() == nil
		}
		err := sleep(ctx, left)
		r.unwait()
		if err != nil {
			return false
		}
	}
}

func (r *Runner) wait() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waiting >= r.options.Waiting {
		return false
	}
	r.waiting++
	r.metrics.waiting.Inc()
	r.signalRoom()
	return true
}

func (r *Runner) unwait() {
	r.mu.Lock()
	r.waiting--
	r.mu.Unlock()
	r.metrics.waiting.Dec()
}

// heartbeat tells the server that what is held here is alive.
func (r *Runner) heartbeat(ended <-chan struct{}) {
	ticker := time.NewTicker(r.options.AckWait / 10 * 3)
	defer ticker.Stop()
	var alive []jetstream.Msg
	for {
		select {
		case <-ended:
			return
		case <-ticker.C:
		}
		if !r.js.Conn().IsConnected() {
			continue // what is sent now would be told when it is not true any more
		}
		r.mu.Lock()
		alive = alive[:0]
		for _, h := range r.held {
			alive = append(alive, h.msg)
		}
		r.mu.Unlock()
		for _, msg := range alive {
			r.settled(msg.InProgress())
		}
		clear(alive)
	}
}

func (r *Runner) message(h *held) jetstream.Msg {
	r.mu.Lock()
	defer r.mu.Unlock()
	return h.msg
}

// The three ends of a ticket. None is waited for: one that is lost lets the ticket come again, and the record says what
// it is then.
func (r *Runner) ack(h *held)                       { r.settled(r.message(h).Ack()) }
func (r *Runner) nak(h *held)                       { r.settled(r.message(h).Nak()) }
func (r *Runner) nakLater(h *held, d time.Duration) { r.settled(r.message(h).NakWithDelay(d)) }

func (r *Runner) settled(err error) {
	if err != nil && !errors.Is(err, jetstream.ErrMsgAlreadyAckd) {
		r.log.Debug("ticket was not answered", "error", err)
	}
}
