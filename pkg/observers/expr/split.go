package expr

import "strings"

// split cuts a text at its placeholders. Expressions are not compiled yet.
func split(text string) ([]part, error) {
	var parts []part
	var literal strings.Builder
	start := 0 // of the literal
	flush := func() {
		if literal.Len() > 0 {
			parts = append(parts, part{literal: literal.String(), offset: start})
			literal.Reset()
		}
	}
	for i := 0; i < len(text); {
		switch {
		case strings.HasPrefix(text[i:], "$${"):
			literal.WriteString("${")
			i += len("$${")
		case strings.HasPrefix(text[i:], "${"):
			flush()
			begin := i + len("${")
			size := expressionEnd(text[begin:])
			if size < 0 {
				return nil, &Error{Offset: i, Message: "${ is not closed", Hint: "close it with }, or write $${ for the two characters"}
			}
			source := text[begin : begin+size]
			if strings.TrimSpace(source) == "" {
				return nil, &Error{Offset: i, Message: "${} holds no expression", Hint: "write $${ for the two characters"}
			}
			parts = append(parts, part{source: source, offset: begin})
			i = begin + size + 1
			start = i
		default:
			literal.WriteByte(text[i])
			i++
		}
	}
	flush()
	return parts, nil
}

// expressionEnd finds the brace that closes a placeholder, outside of the braces, the strings and the comments of its
// expression; -1 where there is none.
func expressionEnd(text string) int {
	depth := 0
	for i := 0; i < len(text); {
		switch c := text[i]; {
		case c == '{':
			depth++
		case c == '}' && depth == 0:
			return i
		case c == '}':
			depth--
		case c == '"' || c == '\'':
			size := stringLength(text[i:], rawPrefix(text[:i]))
			if size < 0 {
				return -1
			}
			i += size
			continue
		case strings.HasPrefix(text[i:], "//"):
			size := strings.IndexByte(text[i:], '\n')
			if size < 0 {
				return -1
			}
			i += size
			continue
		}
		i++
	}
	return -1
}

// rawPrefix tells whether the string that follows text is a raw one: r"…", rb"…", bR'…'.
func rawPrefix(text string) bool {
	raw := false
	for i := len(text) - 1; i >= 0 && i >= len(text)-2; i-- {
		switch text[i] {
		case 'r', 'R':
			raw = true
		case 'b', 'B':
		default:
			return raw
		}
	}
	return raw
}

// stringLength gives the length of the string that begins text, quotes included; -1 where it does not end.
func stringLength(text string, raw bool) int {
	quote := text[:1]
	if triple := strings.Repeat(quote, 3); strings.HasPrefix(text, triple) {
		quote = triple
	}
	for i := len(quote); i < len(text); i++ {
		if text[i] == '\\' && !raw {
			i++
			continue
		}
		if strings.HasPrefix(text[i:], quote) {
			return i + len(quote)
		}
	}
	return -1
}
