package indexer

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/pkg/deadletter"
	"github.com/tributary-dev/tributary/pkg/events"
)

// ConsumerName is the durable consumer of EVENTS that all indexers share.
const ConsumerName = "indexer"

const (
	pullFor       = 10 * time.Second // one pull stays open for that long
	pullHeartbeat = time.Second
	silence       = 3 * pullHeartbeat // after which a pull is given up: its server is gone
	pullPause     = 200 * time.Millisecond
	askWithin     = 2 * time.Second // a leader that has died does not answer
	lagEvery      = 2 * time.Second

	// growth is how much larger an event is here than in a pull: its bytes, and its document.
	growth = 4
)

// ensureConsumer makes the consumer, or finds it.
func (x *Indexer) ensureConsumer(ctx context.Context) error {
	identity, parts, err := x.own(ctx)
	if err != nil {
		return err
	}
	if _, err := x.js.CreateOrUpdateConsumer(ctx, events.StreamEvents, x.consumerConfig(identity, parts)); err != nil {
		return fmt.Errorf("set up consumer %s of %s: %w", ConsumerName, events.StreamEvents, err)
	}
	x.identity, x.months, x.asked = identity, parts, time.Now()
	return nil
}

// pull takes events until ctx ends. Pulls go over core NATS rather than through the client's own fetches, whose buffers
// for a pull that is bounded by bytes are tens of megabytes.
func (x *Indexer) pull(ctx context.Context, to chan<- *item) {
	failing := false
	for ctx.Err() == nil {
		attempt, cancel := context.WithTimeout(ctx, askWithin)
		err := x.ensureConsumer(attempt)
		cancel()
		if err == nil {
			if failing {
				x.log.Info("events come again")
				x.health.well(puller)
			}
			failing = false
			err = x.pullFrom(ctx, to)
		}
		if ctx.Err() != nil {
			return
		}
		if !failing {
			x.log.Warn("no events come", "err", err)
		}
		failing = true
		pause := pullPause
		if errors.Is(err, errDisplaced) {
			pause = displacedPause
		}
		x.health.trouble(puller, err)
		wait(ctx, pause)
	}
}

// pullFrom sends pulls until something goes wrong.
func (x *Indexer) pullFrom(ctx context.Context, to chan<- *item) error {
	nc := x.js.Conn()
	inbox := nc.NewInbox()
	sub, err := nc.SubscribeSync(inbox)
	if err != nil {
		return fmt.Errorf("subscribe to pulls: %w", err)
	}
	defer x.returnPending(sub)
	if err := sub.SetPendingLimits(-1, -1); err != nil { // what is pulled is bounded
		return fmt.Errorf("subscribe to pulls: %w", err)
	}
	least := growth * int(nc.MaxPayload())
	for {
		room := x.held.room(ctx, least)
		if room == 0 {
			return context.Cause(ctx)
		}
		if err := x.pullOnce(ctx, sub, room/growth, to); err != nil {
			return err
		}
		if err := x.same(ctx); err != nil {
			return err
		}
	}
}

// returnPending ends the pull, and gives back what was delivered and not looked at: others may take it at once.
func (x *Indexer) returnPending(sub *nats.Subscription) {
	count, _, err := sub.Pending()
	for range count {
		msg, nextErr := sub.NextMsg(time.Millisecond)
		if err = nextErr; err != nil {
			break
		}
		if msg.Reply != "" {
			_ = x.js.Conn().Publish(msg.Reply, nak)
		}
	}
	if err := errors.Join(err, sub.Unsubscribe()); err != nil {
		x.log.Debug("a pull did not end in order", "err", err)
	}
}

