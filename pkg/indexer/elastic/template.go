package elastic

import (
	"strings"

	"github.com/tributary-dev/tributary/pkg/indexer"
	"github.com/tributary-dev/tributary/pkg/indexer/query"
)

// templateVersion grows with every change of what template gives; indices that are there keep what they were made with.
const templateVersion = 1

const (
	// ignoreAbove keeps a value from becoming a term longer than the 32,766 bytes that Lucene takes, at most 4 to each
	// character, a column's name beside it. A longer one is kept, and not found.
	ignoreAbove = 8191

	// depthLimit is how deep objects may nest in a row; the server's default is 20.
	depthLimit = 100

	priority = 500 // above what catches more than our indices
)

type object = map[string]any

// template is the index template: every field is named, so that no row can add one.
func (x *Index) template() object {
	return object{
		"index_patterns": x.every(),
		"priority":       priority,
		"version":        templateVersion,
		"_meta":          object{"managed_by": managedBy},
		"template": object{
			"settings": object{"index": object{"number_of_shards": 1, "auto_expand_replicas": "0-1"}},
			"mappings": object{"dynamic": false, "properties": x.properties()},
		},
	}
}

func (x *Index) properties() object {
	all := object{indexer.Envelope: object{"type": "object", "enabled": false}}
	for _, field := range query.Fields() {
		into, name := all, field.Name
		if root, rest, nested := strings.Cut(name, "."); nested {
			outer, ok := all[root].(object)
			if !ok {
				outer = object{"properties": object{}}
				all[root] = outer
			}
			into, name = outer["properties"].(object), rest
		}
		into[name] = x.mapping(field.Kind)
	}
	return all
}

func (x *Index) mapping(kind query.Kind) object {
	switch kind {
	case query.Keyword:
		return object{"type": "keyword", "ignore_above": ignoreAbove}
	case query.Text:
		return object{"type": "text"}
	case query.Time:
		return object{"type": "date"}
	case query.Number:
		return object{"type": "long"}
	case query.Bool:
		return object{"type": "boolean"}
	case query.Object:
		if x.product.name == opensearch {
			return object{"type": "flat_object"}
		}
		return object{"type": "flattened", "ignore_above": ignoreAbove, "depth_limit": depthLimit}
	case query.Value:
	}
	panic("elastic: a value within an object has no mapping of its own")
}
