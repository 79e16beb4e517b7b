package expr

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"cel.dev/cel-go/common/types"
)

// maxDepth bounds the nesting of what is decoded, and so the recursion of everything that walks it.
const maxDepth = 1000

// decoder reads JSON into what CEL reads fastest: map[string]any and []any whose leaves are CEL values. Texts share
// the memory of its input. Integers of 64 bits are CEL's, every other number is a Decimal, whose text is not read before
// somebody asks. Of equal keys the last wins, and what is not UTF-8 becomes U+FFFD, both as in encoding/json.
type decoder struct {
	text  string
	at    int
	depth int

	replace     string // a member of the outermost object that is not decoded again,
	replacement any    // but taken from here; unused where replace is empty
}

var errDepth = errors.New("decode JSON: nested too deeply")

// decodeJSON decodes one JSON value.
func decodeJSON(text string) (any, error) {
	d := decoder{text: text}
	return d.document()
}

func (d *decoder) document() (any, error) {
	value, err := d.value()
	if err != nil {
		return nil, err
	}
	if d.space(); d.at < len(d.text) {
		return nil, d.syntax()
	}
	return value, nil
}

func (d *decoder) syntax() error { return fmt.Errorf("decode JSON: syntax error at byte %d", d.at) }

func (d *decoder) space() {
	for d.at < len(d.text) {
		switch d.text[d.at] {
		case ' ', '\t', '\n', '\r':
			d.at++
		default:
			return
		}
	}
}

// next skips white space and gives the byte that follows, 0 at the end.
func (d *decoder) next() byte {
	d.space()
	if d.at == len(d.text) {
		return 0
	}
	return d.text[d.at]
}

func (d *decoder) value() (any, error) {
	switch c := d.next(); c {
	case '{':
		return d.object()
	case '[':
		return d.array()
	case '"':
		text, err := d.str()
		return types.String(text), err
	case 't':
		return d.word("true", types.True)
	case 'f':
		return d.word("false", types.False)
	case 'n':
		return d.word("null", types.NullValue)
	default:
		return d.number()
	}
}

func (d *decoder) word(word string, value any) (any, error) {
	if !strings.HasPrefix(d.text[d.at:], word) {
		return nil, d.syntax()
	}
	d.at += len(word)
	return value, nil
}

func (d *decoder) enter() error {
	d.at++
	if d.depth++; d.depth > maxDepth {
		return errDepth
	}
	return nil
}

func (d *decoder) object() (any, error) {
	if err := d.enter(); err != nil {
		return nil, err
	}
	object := make(map[string]any, 8)
	for first := true; ; first = false {
		c := d.next()
		if c == '}' && first {
			break
		}
		if c != '"' {
			return nil, d.syntax()
		}
		name, err := d.str()
		if err != nil {
			return nil, err
		}
		if d.next() != ':' {
			return nil, d.syntax()
		}
		d.at++
		if object[name], err = d.member(name); err != nil {
			return nil, err
		}
		if c = d.next(); c == '}' {
			break
		}
		if c != ',' {
			return nil, d.syntax()
		}
		d.at++
	}
	d.at++
	d.depth--
	return object, nil
}

func (d *decoder) member(name string) (any, error) {
	if d.depth == 1 && d.replace != "" && name == d.replace {
		return d.replacement, d.skip()
	}
	return d.value()
}

func (d *decoder) array() (any, error) {
	if err := d.enter(); err != nil {
		return nil, err
	}
	array := []any{}
	for first := true; ; first = false {
		if d.next() == ']' && first {
			break
		}
		value, err := d.value()
		if err != nil {
			return nil, err
		}
		array = append(array, value)
		c := d.next()
		if c == ']' {
			break
		}
		if c != ',' {
			return nil, d.syntax()
		}
		d.at++
	}
	d.at++
	d.depth--
	return array, nil
}

// skip passes over a value that was decoded before, so it only counts brackets outside of texts.
func (d *decoder) skip() error {
	depth := 0
	for d.space(); d.at < len(d.text); {
		switch d.text[d.at] {
		case '"':
			if _, err := d.str(); err != nil {
				return err
			}
		case '{', '[':
			depth++
			d.at++
		case '}', ']', ',':
			if depth == 0 {
				return nil
			}
			if d.text[d.at] != ',' {
				depth--
			}
			d.at++
		default:
			d.at++
		}
	}
	return d.syntax()
}

