// Package search is the action that indexes a document in Elasticsearch, or deletes it.
//
// A document's version is the place of its event among all events (version_type external_gte), which stands in the rendered
// URL: an attempt that comes late, or again, finds a newer version or its own, and that is as good as done. Elasticsearch
// forgets the version of a deleted document after index.gc_deletes (60 s): an older one that comes later than that is indexed.
// No error and no outcome holds a document, a secret, or more of the URL than scheme, host and port.
package search

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/actions/egress"
	"github.com/tributary-dev/tributary/pkg/actions/secret"
	"github.com/tributary-dev/tributary/pkg/retry"
)

// Type is the type of requests that this package does.
const Type = "search"

// headerKey is what Elasticsearch writes into its logs of a request (https://www.elastic.co/docs/api/doc/elasticsearch).
const headerKey = "X-Opaque-Id"

// Search is the action. It is safe for concurrent use.
type Search struct {
	transport http.RoundTripper
	secrets   *secret.Resolver
}

// New makes the action; transport is egress.NewTransport's.
func New(transport http.RoundTripper, secrets *secret.Resolver) *Search {
	return &Search{transport: transport, secrets: secrets}
}

// Do sends the request once. 2xx is done, and so is 409, a newer version, and 404 for a DELETE; a document or an index that
// Elasticsearch does not take (400, 413) is permanent, and so is an address that may not be connected to; everything else may
// be tried again.
func (s *Search) Do(ctx context.Context, effect actions.Effect, request actions.Request) (actions.Outcome, error) {
	req, err := s.compose(ctx, effect, request)
	if err != nil {
		return actions.Outcome{}, err
	}
	place := req.Method + " " + (&url.URL{Scheme: req.URL.Scheme, Host: req.URL.Host}).String()
	response, err := s.transport.RoundTrip(req)
	if err != nil {
		return actions.Outcome{}, egress.Unanswered(ctx, place, request.Timeout, err)
	}
	reason := reasonOf(response)
	outcome := actions.Outcome{Status: response.StatusCode}
	switch status := response.StatusCode; {
	case status >= 200 && status <= 299:
		return outcome, nil
	case status == http.StatusConflict:
		outcome.Detail = "a newer version is there"
		return outcome, nil
	case status == http.StatusNotFound && req.Method == http.MethodDelete:
		outcome.Detail = "it was not there"
		return outcome, nil
	case status == http.StatusBadRequest, status == http.StatusRequestEntityTooLarge:
		return outcome, retry.Permanent(fmt.Errorf("%s: status %d%s", place, status, reason))
	default:
		err := fmt.Errorf("%s: status %d%s", place, status, reason)
		return outcome, egress.Again(err, response, time.Now())
	}
}

// errorType finds what Elasticsearch calls an error, at the beginning of its answer. The reason behind it may quote the document.
var errorType = regexp.MustCompile(`^\{"error":\{"root_cause":\[\{"type":"([a-z_]{1,64})"`)

// reasonOf reads an answer, and gives what may be told of why it refuses; empty where it says nothing that is known.
func reasonOf(response *http.Response) string {
	defer egress.Drain(response.Body)
	if response.StatusCode < http.StatusBadRequest {
		return ""
	}
	var text [128]byte
	n, _ := io.ReadFull(response.Body, text[:]) // what there is
	if found := errorType.FindSubmatch(text[:n]); found != nil {
		return ": " + string(found[1])
	}
	return ""
}

func (s *Search) compose(ctx context.Context, effect actions.Effect, request actions.Request) (*http.Request, error) {
	if request.Method != http.MethodPut && request.Method != http.MethodDelete {
		return nil, retry.Permanent(fmt.Errorf("a document is sent by PUT or DELETE, not by %q", request.Method))
	}
	req, err := http.NewRequestWithContext(ctx, request.Method, request.URL, bytes.NewReader(request.Body))
	if err != nil || req.URL.Host == "" || !strings.HasPrefix(req.URL.Scheme, "http") {
		return nil, retry.Permanent(errors.New("the URL of the document can't be used")) // the error of net/http quotes it
	}
	for _, h := range request.Header {
		value, err := s.secrets.Expand(h.Value)
		if err != nil {
			return nil, fmt.Errorf("header %s: %w", h.Name, err)
		}
		req.Header.Set(h.Name, value)
	}
	if len(request.Body) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set(headerKey, effect.Key)
	return req, nil
}
