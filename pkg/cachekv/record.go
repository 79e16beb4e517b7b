package cachekv

import (
	"encoding/binary"
	"strings"
	"time"

	"github.com/tributary-dev/tributary/internal/natskv"
	"github.com/tributary-dev/tributary/pkg/events"
)

// The kinds of records.
const (
	kindValue  = 'v'
	kindAbsent = 'a' // known to have no value
	kindGone   = 'g' // invalidated
	kindPrefix = 'p' // at prefixKey: every key that begins with the value was invalidated
)

const (
	streamName    = "KV_" + events.BucketCache
	subjectPrefix = "$KV." + events.BucketCache + "."

	// prefixKey is no key's own: an escape ends in two digits.
	prefixKey = "=prefix"
)

// record is what a key holds. In the bucket it is a byte of its kind, when it ends (milliseconds since 1970, 8 bytes, big
// endian), its TTL in milliseconds (8 bytes), and the value. That the end is in it matters: the bucket counts whole seconds.
type record struct {
	kind     byte
	until    time.Time
	ttl      time.Duration
	value    []byte
	revision uint64
}

const headSize = 1 + 8 + 8

func (r record) encode() []byte {
	dst := make([]byte, 0, headSize+len(r.value))
	dst = append(dst, r.kind)
	dst = binary.BigEndian.AppendUint64(dst, uint64(r.until.UnixMilli()))
	dst = binary.BigEndian.AppendUint64(dst, uint64(r.ttl.Milliseconds()))
	return append(dst, r.value...)
}

// decode reads a record; ok is false for what encode does not give.
func decode(entry natskv.Entry) (record, bool) {
	data := entry.Value
	if len(data) < headSize {
		return record{}, false
	}
	return record{
		kind:     data[0],
		until:    time.UnixMilli(int64(binary.BigEndian.Uint64(data[1:]))),
		ttl:      time.Duration(binary.BigEndian.Uint64(data[9:])) * time.Millisecond,
		value:    data[headSize:],
		revision: entry.Revision,
	}, true
}

// alive tells whether the record answers a lookup. One whose end is farther than its TTL was written by a clock that is
// ahead of ours, and is not believed.
func (r record) alive(now time.Time) bool {
	left := r.until.Sub(now)
	return (r.kind == kindValue || r.kind == kindAbsent) && left > 0 && left <= r.ttl+clockSkew
}

// clockSkew is by how much clocks that agree may differ.
const clockSkew = time.Second

func (r record) answer() ([]byte, error) {
	if r.kind == kindAbsent {
		return nil, ErrAbsent
	}
	return r.value, nil
}

const hexDigits = "0123456789ABCDEF"

// kvKey gives the key of the bucket: every byte but A-Z a-z 0-9 _ - / becomes =XX, so that any text is a key, and a key
// that begins with a prefix still does.
func kvKey(key string) string {
	dst := make([]byte, 0, len(key)+8)
	for i := range len(key) {
		if c := key[i]; plain(c) {
			dst = append(dst, c)
		} else {
			dst = append(dst, '=', hexDigits[c>>4], hexDigits[c&0xF])
		}
	}
	return string(dst)
}

func plain(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-' || c == '/'
}

// keyOf undoes kvKey; ok is false for what it does not give.
func keyOf(escaped string) (key string, ok bool) {
	dst := make([]byte, 0, len(escaped))
	for i := 0; i < len(escaped); i++ {
		if plain(escaped[i]) {
			dst = append(dst, escaped[i])
			continue
		}
		if escaped[i] != '=' || i+2 >= len(escaped) {
			return "", false
		}
		hi, lo := strings.IndexByte(hexDigits, escaped[i+1]), strings.IndexByte(hexDigits, escaped[i+2])
		if hi < 0 || lo < 0 || plain(byte(hi<<4|lo)) {
			return "", false
		}
		dst = append(dst, byte(hi<<4|lo))
		i += 2
	}
	return string(dst), len(dst) > 0
}
