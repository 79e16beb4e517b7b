package pgcdc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/tributary-dev/tributary/pkg/events"
)

// The messages within a replication stream: https://www.postgresql.org/docs/current/protocol-replication.html

var errMalformed = errors.New("malformed replication message")

// payload reads the fields of a message. After a field that is not there it gives zeros, and short is true.
type payload struct {
	rest  []byte
	short bool
}

func (p *payload) take(n int) []byte {
	if n < 0 || len(p.rest) < n {
		p.short, p.rest = true, nil
		return nil
	}
	taken := p.rest[:n:n]
	p.rest = p.rest[n:]
	return taken
}

func (p *payload) byte() byte {
	if b := p.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (p *payload) uint16() uint16 {
	if b := p.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (p *payload) uint32() uint32 {
	if b := p.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (p *payload) uint64() uint64 {
	if b := p.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (p *payload) lsn() events.LSN { return events.LSN(p.uint64()) }

// text reads up to the next zero byte.
func (p *payload) text() []byte {
	end := bytes.IndexByte(p.rest, 0)
	if end < 0 {
		p.short, p.rest = true, nil
		return nil
	}
	taken := p.take(end)
	p.take(1)
	return taken
}

// sized reads bytes behind their number.
func (p *payload) sized() []byte {
	n := p.uint32()
	if uint64(n) > uint64(len(p.rest)) {
		p.short, p.rest = true, nil
		return nil
	}
	return p.take(int(n))
}

// done errors where a field of a message of this kind was missing.
func (p *payload) done(kind byte) error {
	if p.short {
		return fmt.Errorf("%w of kind %q: it is too short", errMalformed, kind)
	}
	return nil
}

// epoch is PostgreSQL's, whose times are microseconds since then.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func (p *payload) time() time.Time { return fromPostgres(int64(p.uint64())) }

func fromPostgres(microseconds int64) time.Time {
	const perSecond = 1_000_000
	return time.Unix(epoch.Unix()+microseconds/perSecond, microseconds%perSecond*1000).UTC()
}

const (
	kindWAL       = 'w' // a message of the output plugin
	kindKeepalive = 'k'
)

// frame is one message of the stream: what the output plugin sent, or a keepalive.
type frame struct {
	kind  byte
	end   events.LSN // of a keepalive: how far the server has sent
	reply bool       // of a keepalive: the server waits for our status
	data  []byte     // of the output plugin
}

func parseFrame(data []byte) (frame, error) {
	p := payload{rest: data}
	f := frame{kind: p.byte()}
	switch f.kind {
	case kindWAL:
		p.lsn() // where the data begins
		f.end = p.lsn()
		p.uint64() // when it was sent
		f.data = p.rest
	case kindKeepalive:
		f.end = p.lsn()
		p.uint64()
		f.reply = p.byte() != 0
	default:
		return frame{}, fmt.Errorf("%w: kind %q is unknown", errMalformed, f.kind)
	}
	return f, p.done(f.kind)
}

// appendStatus appends a standby status update, framed as CopyData.
func appendStatus(dst []byte, written, flushed events.LSN, now time.Time, reply bool) []byte {
	const size = 4 + 1 + 4*8 + 1 // the length counts itself
	dst = append(dst, 'd')
	dst = binary.BigEndian.AppendUint32(dst, size)
	dst = append(dst, 'r')
	dst = binary.BigEndian.AppendUint64(dst, uint64(written))
	dst = binary.BigEndian.AppendUint64(dst, uint64(flushed))
	dst = binary.BigEndian.AppendUint64(dst, 0) // applied: nothing here is
	dst = binary.BigEndian.AppendUint64(dst, uint64(now.Sub(epoch).Microseconds()))
	if reply {
		return append(dst, 1)
	}
	return append(dst, 0)
}
