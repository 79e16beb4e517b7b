package embedded

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/blevesearch/bleve/v2/document"
	index "github.com/blevesearch/bleve_index_api"

	"github.com/tributary-dev/tributary/pkg/indexer"
	"github.com/tributary-dev/tributary/pkg/indexer/query"
)

// The fields in bleve are those of documents, and
//
//	<object>/keyed   of what is in an object: its path, a zero byte, its value; so that no row can add a field
//	exists           the names of the fields that the document has
//	source_          what hits are made of, stored and not indexed
const (
	keyedSuffix = "/keyed"
	exists      = "exists"
	stored      = "source_"

	keyedSeparator = "\x00"

	// ignoreAbove is from which length on a value is not found, as in Elasticsearch.
	ignoreAbove = 8191
)

const (
	exactly  = index.IndexField | index.SkipFreqNorm
	sortable = exactly | index.DocValues
)

// kept are the members of a document that hits are made of.
var kept = []string{"effect_id", "source", "schema", "table", "op", "partition", "stream_sequence", "stored", indexer.Envelope}

// sorted are the fields that hits can be ordered by.
var sorted = map[string]bool{"time": true, "sequence": true, "effect_id": true}

// converter makes what bleve takes of one document.
type converter struct {
	index *Index
	out   *document.Document
	body  map[string]any
}

func (x *Index) document(d indexer.Document) (*document.Document, error) {
	c := converter{index: x, out: document.NewDocument(d.ID)}
	decoder := json.NewDecoder(bytes.NewReader(d.Body))
	decoder.UseNumber() // as they are written
	if err := decoder.Decode(&c.body); err != nil {
		return nil, fmt.Errorf("decode document %s: %w", d.ID, err)
	}
	for _, field := range query.Fields() {
		value := c.member(field.Name)
		if value == nil {
			continue
		}
		if err := c.field(field, value); err != nil {
			return nil, fmt.Errorf("read %s of document %s: %w", field.Name, d.ID, err)
		}
	}
	hit := map[string]any{}
	for _, name := range kept {
		if value, ok := c.body[name]; ok {
			hit[name] = value
		}
	}
	source, err := json.Marshal(hit)
	if err != nil {
		return nil, fmt.Errorf("encode document %s: %w", d.ID, err)
	}
	c.out.AddField(document.NewTextFieldWithIndexingOptions(stored, nil, source, index.StoreField))
	c.out.AddIDField()
	return c.out, nil
}

func (c *converter) member(name string) any {
	outer, inner, nested := strings.Cut(name, ".")
	if !nested {
		return c.body[name]
	}
	object, _ := c.body[outer].(map[string]any)
	return object[inner]
}

func (c *converter) field(field query.Field, value any) error {
	name := field.Name
	switch field.Kind {
	case query.Keyword, query.Text:
		for _, text := range texts(value) {
			if field.Kind == query.Text {
				c.text(text)
			} else {
				c.exact(name, text)
			}
		}
	case query.Bool:
		c.exact(name, fmt.Sprint(value))
	case query.Number:
		number, err := json.Number(fmt.Sprint(value)).Int64()
		if err != nil {
			return err
		}
		c.number(name, number)
	case query.Time:
		at, err := time.Parse(time.RFC3339, fmt.Sprint(value))
		if err != nil {
			return err
		}
		c.number(name, at.UnixMilli())
	case query.Object:
		if !c.leaves(name, "", value) {
			return nil
		}
	case query.Value:
	}
	c.exact(exists, name)
	return nil
}

// leaves indexes what is in an object, and tells whether there is something.
func (c *converter) leaves(root, path string, value any) bool {
	some := false
	switch v := value.(type) {
	case map[string]any:
		for name, inner := range v {
			if path != "" {
				name = path + "." + name
			}
			some = c.leaves(root, name, inner) || some
		}
	case []any:
		for _, inner := range v {
			some = c.leaves(root, path, inner) || some
		}
	case nil:
	default:
		text := fmt.Sprint(v)
		if utf8.RuneCountInString(text) <= ignoreAbove {
			c.exact(root, text)
			c.exact(root+keyedSuffix, path+keyedSeparator+text)
			some = true
		}
	}
	return some
}

func (c *converter) exact(name, text string) {
	if utf8.RuneCountInString(text) > ignoreAbove {
		return
	}
	options := exactly
	if sorted[name] {
		options = sortable
	}
	c.out.AddField(document.NewTextFieldWithIndexingOptions(name, nil, []byte(text), options))
}

func (c *converter) number(name string, number int64) {
	options := exactly
	if sorted[name] {
		options = sortable
	}
	c.out.AddField(document.NewNumericFieldWithIndexingOptions(name, nil, float64(number), options))
}

// text indexes words with their places, of which those of another value are none.
func (c *converter) text(text string) {
	position := []uint64{uint64(len(c.out.Fields))}
	c.out.AddField(document.NewTextFieldCustom(wordsField, position, []byte(text), index.IndexField|index.IncludeTermVectors, c.index.analyzer))
}

// wordsField is the field of words.
const wordsField = "text"

// texts gives the texts of a value that is one, or a list of them.
func texts(value any) []string {
	list, ok := value.([]any)
	if !ok {
		return []string{fmt.Sprint(value)}
	}
	var all []string
	for _, item := range list {
		all = append(all, fmt.Sprint(item))
	}
	return all
}
