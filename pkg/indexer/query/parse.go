package query

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
)

// maxDepth bounds how deep parentheses nest, maxNodes how much a query asks for.
const (
	maxDepth = 100
	maxNodes = 200
)

// Parse reads a query. now is what the query's own "now" means. An empty query asks for All. It errors with *Error.
func Parse(text string, now time.Time) (node Node, err error) {
	p := &parser{text: []rune(text), now: now}
	defer func() {
		if recovered := recover(); recovered != nil {
			wrong, ours := recovered.(*Error)
			if !ours {
				panic(recovered)
			}
			node, err = nil, wrong
		}
	}()
	p.space()
	if p.end() {
		return All{}, nil
	}
	node = p.either(0)
	if !p.end() {
		p.fail("there is no ( for this )")
	}
	return node, nil
}

// parser stops by a panic with *Error, which Parse catches: every step would have to hand an error on otherwise.
type parser struct {
	text  []rune
	pos   int
	nodes int
	now   time.Time
}

func (p *parser) fail(format string, args ...any) { p.failAt(p.pos, format, args...) }

func (p *parser) failAt(pos int, format string, args ...any) {
	panic(&Error{Position: pos + 1, Message: fmt.Sprintf(format, args...)})
}

func (p *parser) end() bool { return p.pos >= len(p.text) }

// peek gives the character at the position, 0 at the end.
func (p *parser) peek() rune {
	if p.end() {
		return 0
	}
	return p.text[p.pos]
}

func (p *parser) space() {
	for !p.end() && unicode.IsSpace(p.text[p.pos]) {
		p.pos++
	}
}

func (p *parser) take(c rune) bool {
	if p.peek() != c || p.end() {
		return false
	}
	p.pos++
	return true
}

// word takes one of the words that join parts, where it stands alone.
func (p *parser) word(words ...string) bool {
	for _, word := range words {
		end := p.pos + len(word)
		if end > len(p.text) || string(p.text[p.pos:end]) != word {
			continue
		}
		if end == len(p.text) || unicode.IsSpace(p.text[end]) || p.text[end] == '(' || p.text[end] == ')' {
			p.pos = end
			p.space()
			return true
		}
	}
	return false
}

func (p *parser) either(depth int) Node {
	if depth > maxDepth {
		p.fail("more than %d parentheses nest here", maxDepth)
	}
	parts := []Node{p.every(depth)}
	for p.word("OR", "||") {
		parts = append(parts, p.every(depth))
	}
	return join(parts, func(parts []Node) Node { return Or{parts} })
}

func (p *parser) every(depth int) Node {
	parts := []Node{p.unless(depth)}
	for !p.end() && p.peek() != ')' {
		start := p.pos
		if p.word("OR", "||") {
			p.pos = start
			break
		}
		p.word("AND", "&&")
		parts = append(parts, p.unless(depth))
	}
	return join(parts, func(parts []Node) Node { return And{parts} })
}

func join(parts []Node, several func([]Node) Node) Node {
	if len(parts) == 1 {
		return parts[0]
	}
	return several(parts)
}

func (p *parser) unless(depth int) Node {
	p.count()
	if !p.negated() {
		return p.primary(depth)
	}
	if p.negated() {
		p.fail("this is negated twice")
	}
	return Not{p.primary(depth)}
}

func (p *parser) count() {
	if p.nodes++; p.nodes > maxNodes {
		p.fail("the query has more than %d parts", maxNodes)
	}
}

// negated takes a NOT, or a - in front of something.
func (p *parser) negated() bool {
	if p.word("NOT") {
		return true
	}
	if p.peek() == '-' && p.pos+1 < len(p.text) && !unicode.IsSpace(p.text[p.pos+1]) {
		p.pos++
		return true
	}
	return false
}

func (p *parser) primary(depth int) Node {
	start := p.pos
	switch {
	case p.end() || p.peek() == ')':
		p.fail("something to look for is missing here")
	case p.word("AND", "&&", "OR", "||"):
		p.failAt(start, "nothing stands before this; write it in quotes to look for the word")
	case p.take('('):
		return p.parenthesis(depth, p.either)
	}
	if p.peek() == '"' {
		return p.inAll(p.quoted())
	}
	text := p.literal(func(c rune) bool { return c == ':' })
	if p.peek() != ':' {
		p.space()
		return p.inAll(text)
	}
	field := p.field(text, start)
	p.pos++
	return p.values(field, depth)
}

