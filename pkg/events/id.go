package events

import (
	"crypto/sha256"
	"encoding/base64"
	"strconv"
)

const maxIDLength = 200

// ValidID tells whether id matches [A-Za-z0-9_~-]{1,200}, as every id that keys effects does.
func ValidID(id string) bool {
	if id == "" || len(id) > maxIDLength {
		return false
	}
	for i := range len(id) {
		if !plain(id[i]) && id[i] != '~' {
			return false
		}
	}
	return true
}

// AppendChangeID appends the id of a change: <source>-<incarnation>-<commit LSN>-<xid>-<index>. A message that is not
// part of a transaction has its own LSN, xid 0 and index 0.
func AppendChangeID(dst []byte, source string, incarnation uint64, commit LSN, xid, index uint32) []byte {
	dst = appendIncarnation(dst, source, incarnation, commit)
	dst = strconv.AppendUint(dst, uint64(xid), 10)
	dst = append(dst, '-')
	return strconv.AppendUint(dst, uint64(index), 10)
}

// AppendSnapshotID appends the id of a row that a snapshot read: <source>-<incarnation>-<slot's LSN>-s<table oid>-<hash>.
// The row is named by its key path (EntityKey), or by what else is unique in the table.
func AppendSnapshotID(dst []byte, source string, incarnation uint64, slot LSN, tableOID uint32, row []byte) []byte {
	dst = appendIncarnation(dst, source, incarnation, slot)
	dst = append(dst, 's')
	dst = strconv.AppendUint(dst, uint64(tableOID), 10)
	dst = append(dst, '-')
	sum := sha256.Sum256(row)
	return base64.RawURLEncoding.AppendEncode(dst, sum[:16])
}

func appendIncarnation(dst []byte, source string, incarnation uint64, lsn LSN) []byte {
	dst = append(dst, source...)
	dst = append(dst, '-')
	dst = strconv.AppendUint(dst, incarnation, 10)
	dst = append(dst, '-')
	dst = appendHex16(dst, uint64(lsn))
	return append(dst, '-')
}

// ApplicationID is what keys the effects of an event that an application published under a source of ours: its own
// id is only unique beside its own CloudEvents source, and may be anything.
func ApplicationID(source, eventSource, eventID string) string {
	hash := sha256.New()
	hash.Write([]byte(eventSource))
	hash.Write([]byte{0})
	hash.Write([]byte(eventID))
	return source + "~" + base64.RawURLEncoding.EncodeToString(hash.Sum(nil)[:16])
}

// EffectKey names one effect, across retries, redeliveries and generations: <id>~<observer>~<action>.
func EffectKey(id, observer, action string) string {
	return id + "~" + observer + "~" + action
}

// KVKey makes a key of a KV bucket from data of any alphabet: base64url of its SHA-256, 43 characters.
func KVKey(data string) string {
	sum := sha256.Sum256([]byte(data))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// appendTraceParent derives a W3C traceparent from an id, so that an event has the same bytes whenever it is read.
func appendTraceParent(dst, id []byte) []byte {
	const digits = "0123456789abcdef"
	sum := sha256.Sum256(id)
	dst = append(dst, "00-"...)
	for i, b := range sum[:24] {
		if i == 16 {
			dst = append(dst, '-')
		}
		dst = append(dst, digits[b>>4], digits[b&0xF])
	}
	return append(dst, "-01"...)
}
