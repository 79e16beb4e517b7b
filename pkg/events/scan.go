package events

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/bits"
	"unicode/utf8"
)

// maxDepth bounds the nesting of JSON, as encoding/json does.
const maxDepth = 10_000

// scanner walks over JSON as RFC 8259 has it, as strict as encoding/json. Its methods stop at the first byte that
// breaks the rules, which pos then tells.
type scanner struct {
	data []byte
	pos  int
}

func (s *scanner) fault() error {
	if s.pos >= len(s.data) {
		return fmt.Errorf("%w: the JSON ends early", ErrInvalid)
	}
	return fmt.Errorf("%w: the JSON is broken at byte %d", ErrInvalid, s.pos)
}

// peek gives the byte at the position; 0, which begins nothing in JSON, at the end.
func (s *scanner) peek() byte {
	if s.pos < len(s.data) {
		return s.data[s.pos]
	}
	return 0
}

func (s *scanner) space() {
	for s.pos < len(s.data) {
		switch s.data[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// take moves behind c, if that is the byte at the position.
func (s *scanner) take(c byte) bool {
	if s.peek() != c {
		return false
	}
	s.pos++
	return true
}

// object walks over an object, and calls member for each of its names, with the position before the value; member must
// move behind the value. It is false where the JSON, or member, breaks off.
func (s *scanner) object(member func(name span) bool) bool {
	if !s.take('{') {
		return false
	}
	s.space()
	if s.take('}') {
		return true
	}
	for {
		name, ok := s.text()
		if !ok {
			return false
		}
		s.space()
		if !s.take(':') {
			return false
		}
		s.space()
		if !member(name) {
			return false
		}
		s.space()
		if s.take('}') {
			return true
		}
		if !s.take(',') {
			return false
		}
		s.space()
	}
}

// value walks over any value; depth is how many more levels it may open.
func (s *scanner) value(depth int) bool {
	switch c := s.peek(); c {
	case '"':
		_, ok := s.text()
		return ok
	case '{':
		return depth > 0 && s.object(func(span) bool { return s.value(depth - 1) })
	case '[':
		return depth > 0 && s.array(depth-1)
	case 't':
		return s.word("true")
	case 'f':
		return s.word("false")
	case 'n':
		return s.word("null")
	default:
		return s.number()
	}
}

func (s *scanner) array(depth int) bool {
	s.pos++
	s.space()
	if s.take(']') {
		return true
	}
	for {
		if !s.value(depth) {
			return false
		}
		s.space()
		if s.take(']') {
			return true
		}
		if !s.take(',') {
			return false
		}
		s.space()
	}
}

func (s *scanner) word(word string) bool {
	for i := range len(word) {
		if !s.take(word[i]) {
			return false
		}
	}
	return true
}

func (s *scanner) number() bool {
	s.take('-')
	if !s.take('0') && !s.digits() {
		return false
	}
	if s.take('.') && !s.digits() {
		return false
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		s.pos++
		if c := s.peek(); c == '+' || c == '-' {
			s.pos++
		}
		return s.digits()
	}
	return true
}

func (s *scanner) digits() bool {
	start := s.pos
	for s.pos < len(s.data) && s.data[s.pos]-'0' <= 9 {
		s.pos++
	}
	return s.pos > start
}

// span is a string as it is written, with its quotes. It is plain where it says itself what it means.
type span struct {
	quoted []byte
	at     int // where it begins
	plain  bool
}

// special marks the bytes of a string that need a look: its end, escapes, control characters, and all beyond ASCII.
var special = func() (table [256]bool) {
	for c := range table {
		table[c] = c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf
	}
	return table
}()

// text walks over a string.
func (s *scanner) text() (span, bool) {
	if !s.take('"') {
		return span{}, false
	}
	start, ascii, escaped := s.pos-1, true, false
	for s.plain(); s.pos < len(s.data); s.plain() {
		c := s.data[s.pos]
		switch {
		case c == '"':
			s.pos++
			quoted := s.data[start:s.pos]
			return span{quoted, start, !escaped && (ascii || utf8.Valid(quoted))}, true
		case c == '\\':
			escaped = true
			s.pos++
			if !s.escape() {
				return span{}, false
			}
		case c < ' ':
			return span{}, false
		default:
			ascii = false
			s.pos++
		}
	}
	return span{}, false
}

// plain moves to the next byte of a string that needs a look, eight at a time (Hacker's Delight, 6-1: the lowest byte that
// is marked is one, whatever is above it).
func (s *scanner) plain() {
	const (
		each  = 0x0101010101010101
		tops  = each * 0x80
		quote = each * '"'
		slash = each * '\\'
	)
	for ; s.pos+8 <= len(s.data); s.pos += 8 {
		x := binary.LittleEndian.Uint64(s.data[s.pos:])
		q, b := x^quote, x^slash
		if marked := (x | (x-each*' ')&^x | (q-each)&^q | (b-each)&^b) & tops; marked != 0 {
			s.pos += bits.TrailingZeros64(marked) / 8
			return
		}
	}
	for s.pos < len(s.data) && !special[s.data[s.pos]] {
		s.pos++
	}
}

// escape walks over what follows a backslash.
func (s *scanner) escape() bool {
	switch s.peek() {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.pos++
		return true
	case 'u':
		s.pos++
		for range 4 {
			c := s.peek()
			if (c < '0' || c > '9') && (c < 'a' || c > 'f') && (c < 'A' || c > 'F') {
				return false
			}
			s.pos++
		}
		return true
	default:
		return false
	}
}

// raw is the string between its quotes. It is what the string means only where it is plain.
func (t span) raw() []byte {
	if len(t.quoted) < 2 {
		return nil
	}
	return t.quoted[1 : len(t.quoted)-1]
}

// String gives what the string means; nothing where there is none.
func (t span) String() string {
	if t.plain || t.quoted == nil {
		return string(t.raw())
	}
	var text string
	if err := json.Unmarshal(t.quoted, &text); err != nil {
		panic(fmt.Sprintf("unreachable: the scanner took %q for a string: %v", t.quoted, err))
	}
	return text
}
