package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/pkg/events"
)

const (
	ticketVersion = 1

	kvStream   = "KV_" + events.BucketJobs
	kvSubjects = "$KV." + events.BucketJobs + "."

	readyPrefix = "jobs.ready."
	atPrefix    = "jobs.at."

	// What is due within this time is published at once, and waits in a runner, to the millisecond. What is due later is
	// left to a schedule of the server, which may fire a good quarter of a second late, and so is set to fire earlier: a
	// runner waits for the rest.
	near = time.Second
	lead = 300 * time.Millisecond

	headerSchedule = "Nats-Schedule"
	headerTarget   = "Nats-Schedule-Target"
)

// ticket is the body of a message in JOBS.
type ticket struct {
	V       int       `json:"v"`
	ID      string    `json:"id"`
	Key     string    `json:"key"` // of the record in KV jobs
	Round   int       `json:"round"`
	Attempt int       `json:"attempt"`
	Due     time.Time `json:"due"`
}

func parseTicket(data []byte) (ticket, error) {
	var t ticket
	if err := json.Unmarshal(data, &t); err != nil {
		return ticket{}, fmt.Errorf("decode ticket: %w", err)
	}
	if t.V != ticketVersion || t.ID == "" || t.Key != events.KVKey(t.ID) {
		return ticket{}, fmt.Errorf("decode ticket: version %d, id %q, key %q", t.V, t.ID, t.Key)
	}
	return t, nil
}

func (r *Record) ticketFor() ticket {
	return ticket{V: ticketVersion, ID: r.ID, Key: events.KVKey(r.ID), Round: r.Round, Attempt: r.attempt(), Due: r.Due}
}

// message makes the ticket for what is next: ready where it is due within that time, else a schedule, which takes the
// place of the one that the job had.
func (r *Record) message(now time.Time, within time.Duration) (*nats.Msg, error) {
	t := r.ticketFor()
	body, err := json.Marshal(t)
	if err != nil {
		return nil, fmt.Errorf("encode ticket of %s: %w", r.ID, err)
	}
	ready := readyPrefix + events.EscapeToken(r.Queue)
	if r.Due.Sub(now) <= within {
		return &nats.Msg{Subject: ready, Data: body}, nil
	}
	at := r.Due
	if at.Sub(now) > near {
		at = at.Add(-lead)
	}
	return &nats.Msg{Subject: atPrefix + t.Key, Data: body, Header: nats.Header{
		headerSchedule: {"@at " + at.UTC().Format(time.RFC3339Nano)},
		headerTarget:   {ready},
	}}, nil
}

// How long one try waits for its answer, and the pauses between tries: a dead leader does not answer.
const (
	tryTimeout = time.Second
	firstPause = 20 * time.Millisecond
	mostPause  = time.Second
)

// publish stores msg in JOBS. While the server is away or full it waits, until ctx ends. Asked again after a lost
// answer it may store twice, which is harmless for tickets.
func publish(ctx context.Context, js jetstream.JetStream, msg *nats.Msg) error {
	for pause := firstPause; ; pause = min(2*pause, mostPause) {
		err := publishOnce(ctx, js, msg)
		if err == nil || final(err) {
			return err
		}
		if sleep(ctx, pause) != nil {
			return errors.Join(context.Cause(ctx), err)
		}
	}
}

func publishOnce(ctx context.Context, js jetstream.JetStream, msg *nats.Msg) error {
	// The connection would keep every copy that is sent meanwhile, and send all of them when it is back.
	if conn := js.Conn(); !conn.IsConnected() && !conn.IsClosed() {
		return nats.ErrDisconnected
	}
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	_, err := js.PublishMsg(ctx, msg, jetstream.WithExpectStream(events.StreamJobs), jetstream.WithRetryAttempts(0))
	return err
}

// final tells whether no waiting mends err. The rest is the server's or the network's trouble: no answer, no leader, full.
func final(err error) bool {
	var api *jetstream.APIError
	if errors.As(err, &api) && api.Code == 400 {
		return true
	}
	return errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, nats.ErrMaxPayload)
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
