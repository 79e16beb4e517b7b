// Package nats is the action that publishes a message to NATS.
//
// It promises that a stream which listens has stored the message, once within its duplicate window, when an effect is
// done: the effect key is the Nats-Msg-Id. Where no stream listens, the server has the message, and whoever subscribes
// at that moment gets it. Nothing is published under the subjects of Tributary's own streams, nor the server's.
package nats

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/retry"
)

// Type is the type of requests that this package does.
const Type = "nats"

const (
	headerSequence = "Tributary-Sequence"
	ownPrefix      = "nats-" // of the headers that the server acts upon, in lower case

	// listenersAge is how long it is remembered whether a stream listens. A stream that came meanwhile stores the message
	// all the same, and only its answer is not waited for; one that went is noticed by its silence.
	listenersAge  = 5 * time.Second
	mostListeners = 4096
)

// Publisher is the action. It is safe for concurrent use.
type Publisher struct {
	js jetstream.JetStream

	mu        sync.Mutex
	listeners map[string]listener // by subject; guarded by mu
}

type listener struct {
	stream bool
	until  time.Time
}

// New makes the action; it publishes on js's connection.
func New(js jetstream.JetStream) *Publisher {
	return &Publisher{js: js, listeners: make(map[string]listener)}
}

// Do publishes request.Body with request.Header to the subject in request.URL. What can't be published, because of its
// subject, its headers or its size, is permanent; everything else may be tried again.
func (p *Publisher) Do(ctx context.Context, effect actions.Effect, request actions.Request) (actions.Outcome, error) {
	if err := ctx.Err(); err != nil {
		return actions.Outcome{}, fmt.Errorf("publish: %w", context.Cause(ctx))
	}
	msg, err := compose(effect, request)
	if err != nil {
		return actions.Outcome{}, retry.Permanent(err)
	}
	listens, err := p.listens(ctx, msg.Subject)
	if err != nil {
		return actions.Outcome{}, fmt.Errorf("look for a stream of the subject: %w", judge(err))
	}
	if !listens {
		if err := p.send(ctx, msg); err != nil {
			return actions.Outcome{}, fmt.Errorf("publish: %w", judge(err))
		}
		return actions.Outcome{Detail: "no stream listens"}, nil
	}
	ack, err := p.js.PublishMsg(ctx, msg)
	if err != nil {
		p.forget(msg.Subject)
		return actions.Outcome{}, fmt.Errorf("publish: %w", judge(err))
	}
	return actions.Outcome{Detail: fmt.Sprintf("stored in %s at %d", ack.Stream, ack.Sequence)}, nil
}

// compose makes the message; its errors are permanent.
func compose(effect actions.Effect, request actions.Request) (*nats.Msg, error) {
	if err := events.CheckTarget(request.URL); err != nil {
		return nil, err
	}
	msg := nats.NewMsg(request.URL)
	msg.Data = request.Body
	for _, h := range request.Header {
		if strings.HasPrefix(strings.ToLower(h.Name), ownPrefix) || h.Name == "" || strings.ContainsAny(h.Name, ": \t\r\n") {
			return nil, fmt.Errorf("header %q is not to be set", h.Name)
		}
		if strings.ContainsAny(h.Value, "\r\n") {
			return nil, fmt.Errorf("header %q holds a line end", h.Name)
		}
		msg.Header[h.Name] = append(msg.Header[h.Name], h.Value)
	}
	msg.Header[jetstream.MsgIDHeader] = []string{effect.Key}
	if effect.Sequence != "" {
		msg.Header[headerSequence] = []string{effect.Sequence}
	}
	return msg, nil
}

// send publishes to whoever subscribes, and waits until the server has the message. While the server is away it errs at
// once: what the client keeps for later nobody would know of.
func (p *Publisher) send(ctx context.Context, msg *nats.Msg) error {
	nc := p.js.Conn()
	if !nc.IsConnected() {
		return nats.ErrDisconnected
	}
	if err := nc.PublishMsg(msg); err != nil {
		return err
	}
	return nc.FlushWithContext(ctx)
}

// listens tells whether a stream takes what is published to subject.
func (p *Publisher) listens(ctx context.Context, subject string) (bool, error) {
	now := time.Now()
	p.mu.Lock()
	known, ok := p.listeners[subject]
	p.mu.Unlock()
	if ok && now.Before(known.until) {
		return known.stream, nil
	}
	_, err := p.js.StreamNameBySubject(ctx, subject)
	if err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return false, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.listeners) >= mostListeners {
		clear(p.listeners)
	}
	p.listeners[subject] = listener{stream: err == nil, until: now.Add(listenersAge)}
	return err == nil, nil
}

func (p *Publisher) forget(subject string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.listeners, subject)
}

// errTooLarge is the server's code of a message over the max_msg_size of its stream.
const errTooLarge jetstream.ErrorCode = 10054

// judge marks what no attempt can mend.
func judge(err error) error {
	var refused *jetstream.APIError
	switch {
	case errors.Is(err, nats.ErrMaxPayload), errors.Is(err, nats.ErrBadSubject), errors.Is(err, nats.ErrHeadersNotSupported):
		return retry.Permanent(err)
	case errors.As(err, &refused) && refused.ErrorCode == errTooLarge:
		return retry.Permanent(err)
	default:
		return err
	}
}
