// Package webhook sends effects as HTTP requests that follow Standard Webhooks
// (https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md).
//
// It promises one request per attempt: nothing that may have reached the receiver is sent again within one, and no
// redirect is followed. Whether another attempt follows is decided elsewhere, by the error. No error and no outcome
// holds a body, a secret, or more of the URL than scheme, host and port.
package webhook

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/actions/egress"
	"github.com/tributary-dev/tributary/pkg/actions/secret"
	"github.com/tributary-dev/tributary/pkg/retry"
)

// Type is the type of requests that this package does.
const Type = "webhook"

// The headers of ours as they are sent. No rendered header replaces them. That idempotency-key is not in its canonical
// form keeps what else speaks HTTP from taking a POST for one that may be sent again: net/http's own transport would.
const (
	headerID             = "Webhook-Id"
	headerTimestamp      = "Webhook-Timestamp"
	headerSignature      = "Webhook-Signature"
	headerIdempotencyKey = "idempotency-key"
	headerSequence       = "Tributary-Sequence"
	headerUserAgent      = "User-Agent"
)

// Options of a Webhook. The zero value works.
type Options struct {
	Version string           // of Tributary, in the User-Agent; "dev" where it is empty
	Now     func() time.Time // time.Now where it is nil
}

// Webhook is the action. It is safe for concurrent use.
type Webhook struct {
	transport http.RoundTripper
	secrets   *secret.Resolver
	signers   signers
	addresses *addresses
	userAgent []string
	now       func() time.Time
}

// New makes the action; transport is egress.NewTransport's.
func New(transport http.RoundTripper, secrets *secret.Resolver, o Options) *Webhook {
	if o.Version == "" {
		o.Version = "dev"
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Webhook{
		transport: transport, secrets: secrets, addresses: newAddresses(), userAgent: []string{"Tributary/" + o.Version}, now: o.Now,
	}
}

// Do sends the request once. Any 2xx is done; a status in request.Permanent is permanent, and so is a URL that can't
// be used or an address that may not be connected to; everything else may be tried again, after Retry-After where the
// answer has one.
func (w *Webhook) Do(ctx context.Context, effect actions.Effect, request actions.Request) (actions.Outcome, error) {
	req, err := w.compose(ctx, effect, request)
	if err != nil {
		return actions.Outcome{}, err
	}
	response, err := w.transport.RoundTrip(req)
	if err != nil {
		return actions.Outcome{}, egress.Unanswered(ctx, place(req), request.Timeout, err)
	}
	egress.Drain(response.Body)
	return actions.Outcome{Status: response.StatusCode}, w.judge(req, request.Permanent, response)
}

// compose makes the request of this sending: what was rendered, and what is of each sending.
func (w *Webhook) compose(ctx context.Context, effect actions.Effect, request actions.Request) (*http.Request, error) {
	method := request.Method
	if method == "" {
		method = http.MethodPost
	}
	req, err := w.addresses.request(ctx, method, request.URL, request.Body)
	if err != nil {
		// The error of net/http quotes the URL, which may hold a credential.
		return nil, retry.Permanent(errors.New("the URL or method of the webhook can't be used"))
	}
	if s := req.URL.Scheme; s != "http" && s != "https" || req.URL.Host == "" {
		return nil, retry.Permanent(errors.New("the URL of the webhook is not http://… or https://…"))
	}
	header := make(http.Header, len(request.Header)+8)
	req.Header = header
	if err := w.addRendered(header, request.Header); err != nil {
		return nil, err
	}
	if host := header.Get("Host"); host != "" {
		req.Host = host
	}
	if user := req.URL.User; user != nil && header.Get("Authorization") == "" {
		password, _ := user.Password()
		req.SetBasicAuth(user.Username(), password)
	}
	if len(request.Body) > 0 && header.Get("Content-Type") == "" {
		header["Content-Type"] = []string{"application/json"}
	}
	return req, w.stamp(header, effect, request)
}

// addRendered adds the rendered headers, with the secrets that they name.
func (w *Webhook) addRendered(header http.Header, rendered []actions.Header) error {
	for _, h := range rendered {
		value, err := w.secrets.Expand(h.Value)
		if err != nil {
			return fmt.Errorf("header %s: %w", h.Name, err)
		}
		if !egress.ValidHeaderName(h.Name) || !egress.ValidHeaderValue(value) {
			return retry.Permanent(fmt.Errorf("header %q holds a character that can't be sent", h.Name))
		}
		name := textproto.CanonicalMIMEHeaderKey(h.Name)
		header[name] = append(header[name], value)
	}
	return nil
}

// stamp sets the headers of ours.
func (w *Webhook) stamp(header http.Header, effect actions.Effect, request actions.Request) error {
	timestamp := strconv.FormatInt(w.now().Unix(), 10)
	values := [...]string{effect.Key, timestamp, effect.Sequence, ""} // in one piece of memory
	key, at, sequence, signed := values[0:1:1], values[1:2:2], values[2:3:3], values[3:4:4]
	header[headerUserAgent] = w.userAgent
	header[headerID] = key
	header[headerTimestamp] = at
	header[headerIdempotencyKey] = key
	delete(header, "Idempotency-Key")
	delete(header, "X-Idempotency-Key")
	delete(header, headerSequence)
	delete(header, headerSignature)
	if effect.Sequence != "" {
		header[headerSequence] = sequence
	}
	if len(request.Secrets) == 0 {
		return nil
	}
	const size = 64 // of one, with the space behind it
	signature := make([]byte, 0, size*len(request.Secrets))
	for i, reference := range request.Secrets {
		text, err := w.secrets.Resolve(reference)
		if err != nil {
			return err
		}
		signer, err := w.signers.of(reference, text)
		if err != nil {
			return err
		}
		if i > 0 {
			signature = append(signature, ' ')
		}
		signature = signer.append(signature, effect.Key, timestamp, request.Body)
	}
	signed[0] = string(signature)
	header[headerSignature] = signed
	return nil
}

// judge reads the answer's status and Retry-After.
func (w *Webhook) judge(req *http.Request, permanent []int, response *http.Response) error {
	status := response.StatusCode
	if status >= 200 && status <= 299 {
		return nil
	}
	hint := ""
	if status >= 300 && status <= 399 {
		hint = ": redirects are not followed, give the address itself"
	}
	err := fmt.Errorf("%s: status %s%s", place(req), statusName(status), hint)
	if slices.Contains(permanent, status) {
		return retry.Permanent(err)
	}
	return egress.Again(err, response, w.now())
}

// place is what an error may say of where a request went: paths and queries hold credentials of some receivers.
func place(req *http.Request) string {
	u := url.URL{Scheme: req.URL.Scheme, Host: req.URL.Host}
	return req.Method + " " + u.String()
}

func statusName(status int) string {
	if text := http.StatusText(status); text != "" {
		return strconv.Itoa(status) + " " + text
	}
	return strconv.Itoa(status)
}
