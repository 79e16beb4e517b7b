package pgcdc

import "unicode/utf8"

// maxDepth is how deep a value may nest. encoding/json reads 10,000 levels; the rest is for the envelope and for the
// arrays and composites around the value.
const maxDepth = 9900

// validJSON tells whether text is one JSON value (RFC 8259) in UTF-8 that readers can take in.
func validJSON(text []byte) bool {
	if !utf8.Valid(text) {
		return false
	}
	i := skipValue(text, skipSpace(text, 0), maxDepth)
	return i > 0 && skipSpace(text, i) == len(text)
}

func skipSpace(text []byte, i int) int {
	for i < len(text) && (text[i] == ' ' || text[i] == '\n' || text[i] == '\t' || text[i] == '\r') {
		i++
	}
	return i
}

// skipValue gives the end of the value that begins at i, 0 where there is none. The other skip functions do alike.
func skipValue(text []byte, i, depth int) int {
	if i >= len(text) || depth == 0 {
		return 0
	}
	switch c := text[i]; c {
	case '{', '[':
		return skipMembers(text, i, depth)
	case '"':
		return skipString(text, i)
	case 't':
		return skipWord(text, i, "true")
	case 'f':
		return skipWord(text, i, "false")
	case 'n':
		return skipWord(text, i, "null")
	default:
		return skipNumber(text, i)
	}
}

// skipMembers skips an array or an object.
func skipMembers(text []byte, i, depth int) int {
	object := text[i] == '{'
	closing := text[i] + 2 // in ASCII: [ and ], { and }
	i = skipSpace(text, i+1)
	if i < len(text) && text[i] == closing {
		return i + 1
	}
	for i < len(text) {
		if object {
			if text[i] != '"' {
				return 0
			}
			if i = skipString(text, i); i == 0 {
				return 0
			}
			if i = skipSpace(text, i); i >= len(text) || text[i] != ':' {
				return 0
			}
			i = skipSpace(text, i+1)
		}
		if i = skipValue(text, i, depth-1); i == 0 {
			return 0
		}
		i = skipSpace(text, i)
		if i < len(text) && text[i] == closing {
			return i + 1
		}
		if i >= len(text) || text[i] != ',' {
			return 0
		}
		i = skipSpace(text, i+1)
	}
	return 0
}

func skipString(text []byte, i int) int {
	for i++; i < len(text); i++ {
		c := text[i]
		if c != '"' && c != '\\' && c >= ' ' {
			continue
		}
		if c == '"' {
			return i + 1
		}
		if c < ' ' {
			return 0
		}
		if i++; i >= len(text) {
			return 0
		}
		switch text[i] {
		case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		case 'u':
			if i+4 >= len(text) || !isHex(text[i+1]) || !isHex(text[i+2]) || !isHex(text[i+3]) || !isHex(text[i+4]) {
				return 0
			}
			i += 4
		default:
			return 0
		}
	}
	return 0
}

func skipWord(text []byte, i int, word string) int {
	if end := i + len(word); end <= len(text) && string(text[i:end]) == word {
		return end
	}
	return 0
}

// skipNumber skips a JSON number. Its grammar is also what row_to_json asks of a numeric type's text.
func skipNumber(text []byte, i int) int {
	if i < len(text) && text[i] == '-' {
		i++
	}
	if i < len(text) && text[i] == '0' {
		i++
	} else if i = skipDigits(text, i); i == 0 {
		return 0
	}
	if i < len(text) && text[i] == '.' {
		if i = skipDigits(text, i+1); i == 0 {
			return 0
		}
	}
	if i < len(text) && text[i]|0x20 == 'e' {
		if i++; i < len(text) && (text[i] == '+' || text[i] == '-') {
			i++
		}
		return skipDigits(text, i)
	}
	return i
}

// skipDigits skips at least one digit.
func skipDigits(text []byte, i int) int {
	start := i
	for i < len(text) && isDigit(text[i]) {
		i++
	}
	if i == start {
		return 0
	}
	return i
}

func isDigit(c byte) bool { return c-'0' <= 9 }

func isHex(c byte) bool { return isDigit(c) || c|0x20 >= 'a' && c|0x20 <= 'f' }
