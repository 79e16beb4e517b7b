package pgcdc

import (
	"bytes"

	"github.com/tributary-dev/tributary/pkg/events"
)

// Type is what is needed to write values of one PostgreSQL type as JSON. A Type is read-only and may be shared.
type Type struct {
	OID  uint32
	Name string // <schema>.<name>; the name alone for a type of pg_catalog

	kind    kind
	elem    *Type    // of an array or a vector
	base    *Type    // of a domain, which is written as it
	delim   byte     // between an array's elements
	fields  []member // of a composite, without the dropped ones
	mutable bool     // DDL can change what the text means

	relation uint32 // of a composite, in pg_class
	since    uint32 // the transaction that altered it, or a composite in it, for the last time; 0 where that is long ago
}

// member is an attribute of a composite.
type member struct {
	label []byte // its name as a JSON string, and a colon
	typ   *Type
}

// kind says how a type's text becomes JSON. It is to row_to_json's categories what the wire is to a datum.
type kind uint8

const (
	kindUnknown     kind = iota // we can't say what row_to_json gives: the text, and ok is false
	kindText                    // a JSON string of the text
	kindBool                    // t or f
	kindNumber                  // the text where it is a JSON number, else a string of it (NaN, Infinity)
	kindJSON                    // the text
	kindDate                    // ISO 8601
	kindTimestamp               // ISO 8601 with T
	kindTimestamptz             // ISO 8601 with T and offset
	kindArray                   // nested arrays
	kindVector                  // int2vector and oidvector: elements between spaces, without braces
	kindComposite               // an object
	kindHstore                  // an object of strings and nulls, as its cast to json gives
)

// AppendValue appends the JSON that row_to_json gives for a value of type t whose text, as the server sends it under
// SessionSettings, is text. Where the type is not one that we know how to write, or the text is not what the type
// sends, PostgreSQL's text is appended as a JSON string and ok is false; in an array, a composite or an hstore whose
// own form is sound that is done for the element alone. What is appended is valid JSON always. A null is the caller's
// to write. text is not kept.
func (t *Type) AppendValue(dst, text []byte) (out []byte, ok bool) {
	switch t.kind {
	case kindText:
		return appendText(dst, text)
	case kindNumber:
		return appendNumber(dst, text)
	case kindBool:
		out, ok = appendBool(dst, text)
	case kindDate:
		out, ok = appendDate(dst, text)
	case kindTimestamp:
		out, ok = appendTimestamp(dst, text, "", "")
	case kindTimestamptz:
		out, ok = appendTimestamp(dst, text, "+00", "+00:00")
	case kindJSON:
		out, ok = appendJSON(dst, text)
	default:
		return t.appendNested(dst, text)
	}
	if !ok {
		out, _ = appendText(dst, text)
	}
	return out, ok
}

// appendNested writes what holds other values. sound says that the text has the type's form, whole that each value in
// it could be written.
func (t *Type) appendNested(dst, text []byte) (out []byte, ok bool) {
	var sound, whole bool
	switch t.kind {
	case kindArray:
		out, sound, whole = t.appendArray(dst, text)
	case kindVector:
		out, sound, whole = t.appendVector(dst, text)
	case kindComposite:
		out, sound, whole = t.appendComposite(dst, text)
	case kindHstore:
		out, sound, whole = appendHstore(dst, text)
	case kindUnknown:
	default:
		panic("unreachable: a scalar type")
	}
	if !sound {
		out, _ = appendText(dst, text)
	}
	return out, sound && whole
}

// appendText is for the many types whose text is their JSON. A database whose encoding is SQL_ASCII may send bytes
// that are not UTF-8; no JSON holds them.
func appendText(dst, text []byte) ([]byte, bool) {
	return events.AppendText(dst, text)
}

// appendPlain appends text that needs no escape as a JSON string.
func appendPlain(dst, text []byte) []byte {
	dst = append(dst, '"')
	dst = append(dst, text...)
	return append(dst, '"')
}

func appendBool(dst, text []byte) ([]byte, bool) {
	if len(text) != 1 {
		return dst, false
	}
	switch text[0] {
	case 't':
		return append(dst, "true"...), true
	case 'f':
		return append(dst, "false"...), true
	default:
		return dst, false
	}
}

func appendNumber(dst, text []byte) ([]byte, bool) {
	if len(text) > 0 && skipNumber(text, 0) == len(text) {
		return append(dst, text...), true
	}
	switch string(text) {
	case "NaN", "Infinity", "-Infinity":
		return appendPlain(dst, text), true
	default:
		out, _ := appendText(dst, text)
		return out, false
	}
}

// appendJSON copies JSON that can be read again: PostgreSQL checks what it stores, but nests deeper than readers go,
// and a cast without a function is not checked at all. One bad value would cost the whole envelope.
func appendJSON(dst, text []byte) ([]byte, bool) {
	if !validJSON(text) {
		return dst, false
	}
	return append(dst, text...), true
}

// appendQuoted writes an element or field whose text stands between quotes, raw. escaped says that raw holds escapes;
// its text is then put together at the end of dst, and the value moved over it, so that no other memory is needed.
func (t *Type) appendQuoted(dst, raw []byte, escaped bool) ([]byte, bool) {
	if !escaped {
		return t.AppendValue(dst, raw)
	}
	start := len(dst)
	dst = appendUnescaped(dst, raw)
	end := len(dst)
	out, ok := t.AppendValue(dst, dst[start:end])
	n := copy(out[start:], out[end:])
	return out[:start+n], ok
}

// appendUnescaped undoes the escapes of array_out (a backslash before the byte) and record_out (the byte doubled).
func appendUnescaped(dst, raw []byte) []byte {
	for {
		i := bytes.IndexAny(raw, `\"`)
		if i < 0 || i+1 >= len(raw) {
			return append(dst, raw...)
		}
		dst = append(dst, raw[:i]...)
		dst = append(dst, raw[i+1])
		raw = raw[i+2:]
	}
}

// skipQuoted gives the end of the quoted text that begins at i, just behind its closing quote, and whether it holds
// escapes. With doubled, two quotes are one that is meant. The end is 0 where the closing quote is missing.
func skipQuoted(text []byte, i int, doubled bool) (end int, escaped bool) {
	for i++; i < len(text); i++ {
		switch text[i] {
		case '\\':
			escaped = true
			i++
		case '"':
			if !doubled || i+1 >= len(text) || text[i+1] != '"' {
				return i + 1, escaped
			}
			escaped = true
			i++
		}
	}
	return 0, escaped
}
