package worker

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/pkg/events"
)

// What every worker must agree on for the consumers.
const (
	consumerPrefix = "worker-"
	group          = "w"
	pinnedTTL      = 3 * time.Second
	ackWait        = time.Hour   // nothing waits for it: see acks
	askWithin      = time.Second // a leader that has died does not answer
)

// consumer speaks to the durable consumer of one partition. Pulls go over core NATS rather than through the client's
// own loop, because a holder has to know when each pull was sent, and what answered it.
type consumer struct {
	nc            *nats.Conn
	js            jetstream.JetStream
	name          string
	filter        string
	maxAckPending int
	next          string // subject of pulls
}

func newConsumer(js jetstream.JetStream, partition, maxAckPending int) *consumer {
	name := ConsumerName(partition)
	return &consumer{
		nc: js.Conn(), js: js, name: name, filter: events.EventsOfPartition(partition), maxAckPending: maxAckPending,
		next: jetstream.DefaultAPIPrefix + "CONSUMER.MSG.NEXT." + events.StreamEvents + "." + name,
	}
}

// ensure creates the consumer, or finds it.
func (c *consumer) ensure(ctx context.Context) error {
	there, err := c.js.Consumer(ctx, events.StreamEvents, c.name)
	if err == nil && there.CachedInfo().Config.AckPolicy != ackPolicy {
		return c.replace(ctx, there.CachedInfo().AckFloor.Stream)
	}
	if err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return fmt.Errorf("look at consumer %s: %w", c.name, err)
	}
	return c.create(ctx)
}

const ackPolicy = jetstream.AckAllPolicy

func (c *consumer) create(ctx context.Context) error {
	_, err := c.js.CreateOrUpdateConsumer(ctx, events.StreamEvents, jetstream.ConsumerConfig{
		Durable: c.name, Description: "Events of a partition for the worker that holds it",
		FilterSubject: c.filter, DeliverPolicy: jetstream.DeliverAllPolicy, AckPolicy: ackPolicy,
		AckWait: ackWait, MaxDeliver: -1, MaxAckPending: mostPending(c.maxAckPending),
		PriorityPolicy: jetstream.PriorityPolicyPinned, PriorityGroups: []string{group}, PinnedTTL: pinnedTTL,
	})
	if err != nil {
		return fmt.Errorf("create consumer %s: %w", c.name, err)
	}
	return nil
}

// replace makes a consumer of an earlier release anew, for the policy of acknowledging can't be changed in place. What it
// had acknowledged without a gap does not come again; if it does, because this process dies here, or another one does the
// same, it is known by the watermarks.
func (c *consumer) replace(ctx context.Context, floor uint64) error {
	if err := c.js.DeleteConsumer(ctx, events.StreamEvents, c.name); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return fmt.Errorf("delete consumer %s of an earlier release: %w", c.name, err)
	}
	if err := c.create(ctx); err != nil {
		return err
	}
	return c.call(ctx, "RESET", append(strconv.AppendUint([]byte(`{"seq":`), floor+1, 10), '}'))
}

// pull asks for messages.
type pull struct {
	batch    int
	maxBytes int // 0 for no bound
	expires  time.Duration
	pin      string // empty to ask for one
}

// send sends a pull whose messages and status go to reply.
func (c *consumer) send(reply string, p pull) error {
	body := make([]byte, 0, 128)
	body = append(body, `{"batch":`...)
	body = strconv.AppendInt(body, int64(p.batch), 10)
	if p.maxBytes > 0 {
		body = append(body, `,"max_bytes":`...)
		body = strconv.AppendInt(body, int64(p.maxBytes), 10)
	}
	body = append(body, `,"expires":`...)
	body = strconv.AppendInt(body, int64(p.expires), 10)
	body = append(body, `,"group":"`+group+`"`...)
	if p.pin != "" {
		body = append(body, `,"id":"`...)
		body = append(body, p.pin...)
		body = append(body, '"')
	}
	if err := c.nc.PublishRequest(c.next, reply, append(body, '}')); err != nil {
		return fmt.Errorf("pull from consumer %s: %w", c.name, err)
	}
	return nil
}

