package pgcdc

import "bytes"

// appendDate writes a date, whose text under DateStyle ISO is that of row_to_json already.
func appendDate(dst, text []byte) ([]byte, bool) {
	n := skipDate(text)
	if !isInfinite(text) && (n == 0 || !isEra(text[n:])) {
		return dst, false
	}
	return appendPlain(dst, text), true
}

// appendTimestamp writes a timestamp as row_to_json does: a T before the time of day, and offset where the text has
// zone, the short form of it.
func appendTimestamp(dst, text []byte, zone, offset string) ([]byte, bool) {
	if isInfinite(text) {
		return appendPlain(dst, text), true
	}
	day := skipDate(text)
	if day == 0 || day >= len(text) || text[day] != ' ' {
		return dst, false
	}
	end := skipTimeOfDay(text, day+1)
	if end == 0 || !bytes.HasPrefix(text[end:], []byte(zone)) || !isEra(text[end+len(zone):]) {
		return dst, false
	}
	dst = append(dst, '"')
	dst = append(dst, text[:day]...)
	dst = append(dst, 'T')
	dst = append(dst, text[day+1:end]...)
	dst = append(dst, offset...)
	dst = append(dst, text[end+len(zone):]...)
	return append(dst, '"'), true
}

func isInfinite(text []byte) bool {
	return string(text) == "infinity" || string(text) == "-infinity"
}

// isEra tells whether text is what may follow a date.
func isEra(text []byte) bool { return len(text) == 0 || string(text) == " BC" }

// skipDate gives the end of YYYY-MM-DD, 0 where text does not begin with it. A year has up to seven digits.
func skipDate(text []byte) int {
	i := 4
	for i < len(text) && i < 7 && text[i] != '-' {
		i++
	}
	if len(text) < i+6 || text[i] != '-' || text[i+3] != '-' {
		return 0
	}
	for _, c := range text[:i] {
		if !isDigit(c) {
			return 0
		}
	}
	if !twoDigits(text[i+1:]) || !twoDigits(text[i+4:]) {
		return 0
	}
	return i + 6
}

// skipTimeOfDay gives the end of hh:mm:ss or hh:mm:ss.ffffff at i, 0 where there is none.
func skipTimeOfDay(text []byte, i int) int {
	if len(text) < i+8 {
		return 0
	}
	t := text[i : i+8]
	if t[2] != ':' || t[5] != ':' || !twoDigits(t) || !twoDigits(t[3:]) || !twoDigits(t[6:]) {
		return 0
	}
	i += 8
	if i < len(text) && text[i] == '.' {
		return skipDigits(text, i+1)
	}
	return i
}

func twoDigits(text []byte) bool { return isDigit(text[0]) && isDigit(text[1]) }
