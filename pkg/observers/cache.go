package observers

import (
	"fmt"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/observers/expr"
)

var cacheKeys = []string{"key", "prefix", "value", "ttl"}

// What is asked of the cache, in the place of the method.
const (
	cacheSet              = "SET"
	cacheInvalidate       = "INVALIDATE"
	cacheInvalidatePrefix = "INVALIDATE-PREFIX"
)

const defaultCacheTTL = time.Minute

// endpointCache is one for all keys: they share the bucket.
const endpointCache = "cache"

// cacheSpec is the canonical form of what only changes of the cache have.
type cacheSpec struct {
	Key    string `json:"key,omitempty"`
	Prefix string `json:"prefix,omitempty"`
	Value  string `json:"value,omitempty"`
	TTL    string `json:"ttl,omitempty"`
}

// cacheTemplate renders a change: the key or prefix in the place of the URL.
type cacheTemplate struct {
	method string
	name   string // key or prefix
	key    *expr.Text
	value  *expr.JSON // nil where it is invalidated
	ttl    string
}

func (l *loader) cache(fields map[string]field, n ast.Node) (template, any) {
	t := &cacheTemplate{method: cacheInvalidate, name: "key"}
	spec := &cacheSpec{}
	f := fields["key"]
	if prefix := fields["prefix"]; prefix.given() {
		if f.given() {
			l.fail(prefix.at, "keep one of them", "a change of the cache has key or prefix, not both")
		}
		t.method, t.name, f = cacheInvalidatePrefix, "prefix", prefix
	}
	key := l.required(f, n, "a change of the cache", "key")
	var err error
	t.key, err = l.env.CompileText(key.value, expr.Subject)
	l.failAt(t.name, key, err)
	if l.err == nil && key.value == "" {
		l.fail(key.start, "", "%s is empty", t.name)
	}
	if t.method == cacheInvalidate {
		spec.Key = key.value
	} else {
		spec.Prefix = key.value
	}
	if value := fields["value"]; value.given() {
		if t.method == cacheInvalidatePrefix {
			l.fail(value.at, "write key: and the value's own", "a prefix can be invalidated, and not set")
		}
		t.method = cacheSet
		t.value, spec.Value = l.body(value)
		t.ttl = l.duration(fields["ttl"], defaultCacheTTL).String()
	} else if ttl := fields["ttl"]; ttl.given() {
		l.fail(ttl.at, "it is that of a value", "ttl stands beside value")
	}
	spec.TTL = t.ttl
	return t, spec
}

func (t *cacheTemplate) render(v *View) (actions.Request, error) {
	request := actions.Request{Endpoint: endpointCache, Method: t.method}
	var err error
	if request.URL, err = t.key.Render(v.input); err != nil {
		return actions.Request{}, fmt.Errorf("%s: %w", t.name, err)
	}
	if t.value == nil {
		return request, nil
	}
	request.Header = []actions.Header{{Name: "TTL", Value: t.ttl}}
	if request.Body, err = t.value.Append(nil, v.input); err != nil {
		return actions.Request{}, fmt.Errorf("value: %w", err)
	}
	return request, nil
}

func (t *cacheTemplate) expressions() []asking {
	if t.value == nil {
		return []asking{t.key}
	}
	return []asking{t.key, t.value}
}
