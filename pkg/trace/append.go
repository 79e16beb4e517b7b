package trace

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/tributary-dev/tributary/pkg/events"
)

func appendInt(dst []byte, n int64) []byte { return strconv.AppendInt(dst, n, 10) }

// appendNumber appends a member, unless it is zero.
func appendNumber(dst []byte, key string, n int64) []byte {
	if n == 0 {
		return dst
	}
	return appendInt(append(dst, key...), n)
}

// appendText appends a member, unless it is empty.
func appendText(dst []byte, key, text string) []byte {
	if text == "" {
		return dst
	}
	return events.AppendString(append(dst, key...), text)
}

func appendNames(dst []byte, key string, names []string) []byte {
	for i, name := range names {
		if i == 0 {
			dst = append(append(dst, key...), '[')
		} else {
			dst = append(dst, ',')
		}
		dst = events.AppendString(dst, name)
	}
	if len(names) > 0 {
		dst = append(dst, ']')
	}
	return dst
}

func clip[T any](list []T, most int) []T { return list[:min(len(list), most)] }

// shorten cuts a text where it is too long, between two characters.
func shorten(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= mostError {
		return text
	}
	end := mostError
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end]
}
