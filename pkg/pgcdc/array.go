package pgcdc

import "bytes"

// maxDimensions is PostgreSQL's MAXDIM.
const maxDimensions = 6

// appendArray writes the text of array_out, such as {1,NULL,"a \"b\""}, {{1,2},{3,4}} or, where the lower bounds are
// not 1, [0:1]={1,2}. JSON has no bounds.
func (t *Type) appendArray(dst, text []byte) (out []byte, sound, whole bool) {
	if len(text) > 0 && text[0] == '[' {
		text = text[bytes.IndexByte(text, '=')+1:]
	}
	dst, end, whole := t.appendDimension(dst, text, 0, maxDimensions)
	if end == 0 || end != len(text) {
		return dst, false, false
	}
	return dst, true, whole
}

// appendDimension writes the braced list that begins at i, and gives its end: 0 where its form is not sound.
func (t *Type) appendDimension(dst, text []byte, i, depth int) (out []byte, end int, whole bool) {
	if i >= len(text) || text[i] != '{' || depth == 0 {
		return dst, 0, false
	}
	dst = append(dst, '[')
	i++
	if i < len(text) && text[i] == '}' {
		return append(dst, ']'), i + 1, true
	}
	whole = true
	for i < len(text) {
		var ok bool
		dst, i, ok = t.appendElement(dst, text, i, depth)
		if i == 0 || i >= len(text) {
			return dst, 0, false
		}
		whole = whole && ok
		switch text[i] {
		case t.delim:
			dst = append(dst, ',')
		case '}':
			return append(dst, ']'), i + 1, whole
		default:
			return dst, 0, false
		}
		i++
	}
	return dst, 0, false
}

// appendElement writes the element that begins at i, and gives its end: 0 where its form is not sound.
func (t *Type) appendElement(dst, text []byte, i, depth int) (out []byte, end int, ok bool) {
	switch text[i] {
	case '{':
		return t.appendDimension(dst, text, i, depth-1)
	case '"':
		end, escaped := skipQuoted(text, i, false)
		if end == 0 {
			return dst, 0, false
		}
		dst, ok = t.elem.appendQuoted(dst, text[i+1:end-1], escaped)
		return dst, end, ok
	}
	end = i
	for end < len(text) && text[end] != t.delim && text[end] != '}' {
		if c := text[end]; c == '"' || c == '\\' || c == '{' {
			return dst, 0, false
		}
		end++
	}
	element := text[i:end]
	if len(element) == 0 {
		return dst, 0, false
	}
	if string(element) == "NULL" {
		return append(dst, "null"...), end, true
	}
	dst, ok = t.elem.AppendValue(dst, element)
	return dst, end, ok
}

// appendVector writes an int2vector or oidvector: arrays to row_to_json, but their text is just elements and spaces.
func (t *Type) appendVector(dst, text []byte) (out []byte, sound, whole bool) {
	dst = append(dst, '[')
	whole = true
	for i := 0; len(text) > 0; {
		end := i
		for end < len(text) && text[end] != ' ' {
			end++
		}
		if end == i {
			return dst, false, false
		}
		var ok bool
		dst, ok = t.elem.AppendValue(dst, text[i:end])
		whole = whole && ok
		if end == len(text) {
			break
		}
		dst = append(dst, ',')
		i = end + 1
	}
	return append(dst, ']'), true, whole
}