// reset moves the consumer back to its ack floor: what is not acknowledged is delivered again at once, in order.
func (c *consumer) reset(ctx context.Context) error { return c.call(ctx, "RESET", nil) }

// made tells when EVENTS was made, in Unix nanoseconds.
func (c *consumer) made(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	stream, err := c.js.Stream(ctx, events.StreamEvents)
	if err != nil {
		return 0, fmt.Errorf("look at %s: %w", events.StreamEvents, err)
	}
	return stream.CachedInfo().Created.UnixNano(), nil
}

// unpin frees the group for the next pull without a pin, whoever has the pin.
func (c *consumer) unpin(ctx context.Context) error {
	return c.call(ctx, "UNPIN", []byte(`{"group":"`+group+`"}`))
}

// state tells which pin is in force, empty where none is, and whether deliveries are not acknowledged yet.
func (c *consumer) state(ctx context.Context) (pin string, pending bool, err error) {
	var info struct {
		Pending int `json:"num_ack_pending"`
		Groups  []struct {
			Pin string `json:"pinned_client_id"`
		} `json:"priority_groups"`
	}
	if err := c.ask(ctx, "INFO", nil, &info); err != nil {
		return "", false, err
	}
	for _, g := range info.Groups { // there is one
		pin = cmp.Or(pin, g.Pin)
	}
	return pin, info.Pending > 0, nil
}

// ackFloor gives the sequence in the stream up to which all is acknowledged.
func (c *consumer) ackFloor(ctx context.Context) (uint64, error) {
	var info struct {
		Floor struct {
			Stream uint64 `json:"stream_seq"`
		} `json:"ack_floor"`
	}
	err := c.ask(ctx, "INFO", nil, &info)
	return info.Floor.Stream, err
}

func (c *consumer) call(ctx context.Context, verb string, body []byte) error {
	return c.ask(ctx, verb, body, &struct{}{})
}

func (c *consumer) ask(ctx context.Context, verb string, body []byte, into any) error {
	wrap := func(err error) error { return fmt.Errorf("%s consumer %s: %w", strings.ToLower(verb), c.name, err) }
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	answer, err := c.nc.RequestWithContext(ctx, jetstream.DefaultAPIPrefix+"CONSUMER."+verb+"."+events.StreamEvents+"."+c.name, body)
	if err != nil {
		return wrap(err)
	}
	var failed struct {
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(answer.Data, &failed); err != nil {
		return wrap(fmt.Errorf("decode answer: %w", err))
	}
	if failed.Error != nil {
		return wrap(failed.Error)
	}
	if err := json.Unmarshal(answer.Data, into); err != nil {
		return wrap(fmt.Errorf("decode answer: %w", err))
	}
	return nil
}

// delivery is what the reply subject of a message says.
type delivery struct {
	stream   uint64 // sequence in the stream
	consumer uint64 // sequence among the consumer's deliveries since it was reset, without gaps
	stored   int64  // when the stream took it, in Unix nanoseconds
}

// parseDelivery reads $JS.ACK.<stream>.<consumer>.<times>.<stream sequence>.<consumer sequence>.<time>.<pending>, or the
// form with a domain and an account before the stream.
func parseDelivery(reply string) (delivery, bool) {
	const (
		prefix  = "$JS.ACK."
		short   = 9
		long    = 11 // newer servers may add tokens at the end
		longest = 16
	)
	if !strings.HasPrefix(reply, prefix) {
		return delivery{}, false
	}
	var tokens [longest]string
	n := 0
	for token := range strings.SplitSeq(reply, ".") {
		if n == longest {
			break
		}
		tokens[n] = token
		n++
	}
	at := 5
	switch {
	case n == short:
	case n >= long:
		at += 2
	default:
		return delivery{}, false
	}
	stream, errStream := strconv.ParseUint(tokens[at], 10, 64)
	consumer, errConsumer := strconv.ParseUint(tokens[at+1], 10, 64)
	stored, errStored := strconv.ParseInt(tokens[at+2], 10, 64)
	return delivery{stream: stream, consumer: consumer, stored: stored}, errStream == nil && errConsumer == nil && errStored == nil
}
