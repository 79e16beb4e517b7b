package pgcdc

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"maps"
	"slices"
	"strings"
	"sync"
)

// minMaskKey is the least length of a key of hmac, in bytes.
const minMaskKey = 16

// method says what of a column's value is published. They are in the order of their strength: where several rules name a
// column, the strongest holds.
type method uint8

const (
	methodSHA256  method = iota + 1 // the hex SHA-256 of PostgreSQL's text of the value; a short value can be guessed from it
	methodHMAC                      // the hex HMAC-SHA-256 of that text, under the source's key
	methodRedact                    // a fixed text
	methodExclude                   // nothing, as if the table had no such column
)

// redacted stands for every value under methodRedact.
const redacted = "[redacted]"

var methods = map[string]method{"sha256": methodSHA256, "hmac": methodHMAC, "redact": methodRedact}

func (m method) String() string {
	for name, known := range methods {
		if known == m {
			return name
		}
	}
	return "exclude"
}

// distinct tells whether different values stay different.
func (m method) distinct() bool { return m == methodSHA256 || m == methodHMAC }

// mask replaces values of columns. A NULL is not its business: it stays NULL. It is safe for concurrent use.
type mask struct {
	method method
	states *sync.Pool // of hash.Hash, for methodHMAC
}

func newMask(m method, key []byte) *mask {
	return &mask{method: m, states: &sync.Pool{New: func() any { return hmac.New(sha256.New, key) }}}
}

// appendText appends what stands for a value's text. It needs no escape in JSON.
func (m *mask) appendText(dst, text []byte) []byte {
	switch m.method {
	case methodSHA256:
		sum := sha256.Sum256(text)
		return hex.AppendEncode(dst, sum[:])
	case methodHMAC:
		state := m.states.Get().(hash.Hash)
		defer m.states.Put(state)
		state.Reset()
		state.Write(text)
		var sum [sha256.Size]byte
		return hex.AppendEncode(dst, state.Sum(sum[:0]))
	case methodRedact, methodExclude:
		return append(dst, redacted...)
	default:
		panic("unreachable: a mask has a method")
	}
}

// columnRule names columns, and what is to be published of them.
type columnRule struct {
	text                  string // as it was configured
	key                   string // of the configuration: mask or exclude
	schema, table, column namePattern
	method                method
	optional              bool // it need not match anything
}

// exact tells whether the rule names one column, which should be there.
func (r *columnRule) exact() bool { return !r.optional && r.table.exact() && r.column.exact() }

// namePattern matches names: * stands for any text, but in a quoted one.
type namePattern struct {
	text   string
	quoted bool
}

func (p namePattern) match(name string) bool {
	if p.quoted {
		return p.text == name
	}
	return glob(p.text, name)
}

func (p namePattern) exact() bool { return p.quoted || !strings.Contains(p.text, "*") }

// parseColumnRule reads [schema.]table.column, with ? behind it for a rule that need not match. Parts may be quoted as in
// SQL, where they hold dots, stars or question marks.
func parseColumnRule(text string) (columnRule, error) {
	rule := columnRule{text: text}
	rest := text
	rest, rule.optional = strings.CutSuffix(rest, "?")
	var parts []namePattern
	for {
		part, behind, ok := cutName(rest)
		if !ok {
			return rule, fmt.Errorf("%q is not [schema.]table.column, with * for any text within a part", text)
		}
		parts = append(parts, part)
		if behind == "" {
			break
		}
		rest = behind[1:]
	}
	switch len(parts) {
	case 2:
		rule.schema, rule.table, rule.column = namePattern{text: "*"}, parts[0], parts[1]
	case 3:
		rule.schema, rule.table, rule.column = parts[0], parts[1], parts[2]
	default:
		return rule, fmt.Errorf("%q is not [schema.]table.column, with * for any text within a part", text)
	}
	return rule, nil
}

// cutName reads one part; what is behind it is empty, or begins with a dot.
func cutName(text string) (part namePattern, behind string, ok bool) {
	if !strings.HasPrefix(text, `"`) {
		end := strings.IndexByte(text, '.')
		if end < 0 {
			end = len(text)
		}
		name := text[:end]
		return namePattern{text: name}, text[end:], name != "" && !strings.Contains(name, `"`)
	}
	var name strings.Builder
	for i := 1; i < len(text); i++ {
		if text[i] != '"' {
			name.WriteByte(text[i])
			continue
		}
		if i+1 < len(text) && text[i+1] == '"' {
			name.WriteByte('"')
			i++
			continue
		}
		behind = text[i+1:]
		return namePattern{text: name.String(), quoted: true}, behind, name.Len() > 0 && (behind == "" || behind[0] == '.')
	}
	return namePattern{}, "", false
}

// columnRules are those of a source; nil where it has none.
type columnRules struct {
	rules []columnRule
	masks map[method]*mask
}

func parseColumnRules(o *Options) (*columnRules, error) {
	if len(o.Exclude) == 0 && len(o.Masks) == 0 {
		return nil, nil
	}
	c := &columnRules{masks: map[method]*mask{}}
	for _, m := range []method{methodSHA256, methodHMAC, methodRedact} {
		c.masks[m] = newMask(m, o.MaskKey)
	}
	for _, text := range o.Exclude {
		rule, err := parseColumnRule(text)
		if err != nil {
			return nil, fmt.Errorf("exclude: %w", err)
		}
		rule.key, rule.method = "exclude", methodExclude
		c.rules = append(c.rules, rule)
	}
	for _, text := range slices.Sorted(maps.Keys(o.Masks)) {
		rule, err := parseColumnRule(text)
		if err != nil {
			return nil, fmt.Errorf("mask: %w", err)
		}
		known := false
		if rule.method, known = methods[o.Masks[text]]; !known {
			return nil, fmt.Errorf("mask: %s must be sha256, hmac or redact, got %q", text, o.Masks[text])
		}
		if rule.method == methodHMAC && len(o.MaskKey) == 0 {
			return nil, fmt.Errorf("mask_key must be set: the mask of %s is hmac", text)
		}
		rule.key = "mask"
		c.rules = append(c.rules, rule)
	}
	if n := len(o.MaskKey); n > 0 && n < minMaskKey {
		return nil, errors.New("mask_key must have at least 16 bytes (the value is not shown)")
	}
	return c, nil
}
