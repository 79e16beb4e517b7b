// Package slack is the action that posts a message to a channel of Slack, through an incoming webhook
// (https://api.slack.com/messaging/webhooks).
//
// The webhook's URL is a secret: it is read at each sending, and no error holds more of it than the host. Slack knows no
// idempotency: a message whose answer was lost is posted again, under the same Idempotency-Key.
package slack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/actions/egress"
	"github.com/tributary-dev/tributary/pkg/actions/secret"
	"github.com/tributary-dev/tributary/pkg/retry"
)

// Type is the type of requests that this package does.
const Type = "slack"

// headerKey is not in its canonical form, so that net/http does not send a request again by itself.
const headerKey = "idempotency-key"

// Slack is the action. It is safe for concurrent use.
type Slack struct {
	transport http.RoundTripper
	secrets   *secret.Resolver
}

// New makes the action; transport is egress.NewTransport's.
func New(transport http.RoundTripper, secrets *secret.Resolver) *Slack {
	return &Slack{transport: transport, secrets: secrets}
}

// Do posts request.Body, a message as JSON, to the URL that the reference in request.URL names. What Slack refuses for good
// (400, 403, 404, 410) is permanent, and so is an address that may not be connected to; everything else may be tried
// again, after Retry-After where the answer has one.
func (s *Slack) Do(ctx context.Context, effect actions.Effect, request actions.Request) (actions.Outcome, error) {
	req, err := s.compose(ctx, effect, request)
	if err != nil {
		return actions.Outcome{}, err
	}
	place := http.MethodPost + " " + (&url.URL{Scheme: req.URL.Scheme, Host: req.URL.Host}).String()
	response, err := s.transport.RoundTrip(req)
	if err != nil {
		return actions.Outcome{}, egress.Unanswered(ctx, place, request.Timeout, err)
	}
	reason := reasonOf(response.Body)
	return actions.Outcome{Status: response.StatusCode, Detail: reason}, judge(place, reason, response)
}

// compose makes the request. A URL that can't be used may be mended where the secret is kept, and is not permanent.
func (s *Slack) compose(ctx context.Context, effect actions.Effect, request actions.Request) (*http.Request, error) {
	link, err := s.secrets.Resolve(request.URL)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSpace(link), bytes.NewReader(request.Body))
	if err != nil || req.URL.Scheme != "https" && req.URL.Scheme != "http" || req.URL.Host == "" {
		return nil, fmt.Errorf("secret %s is no URL of an incoming webhook", request.URL) // net/http's error quotes it
	}
	req.Header["Content-Type"] = []string{"application/json; charset=utf-8"}
	req.Header["User-Agent"] = []string{"Tributary"}
	req.Header[headerKey] = []string{effect.Key}
	return req, nil
}

// judge reads the answer's status and Retry-After.
func judge(place, reason string, response *http.Response) error {
	status := response.StatusCode
	if status >= 200 && status <= 299 {
		return nil
	}
	err := fmt.Errorf("%s: status %d %s", place, status, http.StatusText(status))
	if reason != "" {
		err = fmt.Errorf("%w: %s", err, reason)
	}
	switch status {
	case http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound, http.StatusGone:
		return retry.Permanent(err)
	}
	return egress.Again(err, response, time.Now())
}

// reasons are the words with which Slack says why it refuses.
var reasons = []string{
	"action_prohibited", "channel_is_archived", "channel_not_found", "invalid_blocks", "invalid_payload", "invalid_token",
	"no_active_hooks", "no_service", "no_service_id", "no_team", "no_text", "posting_to_general_channel_denied", "rate_limited",
	"rollup_error", "team_disabled", "too_many_attachments", "user_not_found",
}

// reasonOf reads an answer and gives the reason it holds; empty where it holds none that is known, since an answer may
// quote the message.
func reasonOf(body io.ReadCloser) string {
	defer egress.Drain(body)
	var text [64]byte
	n, err := io.ReadFull(body, text[:])
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return ""
	}
	if reason := strings.TrimSpace(string(text[:n])); slices.Contains(reasons, reason) {
		return reason
	}
	return ""
}