func (d *decoder) number() (any, error) {
	start, integer := d.at, true
	if d.peek() == '-' {
		d.at++
	}
	if d.peek() == '0' {
		d.at++
	} else if !d.digits() {
		return nil, d.syntax()
	}
	if d.peek() == '.' {
		integer = false
		d.at++
		if !d.digits() {
			return nil, d.syntax()
		}
	}
	if c := d.peek(); c == 'e' || c == 'E' {
		integer = false
		d.at++
		if c := d.peek(); c == '+' || c == '-' {
			d.at++
		}
		if !d.digits() {
			return nil, d.syntax()
		}
	}
	return numberOf(d.text[start:d.at], integer), nil
}

func numberOf(literal string, integer bool) any {
	if integer && literal != "-0" {
		if n, err := strconv.ParseInt(literal, 10, 64); err == nil {
			return types.Int(n)
		}
		if n, err := strconv.ParseUint(literal, 10, 64); err == nil {
			return types.Uint(n)
		}
	}
	return Decimal(literal)
}

func (d *decoder) peek() byte {
	if d.at == len(d.text) {
		return 0
	}
	return d.text[d.at]
}

func (d *decoder) digits() bool {
	start := d.at
	for d.at < len(d.text) && d.text[d.at] >= '0' && d.text[d.at] <= '9' {
		d.at++
	}
	return d.at > start
}

// str reads a text; the next byte is its opening quote.
func (d *decoder) str() (string, error) {
	d.at++
	start, ascii := d.at, true
	for d.at < len(d.text) {
		switch c := d.text[d.at]; {
		case c == '"':
			text := d.text[start:d.at]
			d.at++
			if !ascii {
				text = valid(text)
			}
			return text, nil
		case c == '\\':
			return d.escaped(start)
		case c < ' ':
			return "", d.syntax()
		default:
			ascii = ascii && c < utf8.RuneSelf
			d.at++
		}
	}
	return "", d.syntax()
}

// escaped goes on at the first backslash of the text that begins at start.
func (d *decoder) escaped(start int) (string, error) {
	text := []byte(d.text[start:d.at])
	for d.at < len(d.text) {
		switch c := d.text[d.at]; {
		case c == '"':
			d.at++
			return valid(string(text)), nil
		case c < ' ':
			return "", d.syntax()
		case c != '\\':
			text = append(text, c)
			d.at++
			continue
		}
		if d.at++; d.at == len(d.text) {
			break
		}
		switch c := d.text[d.at]; c {
		case '"', '\\', '/':
			text = append(text, c)
		case 'b':
			text = append(text, '\b')
		case 'f':
			text = append(text, '\f')
		case 'n':
			text = append(text, '\n')
		case 'r':
			text = append(text, '\r')
		case 't':
			text = append(text, '\t')
		case 'u':
			r, ok := d.unicode()
			if !ok {
				return "", d.syntax()
			}
			text = utf8.AppendRune(text, r)
			continue
		default:
			return "", d.syntax()
		}
		d.at++
	}
	return "", d.syntax()
}

// unicode reads from the u of \uXXXX, both halves of a surrogate pair; half a pair is U+FFFD.
func (d *decoder) unicode() (rune, bool) {
	r, ok := hex4(d.text[d.at+1:])
	if !ok {
		return 0, false
	}
	d.at += 5
	if !utf16.IsSurrogate(r) {
		return r, true
	}
	if strings.HasPrefix(d.text[d.at:], `\u`) {
		if low, ok := hex4(d.text[d.at+2:]); ok {
			if pair := utf16.DecodeRune(r, low); pair != utf8.RuneError {
				d.at += 6
				return pair, true
			}
		}
	}
	return utf8.RuneError, true
}

func hex4(text string) (rune, bool) {
	if len(text) < 4 {
		return 0, false
	}
	var r rune
	for i := range 4 {
		c := text[i]
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// valid replaces every byte that is not UTF-8 by U+FFFD.
func valid(text string) string {
	if utf8.ValidString(text) {
		return text
	}
	return string([]rune(text))
}
