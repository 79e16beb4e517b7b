package pgcdc

// appendComposite writes the text of record_out, such as (1,,"a ""b""",""): nothing is null, quotes and backslashes
// are doubled within quotes. It is not sound where the number of fields is another than that of t: the type was
// altered since one or the other.
func (t *Type) appendComposite(dst, text []byte) (out []byte, sound, whole bool) {
	if len(text) < 2 || text[0] != '(' {
		return dst, false, false
	}
	if len(t.fields) == 0 {
		return append(dst, "{}"...), string(text) == "()", true
	}
	whole = true
	i := 0 // at the byte before the field: the parenthesis, or a comma
	for n := range t.fields {
		f := &t.fields[n]
		if n == 0 {
			dst = append(dst, '{')
		} else if i < len(text) && text[i] == ',' {
			dst = append(dst, ',')
		} else {
			return dst, false, false
		}
		dst = append(dst, f.label...)
		var ok bool
		if dst, i, ok = f.typ.appendField(dst, text, i+1); i == 0 {
			return dst, false, false
		}
		whole = whole && ok
	}
	if i != len(text)-1 || text[i] != ')' {
		return dst, false, false
	}
	return append(dst, '}'), true, whole
}

// appendField writes the field that begins at i, and gives its end: 0 where its form is not sound.
func (t *Type) appendField(dst, text []byte, i int) (out []byte, end int, ok bool) {
	if i < len(text) && text[i] == '"' {
		end, escaped := skipQuoted(text, i, true)
		if end == 0 {
			return dst, 0, false
		}
		dst, ok = t.appendQuoted(dst, text[i+1:end-1], escaped)
		return dst, end, ok
	}
	end = i
	for end < len(text) && text[end] != ',' && text[end] != ')' {
		if c := text[end]; c == '"' || c == '\\' || c == '(' {
			return dst, 0, false
		}
		end++
	}
	if end == i {
		return append(dst, "null"...), end, true
	}
	dst, ok = t.AppendValue(dst, text[i:end])
	return dst, end, ok
}