// parenthesis reads what is inside, and the end.
func (p *parser) parenthesis(depth int, inside func(int) Node) Node {
	start := p.pos - 1
	p.space()
	node := inside(depth + 1)
	if !p.take(')') {
		p.failAt(start, "this ( has no )")
	}
	p.space()
	return node
}

// values reads what a field is compared with: one value, or several in parentheses.
func (p *parser) values(field Field, depth int) Node {
	if !p.take('(') {
		node := p.compared(field)
		p.space()
		return node
	}
	inner := &fieldParser{parser: p, field: field}
	return p.parenthesis(depth, inner.either)
}

// fieldParser reads the values in parentheses behind a field.
type fieldParser struct {
	*parser
	field Field
}

func (p *fieldParser) either(int) Node {
	one := func() Node {
		p.count()
		not := p.negated()
		node := p.compared(p.field)
		p.space()
		if not {
			return Not{node}
		}
		return node
	}
	var alternatives []Node
	for {
		parts := []Node{one()}
		for !p.end() && p.peek() != ')' && !p.word("OR", "||") {
			p.word("AND", "&&")
			parts = append(parts, one())
		}
		alternatives = append(alternatives, join(parts, func(parts []Node) Node { return And{parts} }))
		if p.end() || p.peek() == ')' {
			return join(alternatives, func(parts []Node) Node { return Or{parts} })
		}
	}
}

// field gives the field of a name.
func (p *parser) field(name literal, at int) Field {
	if name.quoted || name.wild() {
		p.failAt(at, "a field's name has no quotes and no *")
	}
	text := name.text()
	root, path, dotted := strings.Cut(text, ".")
	for _, f := range Fields() {
		if f.Name == text {
			return f
		}
		if dotted && path != "" && f.Kind == Object && f.Name == root {
			return Field{text, Value}
		}
	}
	p.failAt(at, "there is no field %q; there are %s; write it in quotes to look for the words", text, strings.Join(names(), ", "))
	panic("unreachable")
}

func names() []string {
	var names []string
	for _, f := range Fields() {
		if f.Kind == Object {
			f.Name += ".<column>"
		}
		names = append(names, f.Name)
	}
	slices.Sort(names)
	return names
}

// literal is a word as it is written: wild characters are those that a backslash does not protect.
type literal struct {
	chars  []rune
	wilds  []bool // beside chars
	quoted bool
}

func (l literal) text() string { return string(l.chars) }
func (l literal) wild() bool   { return slices.Contains(l.wilds, true) }

// literal reads a word up to a space, a parenthesis, or what else ends it.
func (p *parser) literal(ends func(rune) bool) literal {
	var l literal
	start := p.pos
	for !p.end() {
		c := p.peek()
		if unicode.IsSpace(c) || c == '(' || c == ')' || c == '"' || ends(c) {
			break
		}
		p.pos++
		wild := c == '*' || c == '?'
		if c == '\\' {
			if p.end() {
				p.fail("a character is missing behind the backslash")
			}
			c = p.peek()
			p.pos++
		}
		l.chars, l.wilds = append(l.chars, c), append(l.wilds, wild)
	}
	if p.pos == start {
		p.fail("a value is missing here")
	}
	return l
}

// quoted reads a text in quotes.
func (p *parser) quoted() literal {
	l := literal{quoted: true}
	start := p.pos
	p.pos++
	for !p.take('"') {
		if p.end() {
			p.failAt(start, "this quote has no end")
		}
		if p.peek() == '\\' && p.pos+1 < len(p.text) {
			p.pos++
		}
		l.chars, l.wilds = append(l.chars, p.peek()), append(l.wilds, false)
		p.pos++
	}
	p.space()
	return l
}

// inAll looks for a word or a text wherever words without a field are looked for.
func (p *parser) inAll(l literal) Node {
	if l.wild() && strings.Trim(l.text(), "*") == "" {
		return All{}
	}
	var parts []Node
	for _, field := range inAll {
		parts = append(parts, match(field, l))
	}
	return Or{parts}
}
