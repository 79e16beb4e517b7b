// Package elastic keeps documents in Elasticsearch, or in OpenSearch: an index for each month, made by a template that
// Prepare installs.
//
// It promises that a document is created and never changed, that each of a bulk gets the outcome that the server gave
// for it, and that nothing is tried again in silence: who calls decides. It relies on Elasticsearch 8, on nothing of
// its licensed parts, and on the right to manage the template and the indices of its prefix. It does not resize,
// snapshot or move indices.
package elastic

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/elastic/elastic-transport-go/v8/elastictransport"
	"github.com/elastic/go-elasticsearch/v8/esapi"

	"github.com/tributary-dev/tributary/pkg/retry"
)

// DefaultPrefix is what names of indices begin with, unless Options say otherwise.
const DefaultPrefix = "tributary-events"

// Options of an Index. URL is required.
type Options struct {
	URL                string
	Username, Password string
	APIKey             string // instead of both
	CACert             []byte // PEM, instead of the system's
	Prefix             string // of names of indices, and the template's name; DefaultPrefix
	AllowUnknown       bool   // whether a server that does not say that it is Elasticsearch or OpenSearch is taken for the former
	UserAgent          string
	Log                *slog.Logger
}

// Index is one cluster. It is safe for concurrent use; Close it.
type Index struct {
	options   Options
	transport *elastictransport.Client
	http      *http.Transport
	log       *slog.Logger
	product   product     // found by Prepare
	hasID     atomic.Bool // the cluster has told its id

	installed atomic.Int64 // when the template was seen last, in ns since 1970; 0 where the server was away since then
}

const (
	dialWithin  = 5 * time.Second
	askWithin   = 30 * time.Second
	writeWithin = 2 * time.Minute // the server waits a minute for a shard that is away before it says so
)

// New gives an Index. It asks nothing of the server.
func New(options Options) (*Index, error) {
	address, err := url.Parse(options.URL)
	if err != nil || address.Host == "" {
		return nil, errors.New("the address of Elasticsearch must be http://host:port or https://host:port")
	}
	options.Prefix = cmp.Or(options.Prefix, DefaultPrefix)
	if options.Log == nil {
		options.Log = slog.New(slog.DiscardHandler)
	}
	transport := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: dialWithin, KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout:   dialWithin,
		ResponseHeaderTimeout: writeWithin,
		MaxIdleConnsPerHost:   8,
		IdleConnTimeout:       90 * time.Second,
		ForceAttemptHTTP2:     true,
	}
	if options.CACert != nil {
		if transport.TLSClientConfig, err = trust(options.CACert); err != nil {
			return nil, err
		}
	}
	client, err := elastictransport.NewClient(
		elastictransport.WithURLs(address), elastictransport.WithTransport(transport),
		elastictransport.WithBasicAuth(options.Username, options.Password), elastictransport.WithAPIKey(options.APIKey),
		elastictransport.WithDisableRetry(), elastictransport.WithUserAgent(cmp.Or(options.UserAgent, "tributary")),
	)
	if err != nil {
		return nil, fmt.Errorf("make a client of Elasticsearch: %w", err)
	}
	return &Index{options: options, transport: client, http: transport, log: options.Log}, nil
}

// Close ends the connections.
func (x *Index) Close() { x.http.CloseIdleConnections() }

// indexOf names the index of a month.
func (x *Index) indexOf(month string) string { return x.options.Prefix + "-" + month }

// every names the indices of all months. The digit keeps those out whose prefix begins with ours, such as
// tributary-events-eu.
func (x *Index) every() []string { return []string{x.options.Prefix + "-1*", x.options.Prefix + "-2*"} }

// request is one of esapi's.
type request interface {
	Do(ctx context.Context, transport esapi.Transport) (*esapi.Response, error)
}

// ask sends a request, and decodes the answer where into is not nil. What is no success is a *StatusError.
func (x *Index) ask(ctx context.Context, r request, into any) error {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	answer, err := r.Do(ctx, x.transport)
	if err != nil {
		return err
	}
	return read(answer, into)
}

// mostAnswer bounds what is read of an answer.
const mostAnswer = 512 << 20

func read(answer *esapi.Response, into any) error {
	if answer.Body == nil {
		answer.Body = http.NoBody
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, mostAnswer))
	if err = errors.Join(err, answer.Body.Close()); err != nil {
		return fmt.Errorf("read the answer of Elasticsearch: %w", err)
	}
	if answer.IsError() {
		return statusError(answer, body)
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("decode the answer of Elasticsearch: %w", err)
	}
	return nil
}

// StatusError is an answer that is no success.
type StatusError struct {
	Status int
	Cause  *Cause // nil where the answer is not Elasticsearch's, a proxy's say
}

func (e *StatusError) Error() string {
	text := fmt.Sprintf("status %d", e.Status)
	if e.Cause != nil {
		text += ": " + e.Cause.Error()
	}
	return text
}

// Cause is what Elasticsearch says went wrong.
type Cause struct {
	Type     string `json:"type"`
	Reason   string `json:"reason"`
	CausedBy *Cause `json:"caused_by"`
}

// UnmarshalJSON also takes the text that old and small APIs give instead of an object.
func (c *Cause) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '"' {
		return json.Unmarshal(data, &c.Reason)
	}
	type plain Cause
	return json.Unmarshal(data, (*plain)(c))
}

func (c *Cause) Error() string {
	text := c.Reason
	if c.Type != "" {
		text = c.Type + ": " + c.Reason
	}
	if c.CausedBy != nil {
		text += "; caused by " + c.CausedBy.Error()
	}
	return text
}

// statusError reads an error, and how long to wait where the server says that.
func statusError(answer *esapi.Response, body []byte) error {
	failed := &StatusError{Status: answer.StatusCode}
	var said struct {
		Error *Cause `json:"error"`
	}
	if json.Unmarshal(bytes.TrimSpace(body), &said) == nil {
		failed.Cause = said.Error
	}
	if seconds, err := strconv.Atoi(answer.Header.Get("Retry-After")); err == nil && seconds > 0 {
		return retry.After(failed, min(time.Duration(seconds)*time.Second, askWithin))
	}
	return failed
}

// hasStatus tells whether err is an answer with one of the statuses.
func hasStatus(err error, statuses ...int) bool {
	var failed *StatusError
	if !errors.As(err, &failed) {
		return false
	}
	for _, status := range statuses {
		if failed.Status == status {
			return true
		}
	}
	return false
}