func (x *Indexer) pullOnce(ctx context.Context, sub *nats.Subscription, most int, to chan<- *item) error {
	nc := x.js.Conn()
	if !nc.IsConnected() {
		return nats.ErrDisconnected // a pull that waits for the connection would come late
	}
	body := fmt.Appendf(nil, `{"batch":%d,"max_bytes":%d,"expires":%d,"idle_heartbeat":%d}`,
		x.options.MaxAckPending, most, pullFor, pullHeartbeat)
	if err := nc.PublishRequest(jetstream.DefaultAPIPrefix+"CONSUMER.MSG.NEXT."+events.StreamEvents+"."+ConsumerName, sub.Subject, body); err != nil {
		return fmt.Errorf("pull: %w", err)
	}
	for bytes := 0; bytes < most; {
		msg, err := x.next(ctx, sub)
		if err != nil {
			return err
		}
		if done, err := status(msg); err != nil || done {
			return err
		}
		if msg.Header.Get(statusHeader) != "" { // a heartbeat
			if err := x.same(ctx); err != nil {
				return err
			}
			continue
		}
		bytes += msg.Size()
		if it := x.accept(ctx, msg); it != nil {
			select {
			case to <- it:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
	return nil
}

func (x *Indexer) next(ctx context.Context, sub *nats.Subscription) (*nats.Msg, error) {
	attempt, cancel := context.WithTimeout(ctx, silence)
	defer cancel()
	msg, err := sub.NextMsgWithContext(attempt)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return nil, errSilence
	}
	return msg, err
}

var errSilence = errors.New("the server does not answer pulls")

const statusHeader = "Status"

// status reads what ends a pull: done where it ended in order, else an error.
func status(msg *nats.Msg) (done bool, err error) {
	if len(msg.Data) > 0 || msg.Header == nil {
		return false, nil
	}
	const (
		heartbeat, noMessages, timeout, conflict = 100, 404, 408, 409

		full      = "Message Size Exceeds MaxBytes" // the next one does not fit any more
		completed = "Batch Completed"
	)
	text := msg.Header.Get(statusHeader)
	code, err := strconv.Atoi(text)
	description := msg.Header.Get("Description")
	switch {
	case text == "" || err == nil && code == heartbeat:
		return false, nil
	case code == noMessages, code == timeout, code == conflict && (description == full || description == completed):
		return true, nil
	default:
		return false, fmt.Errorf("the server ended a pull: %s %s", text, description)
	}
}

// accept makes an item of a message; nil where nothing is to do for it.
func (x *Indexer) accept(ctx context.Context, msg *nats.Msg) *item {
	metadata, err := msg.Metadata()
	if err != nil {
		x.log.Error("an event has no metadata", "subject", msg.Subject, "err", err)
		return nil
	}
	it := &item{
		sequence: metadata.Sequence.Stream, reply: msg.Reply, since: time.Now(),
		event: Message{Subject: msg.Subject, Data: msg.Data, Sequence: metadata.Sequence.Stream, Stored: metadata.Timestamp},
	}
	document, err := NewDocument(it.event)
	it.document, it.size = document, len(msg.Data)+len(document.Body)+overhead
	if !x.held.add(it) {
		return nil
	}
	if err != nil {
		x.bury(ctx, it, deadletter.Record{
			ID: "indexer~" + strconv.FormatUint(it.sequence, 10), Reason: deadletter.Undecodable, Error: err.Error(), Raw: msg.Data,
		})
		return nil
	}
	return it
}

// watchLag keeps the metric of what is not indexed yet, of all indexers together.
func (x *Indexer) watchLag(ctx context.Context) {
	ticker := time.NewTicker(lagEvery)
	defer ticker.Stop()
	for {
		if lag, err := x.Lag(ctx); err == nil {
			x.metrics.lag.Set(float64(lag))
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// Lag tells how many events are not indexed yet, by all indexers together.
func (x *Indexer) Lag(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	consumer, err := x.js.Consumer(ctx, events.StreamEvents, ConsumerName)
	if err != nil {
		return 0, fmt.Errorf("look at consumer %s of %s: %w", ConsumerName, events.StreamEvents, err)
	}
	info := consumer.CachedInfo()
	return info.NumPending + uint64(info.NumAckPending), nil
}
