package events

import (
	"math/bits"
	"strconv"
	"time"
	"unicode/utf8"
)

// Change is what the encoder needs of one change. Byte slices are read, never kept, so that the decoder can reuse them.
type Change struct {
	ID           []byte // AppendChangeID or AppendSnapshotID
	Source       string // the source's name
	Op           Op
	Schema       string
	Table        string
	Time         time.Time // of the commit, or of the snapshot; zero where PostgreSQL gives none
	PartitionKey []byte    // AppendEntityKey; also the CloudEvents subject
	Sequence     Sequence

	Key, Before, After []byte   // JSON objects; nil where there is none
	Changed, Unchanged []string // nil where it is not known, or none
	Oversize           bool
	Prefix             string // of a logical message
	Content            []byte // of a logical message: JSON

	InTransaction bool // false for snapshots, and for messages outside of a transaction
	XID           uint32
	Commit        LSN
	Last          bool
}

// TimeFormat is how times are written in envelopes: UTC, microseconds.
const TimeFormat = "2006-01-02T15:04:05.000000Z"

// AppendChange appends the envelope of a change as one JSON object.
func AppendChange(dst []byte, c *Change) []byte {
	dst = append(dst, `{"specversion":"1.0","id":"`...)
	dst = append(dst, c.ID...)
	dst = append(dst, `","source":"/tributary/`...)
	dst = append(dst, c.Source...)
	dst = append(dst, `","type":"`...)
	if c.Op == OpMessage {
		dst = append(dst, OpMessage.Type()...)
	} else {
		dst = append(dst, "tributary.row."...)
		dst = append(dst, c.Op...)
		dst = append(dst, ".v1"...)
	}
	dst = append(dst, `","subject":"`...)
	dst = append(dst, c.PartitionKey...)
	if !c.Time.IsZero() {
		dst = append(dst, `","time":"`...)
		dst = appendTime(dst, c.Time)
	}
	dst = append(dst, `","datacontenttype":"application/json","partitionkey":"`...)
	dst = append(dst, c.PartitionKey...)
	dst = append(dst, `","sequence":"`...)
	dst = c.Sequence.AppendText(dst)
	dst = append(dst, `","traceparent":"`...)
	dst = appendTraceParent(dst, c.ID)
	dst = append(dst, `","data":{"op":"`...)
	dst = append(dst, c.Op...)
	dst = append(dst, '"')
	dst = appendRow(dst, c)
	return append(dst, '}', '}')
}

func appendRow(dst []byte, c *Change) []byte {
	if c.Op == OpMessage {
		dst = append(dst, `,"prefix":`...)
		dst = AppendString(dst, c.Prefix)
		dst = appendMember(dst, `,"content":`, c.Content)
	} else {
		dst = append(dst, `,"schema":`...)
		dst = AppendString(dst, c.Schema)
		dst = append(dst, `,"table":`...)
		dst = AppendString(dst, c.Table)
		dst = appendMember(dst, `,"key":`, c.Key)
		dst = appendMember(dst, `,"before":`, c.Before)
		dst = appendMember(dst, `,"after":`, c.After)
		dst = appendNames(dst, `,"changed":[`, c.Changed)
		dst = appendNames(dst, `,"unchanged":[`, c.Unchanged)
	}
	if c.Oversize {
		dst = append(dst, `,"oversize":true`...)
	}
	if !c.InTransaction {
		return dst
	}
	dst = append(dst, `,"tx":{"id":`...)
	dst = strconv.AppendUint(dst, uint64(c.XID), 10)
	dst = append(dst, `,"commit_lsn":"`...)
	dst = appendLSN(dst, c.Commit)
	dst = append(dst, `","index":`...)
	dst = strconv.AppendUint(dst, uint64(c.Sequence.Index), 10)
	dst = append(dst, `,"last":`...)
	dst = strconv.AppendBool(dst, c.Last)
	return append(dst, '}')
}

func appendMember(dst []byte, name string, value []byte) []byte {
	if value == nil {
		return dst
	}
	dst = append(dst, name...)
	return append(dst, value...)
}

// appendNames writes a list where it is known: an empty, non-nil list says that nothing is in it.
func appendNames(dst []byte, name string, list []string) []byte {
	if list == nil {
		return dst
	}
	dst = append(dst, name...)
	for i, s := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = AppendString(dst, s)
	}
	return append(dst, ']')
}

func appendLSN(dst []byte, l LSN) []byte {
	dst = appendUpperHex(dst, uint64(l>>32))
	dst = append(dst, '/')
	return appendUpperHex(dst, uint64(uint32(l)))
}

