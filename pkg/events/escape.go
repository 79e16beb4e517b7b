package events

// One escape serves subject tokens, entity keys and lanes: every byte but [A-Za-z0-9_-] becomes %XX, and an empty text
// becomes a lone %, so that no text is empty, holds a separator, or meets another text's escape.

const hexDigits = "0123456789ABCDEF"

func plain(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-'
}

// AppendToken appends the escape of text.
func AppendToken[T string | []byte](dst []byte, text T) []byte {
	if len(text) == 0 {
		return append(dst, '%')
	}
	for i := range len(text) {
		if c := text[i]; plain(c) {
			dst = append(dst, c)
		} else {
			dst = append(dst, '%', hexDigits[c>>4], hexDigits[c&0xF])
		}
	}
	return dst
}

// EscapeToken gives the escape of text.
func EscapeToken(text string) string { return string(AppendToken(nil, text)) }

// UnescapeToken undoes EscapeToken; ok is false for what EscapeToken does not give.
func UnescapeToken(token string) (text string, ok bool) {
	if token == "%" {
		return "", true
	}
	dst := make([]byte, 0, len(token))
	for i := 0; i < len(token); i++ {
		c := token[i]
		if plain(c) {
			dst = append(dst, c)
			continue
		}
		if c != '%' || i+2 >= len(token) {
			return "", false
		}
		hi, okHi := unhex(token[i+1])
		lo, okLo := unhex(token[i+2])
		if !okHi || !okLo || plain(hi<<4|lo) {
			return "", false
		}
		dst = append(dst, hi<<4|lo)
		i += 2
	}
	return string(dst), len(dst) > 0
}

func unhex(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	default:
		return 0, false
	}
}

// AppendEntityKey appends the partition key of a row: <schema>.<table>, and each value of its primary key, in the
// key's definition order, behind a slash. values are PostgreSQL's texts of the columns.
func AppendEntityKey(dst []byte, schema, table string, values ...[]byte) []byte {
	dst = AppendToken(dst, schema)
	dst = append(dst, '.')
	dst = AppendToken(dst, table)
	for _, value := range values {
		dst = append(dst, '/')
		dst = AppendToken(dst, value)
	}
	return dst
}

// Partition gives the partition of a partition key: FNV-1a of 64 bits, folded, modulo the number of partitions. Keys
// keep their partition for the life of EVENTS, so neither the hash nor the number may change.
func Partition[T string | []byte](key T, partitions int) int {
	const offset, prime = 14695981039346656037, 1099511628211
	hash := uint64(offset)
	for i := range len(key) {
		hash ^= uint64(key[i])
		hash *= prime
	}
	return int((hash ^ hash>>32) % uint64(partitions))
}
