// Package actions is the port between what decides that an effect is due and what does it. A folder per type holds the
// adapters; this package holds what they share: the rendered request, the effect it belongs to, and the outcome.
package actions

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Request is one effect as it was rendered, once, at the first attempt: all that a sending needs but secrets, which are
// named here and read at each sending. Its JSON lies in job records and dead letters.
type Request struct {
	Type      string        `json:"type"`               // of the action: webhook, log, …
	Endpoint  string        `json:"endpoint,omitempty"` // what shares slots and a circuit: scheme://host:port; empty for none
	Circuit   string        `json:"circuit,omitempty"`  // shares slots and a circuit instead of Endpoint, where it is named
	Method    string        `json:"method,omitempty"`
	URL       string        `json:"url,omitempty"`    // or what the type has in its place: a subject, the reference to a URL that is secret
	Header    []Header      `json:"header,omitempty"` // in order; values may hold references to secrets
	Body      []byte        `json:"body,omitempty"`
	Timeout   time.Duration `json:"timeout"`             // of one attempt, in nanoseconds; above 0
	Secrets   []string      `json:"secrets,omitempty"`   // references that sign: env:NAME, file:PATH
	Permanent []int         `json:"permanent,omitempty"` // statuses that are not tried again
	Cache     *Cache        `json:"cache,omitempty"`     // where its success is kept; nil for nowhere
}

// Cache says for how long the success of a request answers others like it.
type Cache struct {
	TTL time.Duration `json:"ttl"`           // in nanoseconds
	Key string        `json:"key,omitempty"` // empty for the request itself
}

// Header is one header of a Request.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Effect names what a request is for.
type Effect struct {
	Key      string `json:"key"`      // the effect key: idempotency key, webhook id and job id
	EventID  string `json:"event_id"` // of the envelope
	Sequence string `json:"sequence"` // of the envelope
	Observer string `json:"observer"`
	Action   string `json:"action"`
}

// Outcome is what is worth keeping of an attempt that ended, successful or not.
type Outcome struct {
	Status int    // of HTTP or SMTP; 0 where there is none
	Detail string // a line without payloads or secrets
}

// Action does effects of one type. Do performs one attempt; it is safe for concurrent use, and honours ctx, whose
// deadline is the attempt's. A nil error means done. An error marked retry.Permanent is final, one marked retry.After
// names the earliest next attempt, every other may be tried again. The same effect may come twice: Do passes its key on.
type Action interface {
	Do(ctx context.Context, effect Effect, request Request) (Outcome, error)
}

// ErrUnknownType is the error of a request whose type no action serves.
var ErrUnknownType = errors.New("unknown action type")

// Registry is the actions of a service, by type.
type Registry map[string]Action

// Do performs one attempt within the request's timeout. A panic of an action is an error like others.
func (r Registry) Do(ctx context.Context, effect Effect, request Request) (outcome Outcome, err error) {
	action, ok := r[request.Type]
	if !ok {
		return Outcome{}, fmt.Errorf("%w: %q", ErrUnknownType, request.Type)
	}
	within := newWithin(ctx, request.Timeout)
	defer within.end()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("action %s panicked: %v", request.Type, p)
		}
	}()
	return action.Do(within, effect, request)
}
