package pgcdc

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/pkg/events"
)

// FuzzDecode feeds the decoder messages one behind the other, each behind its length of two bytes. Whatever they hold, it
// must not panic, and what it gives must be an envelope.
func FuzzDecode(f *testing.F) {
	join := func(messages ...[]byte) []byte {
		var all []byte
		for _, m := range messages {
			all = binary.BigEndian.AppendUint16(all, uint16(len(m)))
			all = append(all, m...)
		}
		return all
	}
	_, rel := newTestDecoder(nil)
	insert := insertMessage(rel, "1", "2", "shipped", "1.5", "2026-11-23 08:45:53+00", "x")
	update := append(binary.BigEndian.AppendUint32([]byte{'U'}, rel.oid), 'K', 0, 6, 't', 0, 0, 0, 1, '7', 'n', 'n', 'n', 'n', 'n')
	update = append(update, insert[5:]...)
	remove := append(binary.BigEndian.AppendUint32([]byte{'D'}, rel.oid), 'O', 0, 6, 't', 0, 0, 0, 1, '7', 'n', 'n', 'n', 'n', 'u')
	truncate := binary.BigEndian.AppendUint32([]byte{'T', 0, 0, 0, 1, 0}, rel.oid)
	message := append([]byte{'M', 1, 0, 0, 0, 0, 0, 0, 3, 1}, "note\x00\x00\x00\x00\x02{}"...)
	describe := append([]byte{'R', 0, 0, 0, 9}, "public\x00t\x00d\x00\x01\x01id\x00\x00\x00\x00\x17\xff\xff\xff\xff"...)
	commit := append([]byte{'C', 0}, make([]byte, 24)...)
	binary.BigEndian.PutUint64(commit[2:], 1000)
	f.Add(join(beginMessage(1000), insert, update, remove, truncate, message, commit))
	f.Add(join(describe, beginMessage(1000), message, commit))
	f.Add(join([]byte{'O'}, []byte{'Y'}, []byte{'x'}))
	f.Fuzz(func(t *testing.T, all []byte) {
		var buf []byte
		d, _ := newTestDecoder(func(_ context.Context, c *change) error {
			buf = events.AppendChange(buf[:0], &c.Change)
			if !json.Valid(buf) {
				t.Fatalf("no JSON: %s", buf)
			}
			if _, err := events.ParseAddress(c.subject); err != nil {
				t.Fatal(err)
			}
			return nil
		})
		for len(all) >= 2 {
			size := min(int(binary.BigEndian.Uint16(all)), len(all)-2)
			if err := d.decode(t.Context(), all[2:2+size]); err != nil {
				return
			}
			all = all[2+size:]
		}
	})
}

func TestMalformedStreamsAreErrors(t *testing.T) {
	_, rel := newTestDecoder(nil)
	whole := insertMessage(rel, "1", "2", "shipped", "1.5", "2026-11-23 08:45:53+00", "x")
	for name, messages := range map[string][][]byte{
		"an unknown kind":                {{'?'}},
		"nothing":                        {{}},
		"a change of no transaction":     {whole},
		"a commit of no transaction":     {append([]byte{'C', 0}, make([]byte, 24)...)},
		"a transaction within another":   {beginMessage(1), beginMessage(2)},
		"a table that was not described": {beginMessage(1), {'I', 0, 0, 0, 1, 'N', 0, 0}},
		"a row that is cut off":          {beginMessage(1), whole[:len(whole)-1]},
		"a row with fewer columns":       {beginMessage(1), insertMessage(rel, "1", "2")},
		"a row with a binary column":     {beginMessage(1), {'I', 0, 0, 64, 1, 'N', 0, 1, 'b', 0, 0, 0, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			d, _ := newTestDecoder(func(context.Context, *change) error { return nil })
			var err error
			for _, m := range messages {
				if err == nil {
					err = d.decode(t.Context(), m)
				}
			}
			if err == nil {
				t.Error("no error")
			}
		})
	}
}

func TestFramesAreParsed(t *testing.T) {
	keepalive := append([]byte{'k', 0, 0, 0, 1, 0, 0, 0, 2}, 0, 0, 0, 0, 0, 0, 0, 9, 1)
	f, err := parseFrame(keepalive)
	if err != nil || f.kind != kindKeepalive || f.end != 1<<32|2 || !f.reply {
		t.Errorf("%+v, %v", f, err)
	}
	for n := range keepalive {
		if _, err := parseFrame(keepalive[:n]); !errors.Is(err, errMalformed) {
			t.Errorf("%d bytes of a keepalive: %v", n, err)
		}
	}
	now := time.Date(2026, 11, 23, 8, 45, 53, 123456000, time.UTC)
	status := appendStatus(nil, 3, 2, now, true)
	if len(status) != 1+38 || status[0] != 'd' || binary.BigEndian.Uint32(status[1:]) != 38 || status[5] != 'r' || status[38] != 1 {
		t.Errorf("status %x", status)
	}
	if written, flushed := binary.BigEndian.Uint64(status[6:]), binary.BigEndian.Uint64(status[14:]); written != 3 || flushed != 2 {
		t.Errorf("written %d, flushed %d", written, flushed)
	}
	if got := fromPostgres(int64(binary.BigEndian.Uint64(status[30:]))); !got.Equal(now) {
		t.Errorf("time %s", got)
	}
}

func TestLongKeysAreHashed(t *testing.T) {
	d, rel := newTestDecoder(nil)
	c := new(change)
	key := func(id []byte) string {
		row := []field{{kind: fieldText, text: id}, {kind: fieldNull}, {kind: fieldNull}, {kind: fieldNull}, {kind: fieldNull}, {kind: fieldNull}}
		d.fillKey(t.Context(), c, rel, row, nil)
		return string(c.path)
	}
	short, long := key([]byte("7")), key(bytes.Repeat([]byte("7"), maxKeyPath))
	if short != "public.rows/7" || len(long) > 100 || long == key(bytes.Repeat([]byte("7"), maxKeyPath+1)) {
		t.Errorf("keys %s and %s", short, long)
	}
}
