package elastic

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"

	"github.com/elastic/go-elasticsearch/v8/esapi"

	"github.com/tributary-dev/tributary/pkg/indexer"
	"github.com/tributary-dev/tributary/pkg/indexer/query"
	"github.com/tributary-dev/tributary/pkg/retry"
)

// wanted are the members of a document that a hit is made of.
var wanted = []string{"effect_id", "source", "schema", "table", "op", "partition", "stream_sequence", "stored", indexer.Envelope}

// Search asks all months.
func (x *Index) Search(ctx context.Context, r indexer.Request) (indexer.Found, error) {
	body, err := json.Marshal(object{
		"query": translate(r.Query), "size": r.Size, "from": r.From, "sort": order(r.Sort),
		"track_total_hits": true, "_source": wanted,
	})
	if err != nil {
		return indexer.Found{}, fmt.Errorf("encode a search: %w", err)
	}
	whole := false
	var answer struct {
		Hits struct {
			Total struct {
				Value int `json:"value"`
			} `json:"total"`
			Hits []struct {
				Source json.RawMessage `json:"_source"`
			} `json:"hits"`
		} `json:"hits"`
	}
	err = x.ask(ctx, esapi.SearchRequest{
		Index: x.every(), Body: bytes.NewReader(body), AllowPartialSearchResults: &whole,
	}, &answer)
	if hasStatus(err, http.StatusBadRequest) {
		err = retry.Permanent(err)
	}
	if err != nil {
		return indexer.Found{}, fmt.Errorf("search: %w", err)
	}
	found := indexer.Found{Total: answer.Hits.Total.Value}
	for _, hit := range answer.Hits.Hits {
		found.Documents = append(found.Documents, hit.Source)
	}
	return found, nil
}

func order(sort indexer.Sort) []object {
	by := func(field, kind, direction string) object {
		return object{field: object{"order": direction, "unmapped_type": kind}}
	}
	at := func(direction string) []object {
		return []object{by("time", "date", direction), by("sequence", "keyword", direction), by("effect_id", "keyword", direction)}
	}
	switch sort {
	case indexer.Oldest:
		return at("asc")
	case indexer.Best:
		return append([]object{{"_score": object{"order": "desc"}}}, at("desc")...)
	case indexer.Newest:
	}
	return at("desc")
}

// translate gives a query in Elasticsearch's own language.
func translate(node query.Node) object {
	of := func(kind string, field query.Field, value any) object { return object{kind: object{field.Name: value}} }
	switch n := node.(type) {
	case query.All:
		return object{"match_all": object{}}
	case query.And:
		return object{"bool": object{"must": translateAll(n.Parts)}}
	case query.Or:
		return object{"bool": object{"should": translateAll(n.Parts), "minimum_should_match": 1}}
	case query.Not:
		return object{"bool": object{"must_not": translate(n.Part)}}
	case query.Term:
		if n.Field.Kind == query.Text {
			return of("match_phrase", n.Field, n.Text)
		}
		return of("term", n.Field, n.Text)
	case query.Prefix:
		return of("prefix", n.Field, n.Text)
	case query.Wildcard:
		return of("wildcard", n.Field, n.Pattern)
	case query.Exists:
		return object{"exists": object{"field": n.Field.Name}}
	case query.TextRange:
		return of("range", n.Field, textRange(n))
	case query.IntRange:
		return of("range", n.Field, between(n.Low, "lte", n.High))
	case query.TimeRange:
		limits := between(n.From, "lt", n.To)
		limits["format"] = "epoch_millis"
		return of("range", n.Field, limits)
	default:
		panic(fmt.Sprintf("elastic: a query's %T is unknown", node))
	}
}

func translateAll(nodes []query.Node) []object {
	all := make([]object, len(nodes))
	for i, node := range nodes {
		all[i] = translate(node)
	}
	return all
}

// highest lies behind every other text.
const highest = "\U0010FFFF"

func textRange(r query.TextRange) object {
	limits := object{}
	low, high := r.Low, r.High
	if r.Field.Kind == query.Value { // where both ends are due
		if low == nil {
			low = &query.Bound{Inclusive: true}
		}
		if high == nil {
			high = &query.Bound{Text: highest, Inclusive: true}
		}
	}
	if low != nil {
		limits[map[bool]string{true: "gte", false: "gt"}[low.Inclusive]] = low.Text
	}
	if high != nil {
		limits[map[bool]string{true: "lte", false: "lt"}[high.Inclusive]] = high.Text
	}
	return limits
}

func between(low int64, to string, high int64) object {
	limits := object{}
	if low != math.MinInt64 {
		limits["gte"] = low
	}
	if high != math.MaxInt64 {
		limits[to] = high
	}
	return limits
}

// Describe tells of the cluster and of all months.
func (x *Index) Describe(ctx context.Context) (indexer.Info, error) {
	info := indexer.Info{Backend: x.product.name, Version: x.product.version}
	var err error
	if info.Months, err = x.Months(ctx); err != nil {
		return info, err
	}
	var count struct {
		Count int `json:"count"`
	}
	if err := x.ask(ctx, esapi.CountRequest{Index: x.every()}, &count); err != nil {
		return info, fmt.Errorf("count documents: %w", err)
	}
	info.Documents = count.Count
	if info.Identity, err = x.Identity(ctx); err != nil {
		return info, err
	}
	return info, nil
}

// Months lists the months that have an index, ascending.
func (x *Index) Months(ctx context.Context) ([]string, error) {
	parts, err := x.Parts(ctx)
	if err != nil {
		return nil, err
	}
	return slices.AppendSeq([]string{}, slices.Values(slices.Sorted(maps.Keys(parts)))), nil
}

// Parts gives the months that have an index, each with that index's id.
func (x *Index) Parts(ctx context.Context) (map[string]string, error) {
	var rows []struct {
		Index string `json:"index"`
		ID    string `json:"uuid"`
	}
	err := x.ask(ctx, esapi.CatIndicesRequest{Index: x.every(), H: []string{"index", "uuid"}, Format: "json", ExpandWildcards: "all"}, &rows)
	if err != nil {
		return nil, fmt.Errorf("list indices: %w", err)
	}
	parts := map[string]string{}
	for _, row := range rows {
		if month, ours := strings.CutPrefix(row.Index, x.indexOf("")); ours && indexer.IsMonth(month) {
			parts[month] = row.ID
		}
	}
	return parts, nil
}

// Drop deletes the indices of months, by their whole names.
func (x *Index) Drop(ctx context.Context, months []string) error {
	missing := true
	for _, month := range months {
		if !indexer.IsMonth(month) {
			return fmt.Errorf("delete an index: %q is no month", month)
		}
		err := x.ask(ctx, esapi.IndicesDeleteRequest{Index: []string{x.indexOf(month)}, IgnoreUnavailable: &missing}, nil)
		if err != nil {
			return fmt.Errorf("delete index %s: %w", x.indexOf(month), err)
		}
	}
	return nil
}
