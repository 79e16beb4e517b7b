package pgcdc

import (
	"context"
	"encoding/base64"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tributary-dev/tributary/pkg/events"
)

// rowEncoder writes rows as JSON, the same in snapshot and stream.
type rowEncoder struct {
	refresh    func(ctx context.Context, t *Type) (*Type, error)
	textValues prometheus.Counter // values that are passed as text
	failed     error              // of refresh; what was written since is not to be used
	masked     []byte             // memory
	writer     uint32             // the transaction that wrote the row; 0 for rows as they are now
}

// fillKey gives c the key of a row; old has what row does not.
func (e *rowEncoder) fillKey(ctx context.Context, c *change, rel *relation, row, old []field) {
	c.path = append(c.path[:0], rel.entity...)
	c.key = c.key[:0]
	for n, i := range rel.key {
		f := &row[i]
		if f.kind == fieldUnchanged && old != nil {
			f = &old[i] // the old key is sent where it is TOASTed
		}
		c.path = append(c.path, '/')
		text := f.text
		if m := rel.columns[i].mask; m != nil && f.kind == fieldText {
			e.masked = m.appendText(e.masked[:0], text)
			text = e.masked
		}
		c.path = events.AppendToken(c.path, text)
		c.key = append(c.key, "{,"[min(n, 1)])
		c.key = append(c.key, rel.columns[i].label...)
		c.key = e.value(ctx, c.key, &rel.columns[i], f)
	}
	if len(rel.key) > 0 {
		c.key = append(c.key, '}')
		c.Key = c.key
	}
	c.path = shortenPath(c.path, rel)
	c.PartitionKey = c.path
}

// shortenPath hashes a key that is too long to be carried in each event.
func shortenPath(path []byte, rel *relation) []byte {
	if len(path) <= maxKeyPath {
		return path
	}
	hash := events.KVKey(string(path))
	path = append(path[:0], rel.entity...)
	path = append(path, '/')
	return append(path, hash...)
}

// image writes a row as a JSON object. A value that was not sent is taken from fill, or left out.
func (e *rowEncoder) image(ctx context.Context, dst []byte, rel *relation, row, fill []field) []byte {
	separator := byte('{')
	for i := range rel.columns {
		f := &row[i]
		if f.kind == fieldUnchanged && fill != nil {
			f = &fill[i]
		}
		if f.kind == fieldUnchanged || rel.columns[i].hidden {
			continue
		}
		dst = append(dst, separator)
		dst = append(dst, rel.columns[i].label...)
		dst = e.value(ctx, dst, &rel.columns[i], f)
		separator = ','
	}
	if separator == '{' {
		dst = append(dst, '{')
	}
	return append(dst, '}')
}

// identityImage writes the columns that are sent of an old row which is not whole.
func (e *rowEncoder) identityImage(ctx context.Context, dst []byte, rel *relation, row []field) []byte {
	separator := byte('{')
	for i := range rel.columns {
		if !rel.columns[i].identity || row[i].kind == fieldUnchanged || rel.columns[i].hidden {
			continue
		}
		dst = append(dst, separator)
		dst = append(dst, rel.columns[i].label...)
		dst = e.value(ctx, dst, &rel.columns[i], &row[i])
		separator = ','
	}
	if separator == '{' {
		dst = append(dst, '{')
	}
	return append(dst, '}')
}

func (e *rowEncoder) value(ctx context.Context, dst []byte, col *column, f *field) []byte {
	if f.kind != fieldText {
		return append(dst, "null"...)
	}
	if col.mask != nil {
		dst = append(dst, '"')
		return append(col.mask.appendText(dst, f.text), '"')
	}
	start := len(dst)
	if typ := col.typ; typ.mutable && e.writer != 0 {
		if typ = col.at(e.writer); typ == nil {
			e.textValues.Inc()
			dst, _ = appendText(dst, f.text)
			return dst
		}
		if typ != col.typ {
			dst, ok := typ.AppendValue(dst, f.text)
			if !ok {
				e.textValues.Inc()
			}
			return dst
		}
	}
	dst, ok := col.typ.AppendValue(dst, f.text)
	if ok {
		return dst
	}
	typ, err := e.refresh(ctx, col.typ)
	if err != nil {
		e.failed = err
		return dst
	}
	if typ != col.typ {
		col.typ = typ
		if dst, ok = typ.AppendValue(dst[:start], f.text); ok {
			return dst
		}
	}
	e.textValues.Inc()
	return dst
}

// appendBase64 writes bytes that are not text as {"base64":"…"}.
func appendBase64(dst, content []byte) []byte {
	dst = append(dst, `{"base64":"`...)
	dst = base64.StdEncoding.AppendEncode(dst, content)
	return append(dst, '"', '}')
}
