package query

import (
	"math"
	"strconv"
	"strings"
	"unicode"
)

// compared reads one value, range or comparison of a field.
func (p *parser) compared(field Field) Node {
	start := p.pos
	switch c := p.peek(); {
	case p.end() || unicode.IsSpace(c) || c == ')':
		p.fail("a value for %s is missing here", field.Name)
	case c == '"':
		return p.equal(field, p.quoted(), start)
	case c == '[' || c == '{':
		return p.between(field)
	case c == '>' || c == '<':
		return p.beyond(field)
	}
	return p.equal(field, p.literal(none), start)
}

func none(rune) bool { return false }

// equal is a value by itself.
func (p *parser) equal(field Field, l literal, at int) Node {
	if l.wild() && l.text() == "*" {
		return Exists{field}
	}
	if l.wild() && (field.Kind == Time || field.Kind == Number || field.Kind == Bool) {
		p.failAt(at, "%s can't be matched with * or ?; a range such as %s:[a TO b] can be asked for", field.Name, field.Name)
	}
	switch field.Kind {
	case Time:
		from, to := p.time(l.text(), at)
		return TimeRange{field, from, to}
	case Number:
		n := p.number(l.text(), at)
		return IntRange{field, n, n}
	case Bool:
		if text := l.text(); text != "true" && text != "false" {
			p.failAt(at, "%s is true or false, not %q", field.Name, text)
		}
		return Term{field, l.text()}
	case Value:
		if l.wild() && !l.prefix() {
			p.failAt(at, "of %s only a beginning can be looked for: a * at the end", field.Name)
		}
	case Keyword, Text, Object:
	}
	return match(field, l)
}

// match compares a field of texts with what is written.
func match(field Field, l literal) Node {
	text := l.text()
	if field.Kind == Text && l.wild() {
		text = strings.ToLower(text)
	}
	switch {
	case !l.wild():
		return Term{field, text}
	case l.prefix():
		return Prefix{field, strings.TrimSuffix(text, "*")}
	default:
		return Wildcard{field, l.pattern(field.Kind == Text)}
	}
}

// prefix tells whether the only wild character is a * at the end.
func (l literal) prefix() bool {
	for i, wild := range l.wilds {
		if wild && (i < len(l.wilds)-1 || l.chars[i] != '*') {
			return false
		}
	}
	return l.wild()
}

// pattern is the text with a backslash before what is not meant wild.
func (l literal) pattern(lower bool) string {
	var b strings.Builder
	for i, c := range l.chars {
		if !l.wilds[i] && (c == '*' || c == '?' || c == '\\') {
			b.WriteByte('\\')
		}
		if lower {
			c = unicode.ToLower(c)
		}
		b.WriteRune(c)
	}
	return b.String()
}

// end is an end of a range as it is written; nil is none.
type end struct {
	text      string
	inclusive bool
	at        int
}

// between reads [a TO b], with { or } for a bound that is left out.
func (p *parser) between(field Field) Node {
	start := p.pos
	low := &end{inclusive: p.peek() == '['}
	p.pos++
	p.space()
	low = p.bound(low)
	p.space()
	if !p.word("TO") {
		p.fail("TO is missing here, as in %s:[a TO b]", field.Name)
	}
	high := p.bound(&end{})
	p.space()
	switch c := p.peek(); {
	case c != ']' && c != '}':
		p.failAt(start, "this range has no ] or }")
	case high != nil:
		high.inclusive = c == ']'
	}
	p.pos++
	if low == nil && high == nil {
		return Exists{field}
	}
	return p.ranged(field, low, high, start)
}

func (p *parser) bound(e *end) *end {
	e.at = p.pos
	var l literal
	if p.peek() == '"' {
		l = p.quoted()
	} else {
		l = p.literal(func(c rune) bool { return c == ']' || c == '}' })
	}
	if l.wild() && l.text() == "*" {
		return nil
	}
	e.text = l.text()
	return e
}

// beyond reads >a, >=a, <a and <=a.
func (p *parser) beyond(field Field) Node {
	start := p.pos
	above := p.peek() == '>'
	p.pos++
	e := &end{inclusive: p.take('='), at: p.pos}
	if p.peek() == '"' {
		e.text = p.quoted().text()
	} else {
		e.text = p.literal(none).text()
	}
	if above {
		return p.ranged(field, e, nil, start)
	}
	return p.ranged(field, nil, e, start)
}

// ranged makes a range, of which one end is there.
func (p *parser) ranged(field Field, low, high *end, at int) Node {
	switch field.Kind {
	case Time:
		return p.timeRange(field, low, high)
	case Number:
		return p.intRange(field, low, high)
	case Keyword:
		return TextRange{field, low.bound(), high.bound()}
	case Object, Value:
		for _, e := range []*end{low, high} {
			if e != nil && isNumber(e.text) {
				p.failAt(e.at, "values of rows are compared as texts, where 9 lies behind 10: no range of numbers can be asked for in %s", field.Name)
			}
		}
		return TextRange{field, low.bound(), high.bound()}
	case Text, Bool:
	}
	p.failAt(at, "there are no ranges of %s", field.Name)
	panic("unreachable")
}

func (e *end) bound() *Bound {
	if e == nil {
		return nil
	}
	return &Bound{e.text, e.inclusive}
}

func isNumber(text string) bool {
	_, err := strconv.ParseFloat(text, 64)
	return err == nil && strings.ContainsAny(text[:1], "+-.0123456789")
}

func (p *parser) intRange(field Field, low, high *end) Node {
	r := IntRange{field, math.MinInt64, math.MaxInt64}
	if low != nil {
		r.Low = p.number(low.text, low.at)
		if !low.inclusive && r.Low < math.MaxInt64 {
			r.Low++
		}
	}
	if high != nil {
		r.High = p.number(high.text, high.at)
		if !high.inclusive && r.High > math.MinInt64 {
			r.High--
		}
	}
	return r
}

func (p *parser) number(text string, at int) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		p.failAt(at, "a whole number is due here, got %q", text)
	}
	return n
}
