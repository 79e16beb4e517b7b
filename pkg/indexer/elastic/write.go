package elastic

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"

	"github.com/elastic/go-elasticsearch/v8/esapi"

	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/indexer"
)

// buffers are the bodies of bulks; one that grew beyond mostPooled is not kept.
var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

const mostPooled = 16 << 20

// What a flat_object of OpenSearch takes. It has no limits to set: a longer value is refused, and a row that is deep
// enough ends the server by a stack overflow.
const (
	flatDepth = 50
	flatBytes = 30_000
)

// actionBytes is more than an action has beside its names.
const actionBytes = 64

// lines says that a bulk is JSON line by line; the client would say that it is JSON.
var lines = http.Header{"Content-Type": {"application/x-ndjson"}}

// Write creates documents in one bulk.
func (x *Index) Write(ctx context.Context, documents []indexer.Document) ([]indexer.Outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, writeWithin)
	defer cancel()
	if err := x.ensureTemplate(ctx); err != nil {
		return nil, err
	}
	outcomes, err := x.bulk(ctx, documents)
	if err != nil {
		if !errors.Is(err, indexer.ErrBulkRefused) {
			x.installed.Store(0)
		}
		return nil, fmt.Errorf("write a bulk: %w", err)
	}
	return outcomes, nil
}

func (x *Index) bulk(ctx context.Context, documents []indexer.Document) ([]indexer.Outcome, error) {
	body := buffers.Get().(*bytes.Buffer)
	body.Reset()
	x.encode(body, documents)
	answer, err := esapi.BulkRequest{
		Body: bytes.NewReader(body.Bytes()), Header: lines.Clone(), FilterPath: []string{"errors", "items.*.status", "items.*.error"},
	}.Do(ctx, x.transport)
	if err != nil {
		return nil, err // the body may still be read: it is not used again
	}
	defer func() {
		if body.Cap() <= mostPooled {
			buffers.Put(body)
		}
	}()
	return outcomes(answer, len(documents))
}

func (x *Index) encode(body *bytes.Buffer, documents []indexer.Document) {
	size := 0
	for _, d := range documents {
		size += len(d.Body) + len(d.ID) + len(x.options.Prefix) + actionBytes
	}
	body.Grow(size) // at once: what a buffer grows out of is waste
	var action []byte
	for _, d := range documents {
		if x.product.name == opensearch {
			d = d.Bounded(flatDepth, flatBytes)
		}
		action = append(action[:0], `{"create":{"_index":`...)
		action = events.AppendString(action, x.indexOf(d.Month))
		action = append(action, `,"_id":`...)
		action = events.AppendString(action, d.ID)
		action = append(action, "}}\n"...)
		body.Write(action)
		body.Write(d.Body)
		body.WriteByte('\n')
	}
}

// result is what the server says of one document.
type result struct {
	Status int    `json:"status"`
	Error  *Cause `json:"error"`
}

func outcomes(answer *esapi.Response, documents int) ([]indexer.Outcome, error) {
	var bulk struct {
		Items []struct {
			Create *result `json:"create"`
		} `json:"items"`
	}
	err := read(answer, &bulk)
	var failed *StatusError
	switch {
	case hasStatus(err, http.StatusRequestEntityTooLarge):
		return nil, fmt.Errorf("%w: %w", indexer.ErrBulkRefused, err)
	case hasStatus(err, http.StatusBadRequest) && errors.As(err, &failed) && failed.Cause != nil && !ofIndex(failed.Cause):
		return nil, fmt.Errorf("%w: %w", indexer.ErrBulkRefused, err) // something in it can't be read
	case err != nil:
		return nil, err
	case len(bulk.Items) != documents:
		return nil, fmt.Errorf("the answer tells of %d documents, %d were sent", len(bulk.Items), documents)
	}
	all := make([]indexer.Outcome, documents)
	for i, item := range bulk.Items {
		if item.Create == nil {
			return nil, errors.New("the answer tells of something that was not asked for")
		}
		all[i] = item.Create.outcome()
	}
	return all, nil
}

// outcome reads what became of a document. Only what is said against the document itself refuses it: all else, such as
// a closed index or a missing right, can be mended, and is waited for.
func (r *result) outcome() indexer.Outcome {
	switch {
	case r.Status >= 200 && r.Status < 300:
		return indexer.Outcome{State: indexer.Created}
	case r.Status == http.StatusConflict:
		return indexer.Outcome{State: indexer.Existed}
	case r.Status == http.StatusBadRequest && (r.Error == nil || !ofIndex(r.Error)):
		return indexer.Outcome{State: indexer.Refused, Err: &StatusError{r.Status, r.Error}}
	default:
		return indexer.Outcome{State: indexer.Again, Err: &StatusError{r.Status, r.Error}}
	}
}

// ofIndex tells whether an error with status 400 is about the index or the cluster, not about a document.
func ofIndex(c *Cause) bool {
	switch c.Type {
	case "index_closed_exception",
		"validation_exception", // no index can be made: the cluster has as many shards as it may
		"invalid_index_name_exception", "index_creation_exception", "resource_already_exists_exception",
		"index_not_found_exception", "cluster_block_exception", "security_exception", "circuit_breaking_exception":
		return true
	default:
		return false
	}
}