func appendUpperHex(dst []byte, v uint64) []byte {
	shift := 60
	for shift > 0 && v>>shift == 0 {
		shift -= 4
	}
	for ; shift >= 0; shift -= 4 {
		dst = append(dst, hexDigits[v>>shift&0xF])
	}
	return dst
}

// appendTime writes TimeFormat, for which package time takes many times as long.
func appendTime(dst []byte, t time.Time) []byte {
	t = t.UTC()
	year, month, day := t.Date()
	if year < 0 || year > 9999 {
		return t.AppendFormat(dst, TimeFormat)
	}
	hour, minute, second := t.Clock()
	dst = appendTwo(appendTwo(dst, year/100), year%100)
	dst = appendTwo(append(dst, '-'), int(month))
	dst = appendTwo(append(dst, '-'), day)
	dst = appendTwo(append(dst, 'T'), hour)
	dst = appendTwo(append(dst, ':'), minute)
	dst = appendTwo(append(dst, ':'), second)
	micro := t.Nanosecond() / 1000
	dst = appendTwo(append(dst, '.'), micro/10_000)
	dst = appendTwo(appendTwo(dst, micro/100%100), micro%100)
	return append(dst, 'Z')
}

func appendTwo(dst []byte, n int) []byte { return append(dst, byte('0'+n/10), byte('0'+n%10)) }

// AppendString appends text as a JSON string. Bytes that are not UTF-8 become U+FFFD, as encoding/json has it.
func AppendString[T string | []byte](dst []byte, text T) []byte {
	dst, _ = AppendText(dst, text)
	return dst
}

// AppendText is AppendString; ok is false where text was not UTF-8.
func AppendText[T string | []byte](dst []byte, text T) (out []byte, ok bool) {
	ok = true
	dst = append(dst, '"')
	start := 0
	for i := skipVerbatim(text, 0); i < len(text); i = skipVerbatim(text, i) {
		c := text[i]
		if c < utf8.RuneSelf {
			dst = append(dst, text[start:i]...)
			dst = appendEscape(dst, c)
			i++
			start = i
			continue
		}
		r, size := decodeRune(text[i:])
		if r == utf8.RuneError && size == 1 {
			dst = append(dst, text[start:i]...)
			dst = append(dst, "\uFFFD"...)
			start, ok = i+size, false
		}
		i += size
	}
	dst = append(dst, text[start:]...)
	return append(dst, '"'), ok
}

// skipVerbatim gives the first byte from i on that JSON does not have as it is, or that is not ASCII; the length of text where
// there is none. Eight bytes are looked at together: a byte's top bit is set where the byte is below a space, is a quote or a
// backslash, or is not ASCII. A borrow may set those of bytes behind the first such, never of one before it.
func skipVerbatim[T string | []byte](text T, i int) int {
	const (
		ones        = 0x0101010101010101
		tops        = 0x80 * ones
		spaces      = ' ' * ones
		quotes      = '"' * ones
		backslashes = '\\' * ones
	)
	for ; i+8 <= len(text); i += 8 {
		x := uint64(text[i]) | uint64(text[i+1])<<8 | uint64(text[i+2])<<16 | uint64(text[i+3])<<24 |
			uint64(text[i+4])<<32 | uint64(text[i+5])<<40 | uint64(text[i+6])<<48 | uint64(text[i+7])<<56
		if found := (x | (x - spaces) | ((x ^ quotes) - ones) | ((x ^ backslashes) - ones)) & tops; found != 0 {
			return i + bits.TrailingZeros64(found)/8
		}
	}
	for ; i < len(text); i++ {
		if c := text[i]; c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			break
		}
	}
	return i
}

func decodeRune[T string | []byte](text T) (rune, int) {
	switch t := any(text).(type) {
	case string:
		return utf8.DecodeRuneInString(t)
	case []byte:
		return utf8.DecodeRune(t)
	default:
		panic("unreachable: text is a string or bytes")
	}
}

func appendEscape(dst []byte, c byte) []byte {
	const lower = "0123456789abcdef"
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case '\b':
		return append(dst, '\\', 'b')
	case '\f':
		return append(dst, '\\', 'f')
	case '\n':
		return append(dst, '\\', 'n')
	case '\r':
		return append(dst, '\\', 'r')
	case '\t':
		return append(dst, '\\', 't')
	default:
		return append(dst, '\\', 'u', '0', '0', lower[c>>4], lower[c&0xF])
	}
}
