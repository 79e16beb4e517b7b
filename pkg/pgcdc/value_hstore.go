package pgcdc

import "bytes"

var plainText = Type{kind: kindText}

// appendHstore writes what hstore's cast to json gives: an object of strings and nulls. The text is that of
// hstore_out: "key"=>"value" or "key"=>NULL, a comma and a space between pairs, a backslash before quotes and
// backslashes.
func appendHstore(dst, text []byte) (out []byte, sound, whole bool) {
	whole = true
	dst = append(dst, '{')
	for i := 0; i < len(text); {
		if i > 0 {
			if !bytes.HasPrefix(text[i:], []byte(", ")) {
				return dst, false, false
			}
			dst = append(dst, ',')
			i += 2
		}
		end, escaped := hstoreString(text, i)
		if end == 0 || !bytes.HasPrefix(text[end:], []byte("=>")) {
			return dst, false, false
		}
		var ok bool
		dst, ok = plainText.appendQuoted(dst, text[i+1:end-1], escaped)
		whole = whole && ok
		dst = append(dst, ':')
		i = end + 2
		if bytes.HasPrefix(text[i:], []byte("NULL")) {
			dst = append(dst, "null"...)
			i += 4
			continue
		}
		if end, escaped = hstoreString(text, i); end == 0 {
			return dst, false, false
		}
		dst, ok = plainText.appendQuoted(dst, text[i+1:end-1], escaped)
		whole = whole && ok
		i = end
	}
	return append(dst, '}'), true, whole
}

func hstoreString(text []byte, i int) (end int, escaped bool) {
	if i >= len(text) || text[i] != '"' {
		return 0, false
	}
	return skipQuoted(text, i, false)
}
