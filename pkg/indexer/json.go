package indexer

import "bytes"

// What stands here walks over JSON that is known to be valid, because events.Parse has read it: the ends of values are
// found without looking at them again.

// eachMember calls yield with each name, without its quotes and as it is written, and value of an object. It says
// whether it is one.
func eachMember(object []byte, yield func(name, value []byte)) bool {
	pos := skipSpace(object, 0)
	if pos >= len(object) || object[pos] != '{' {
		return false
	}
	for pos = skipSpace(object, pos+1); pos < len(object) && object[pos] == '"'; {
		end := skipString(object, pos)
		name := object[pos+1 : end-1]
		pos = skipSpace(object, skipSpace(object, end)+1) // over the colon
		end = skipValue(object, pos)
		yield(name, object[pos:end])
		pos = skipSpace(object, end)
		if pos < len(object) && object[pos] == ',' {
			pos = skipSpace(object, pos+1)
		}
	}
	return true
}

func skipSpace(json []byte, pos int) int {
	for pos < len(json) && (json[pos] == ' ' || json[pos] == '\n' || json[pos] == '\t' || json[pos] == '\r') {
		pos++
	}
	return pos
}

// skipString gives the position behind the string that begins at pos.
func skipString(json []byte, pos int) int {
	for pos++; pos < len(json); pos++ {
		switch json[pos] {
		case '\\':
			pos++
		case '"':
			return pos + 1
		}
	}
	return len(json)
}

// skipValue gives the position behind the value that begins at pos.
func skipValue(json []byte, pos int) int {
	for depth := 0; pos < len(json); {
		switch json[pos] {
		case '"':
			if pos = skipString(json, pos); depth == 0 {
				return pos
			}
			continue
		case '{', '[':
			depth++
		case '}', ']', ',', ' ', '\n', '\t', '\r':
			if c := json[pos]; c == '}' || c == ']' {
				if depth == 0 { // the end of what is around a number or a word
					return pos
				}
				if depth--; depth == 0 {
					return pos + 1
				}
			} else if depth == 0 {
				return pos
			}
		}
		pos++
	}
	return min(pos, len(json))
}

// appendWords appends the texts and numbers of a value, however deep they lie, as JSON strings with commas between. A
// string's escapes are passed on as they are.
func appendWords(dst, value []byte) []byte {
	for pos := 0; pos < len(value); {
		switch c := value[pos]; {
		case c == '"':
			end := skipString(value, pos)
			next := skipSpace(value, end)
			if isName := next < len(value) && value[next] == ':'; !isName && end-pos > 2 {
				dst = appendComma(dst)
				dst = append(dst, value[pos:end]...)
			}
			pos = end
		case c == '-' || c >= '0' && c <= '9':
			end := skipValue(value, pos)
			dst = appendComma(dst)
			dst = append(dst, '"')
			dst = append(dst, value[pos:end]...)
			dst = append(dst, '"')
			pos = end
		default:
			pos++
		}
	}
	return dst
}

func appendComma(dst []byte) []byte {
	if len(dst) > 0 {
		dst = append(dst, ',')
	}
	return dst
}

// appendWordsUnlike appends the words of an old row's columns that the new row has otherwise, or not at all: what both
// have is found by the new one. Both have their columns in the table's order, or one is a part of the other.
func appendWordsUnlike(dst, before, after []byte) []byte {
	if before == nil {
		return dst
	}
	type column struct{ name, value []byte }
	var columns []column
	eachMember(after, func(name, value []byte) { columns = append(columns, column{name, value}) })
	eachMember(before, func(name, value []byte) {
		for i, c := range columns {
			if !bytes.Equal(c.name, name) {
				continue
			}
			columns = columns[i+1:]
			if bytes.Equal(c.value, value) {
				return
			}
			break
		}
		dst = appendWords(dst, value)
	})
	return dst
}

// measure tells how deep a value nests, and how many bytes its longest string has, names among them.
func measure(value []byte) (depth, longest int) {
	open := 0
	for pos := 0; pos < len(value); pos++ {
		switch value[pos] {
		case '{', '[':
			open++
			depth = max(depth, open)
		case '}', ']':
			open--
		case '"':
			end := skipString(value, pos)
			longest = max(longest, end-pos-2)
			pos = end - 1
		}
	}
	return depth, longest
}
