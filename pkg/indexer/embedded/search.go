package embedded

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"strings"

	"github.com/blevesearch/bleve/v2"
	"github.com/blevesearch/bleve/v2/search"
	bquery "github.com/blevesearch/bleve/v2/search/query"

	"github.com/tributary-dev/tributary/pkg/indexer"
	"github.com/tributary-dev/tributary/pkg/indexer/query"
)

// Search asks all months.
func (x *Index) Search(ctx context.Context, r indexer.Request) (indexer.Found, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if len(x.months) == 0 {
		return indexer.Found{}, nil
	}
	alias := bleve.NewIndexAlias()
	for _, month := range x.months {
		alias.Add(month)
	}
	request := bleve.NewSearchRequestOptions(translate(r.Query), r.Size, r.From, false)
	request.Fields = []string{stored}
	request.SortByCustom(order(r.Sort))
	answer, err := alias.SearchInContext(ctx, request)
	if err != nil {
		return indexer.Found{}, fmt.Errorf("search: %w", err)
	}
	for month, err := range answer.Status.Errors {
		return indexer.Found{}, fmt.Errorf("search in %s: %w", month, err)
	}
	found := indexer.Found{Total: int(answer.Total)}
	for _, hit := range answer.Hits {
		source, ok := hit.Fields[stored].(string)
		if !ok {
			return indexer.Found{}, fmt.Errorf("search: document %s has lost its event", hit.ID)
		}
		found.Documents = append(found.Documents, json.RawMessage(source))
	}
	return found, nil
}

func order(sort indexer.Sort) search.SortOrder {
	by := func(field string, kind search.SortFieldType, descending bool) search.SearchSort {
		return &search.SortField{Field: field, Type: kind, Desc: descending, Missing: search.SortFieldMissingLast}
	}
	at := func(descending bool) search.SortOrder {
		return search.SortOrder{
			by("time", search.SortFieldAsNumber, descending), by("sequence", search.SortFieldAsString, descending),
			by("effect_id", search.SortFieldAsString, descending),
		}
	}
	switch sort {
	case indexer.Oldest:
		return at(false)
	case indexer.Best:
		return append(search.SortOrder{&search.SortScore{Desc: true}}, at(true)...)
	case indexer.Newest:
	}
	return at(true)
}

// translate gives a query in bleve's own terms.
func translate(node query.Node) bquery.Query {
	switch n := node.(type) {
	case query.All:
		return bleve.NewMatchAllQuery()
	case query.And:
		return bleve.NewConjunctionQuery(translateAll(n.Parts)...)
	case query.Or:
		return bleve.NewDisjunctionQuery(translateAll(n.Parts)...)
	case query.Not:
		return bquery.NewBooleanQuery([]bquery.Query{bleve.NewMatchAllQuery()}, nil, []bquery.Query{translate(n.Part)})
	case query.Term:
		if n.Field.Kind == query.Text {
			phrase := bleve.NewMatchPhraseQuery(n.Text)
			phrase.Analyzer = words
			return in(n.Field.Name, phrase)
		}
		return in(place(n.Field), bleve.NewTermQuery(within(n.Field, n.Text)))
	case query.Prefix:
		return in(place(n.Field), bleve.NewPrefixQuery(within(n.Field, n.Text)))
	case query.Wildcard:
		return in(n.Field.Name, bleve.NewRegexpQuery(expression(n.Pattern)))
	case query.Exists:
		if n.Field.Kind == query.Value {
			return in(place(n.Field), bleve.NewPrefixQuery(within(n.Field, "")))
		}
		return in(exists, bleve.NewTermQuery(n.Field.Name))
	case query.TextRange:
		return textRange(n)
	case query.IntRange:
		return between(n.Field, n.Low, n.High, true)
	case query.TimeRange:
		return between(n.Field, n.From, n.To, false)
	default:
		panic(fmt.Sprintf("embedded: a query's %T is unknown", node))
	}
}

func translateAll(nodes []query.Node) []bquery.Query {
	all := make([]bquery.Query, len(nodes))
	for i, node := range nodes {
		all[i] = translate(node)
	}
	return all
}

// fieldable is a query that asks one field.
type fieldable interface {
	bquery.Query
	SetField(field string)
}

func in(field string, q fieldable) bquery.Query {
	q.SetField(field)
	return q
}

// place is the field in bleve that has the values of a field.
func place(field query.Field) string {
	if field.Kind != query.Value {
		return field.Name
	}
	root, _, _ := strings.Cut(field.Name, ".")
	return root + keyedSuffix
}

// within is a text as it stands in the field's place.
func within(field query.Field, text string) string {
	if field.Kind != query.Value {
		return text
	}
	_, path, _ := strings.Cut(field.Name, ".")
	return path + keyedSeparator + text
}

func textRange(r query.TextRange) bquery.Query {
	const behindAll = "\x01" // what is within the path has a zero byte there
	low, high := r.Low, r.High
	if r.Field.Kind == query.Value {
		if low == nil {
			low = &query.Bound{Inclusive: true}
		}
		low = &query.Bound{Text: within(r.Field, low.Text), Inclusive: low.Inclusive}
		if high == nil {
			high = &query.Bound{Text: strings.TrimSuffix(within(r.Field, ""), keyedSeparator) + behindAll}
		} else {
			high = &query.Bound{Text: within(r.Field, high.Text), Inclusive: high.Inclusive}
		}
	}
	if low == nil {
		low = &query.Bound{Inclusive: true}
	}
	if high == nil {
		high = &query.Bound{Inclusive: true}
	}
	return in(place(r.Field), bleve.NewTermRangeInclusiveQuery(low.Text, high.Text, &low.Inclusive, &high.Inclusive))
}

func between(field query.Field, low, high int64, highInclusive bool) bquery.Query {
	yes := true
	var from, to *float64
	if low != math.MinInt64 {
		number := float64(low)
		from = &number
	}
	if high != math.MaxInt64 {
		number := float64(high)
		to = &number
	}
	if from == nil && to == nil {
		return in(exists, bleve.NewTermQuery(field.Name))
	}
	return in(field.Name, bleve.NewNumericRangeInclusiveQuery(from, to, &yes, &highInclusive))
}

// expression is a pattern as a regular expression.
func expression(pattern string) string {
	var b strings.Builder
	escaped := false
	for _, c := range pattern {
		switch {
		case !escaped && c == '\\':
			escaped = true
			continue
		case !escaped && c == '*':
			b.WriteString(`(.|\n)*`)
		case !escaped && c == '?':
			b.WriteString(`(.|\n)`)
		default:
			b.WriteString(regexp.QuoteMeta(string(c)))
		}
		escaped = false
	}
	return b.String()
}
