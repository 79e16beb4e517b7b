package events

import (
	"fmt"
	"strconv"
)

// LSN is a position in PostgreSQL's write-ahead log, in bytes.
type LSN uint64

// String gives PostgreSQL's own text, such as 0/16B37488.
func (l LSN) String() string {
	return string(appendLSN(make([]byte, 0, 17), l))
}

// MarshalText gives PostgreSQL's own text.
func (l LSN) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText reads PostgreSQL's own text.
func (l *LSN) UnmarshalText(text []byte) error {
	parsed, err := ParseLSN(string(text))
	*l = parsed
	return err
}

// ParseLSN reads PostgreSQL's text of an LSN.
func ParseLSN(text string) (LSN, error) {
	for i := range len(text) {
		if text[i] != '/' {
			continue
		}
		hi, errHi := strconv.ParseUint(text[:i], 16, 32)
		lo, errLo := strconv.ParseUint(text[i+1:], 16, 32)
		if errHi != nil || errLo != nil {
			break
		}
		return LSN(hi<<32 | lo), nil
	}
	return 0, fmt.Errorf("LSN %q is not of the form 0/16B37488", text)
}

// Sequence orders the events of one source: by commit, then by index within it. Its text sorts the same way.
type Sequence struct {
	Commit uint64 // commit LSN; INBOX's sequence for what applications published
	Index  uint32
}

const sequenceLength = 16 + 1 + 10

// Compare is negative where s comes before t, zero where they are equal.
func (s Sequence) Compare(t Sequence) int {
	switch {
	case s.Commit < t.Commit:
		return -1
	case s.Commit > t.Commit:
		return 1
	case s.Index < t.Index:
		return -1
	case s.Index > t.Index:
		return 1
	default:
		return 0
	}
}

// IsZero tells whether s comes before every event.
func (s Sequence) IsZero() bool { return s == Sequence{} }

// String gives 16 hex digits, a dot, 10 decimal digits.
func (s Sequence) String() string { return string(s.AppendText(make([]byte, 0, sequenceLength))) }

// AppendText appends String's text to dst.
func (s Sequence) AppendText(dst []byte) []byte {
	dst = appendHex16(dst, s.Commit)
	dst = append(dst, '.')
	var digits [10]byte
	n := s.Index
	for i := len(digits) - 1; i >= 0; i-- {
		digits[i] = byte('0' + n%10)
		n /= 10
	}
	return append(dst, digits[:]...)
}

// ParseSequence reads String's text.
func ParseSequence(text string) (Sequence, error) {
	if len(text) == sequenceLength && text[16] == '.' {
		commit, errCommit := strconv.ParseUint(text[:16], 16, 64)
		index, errIndex := strconv.ParseUint(text[17:], 10, 32)
		s := Sequence{Commit: commit, Index: uint32(index)}
		if errCommit == nil && errIndex == nil && string(s.AppendText(make([]byte, 0, sequenceLength))) == text {
			return s, nil
		}
	}
	return Sequence{}, fmt.Errorf("%w: sequence %q is not 16 hex digits, a dot and 10 digits", ErrInvalid, text)
}

func appendHex16(dst []byte, v uint64) []byte {
	for shift := 60; shift >= 0; shift -= 4 {
		dst = append(dst, hexDigits[v>>shift&0xF])
	}
	return dst
}
