package pgcdc

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/tributary-dev/tributary/pkg/events"
)

// Kinds of a field in a tuple.
const (
	fieldNull      = 'n'
	fieldUnchanged = 'u' // a TOASTed value that was not changed, and not sent
	fieldText      = 't'
)

// field is one value of a row on the wire.
type field struct {
	kind byte
	text []byte
}

func (f *field) equal(other *field) bool {
	return f.kind == other.kind && bytes.Equal(f.text, other.text)
}

// tuple reads a row into dst.
func (p *payload) tuple(dst []field, rel *relation) ([]field, error) {
	n := int(p.uint16())
	dst = slices.Grow(dst[:0], n)[:n]
	rest := p.rest
	for i := range dst {
		f := &dst[i]
		if len(rest) == 0 {
			return dst[:i], tooShort(rel)
		}
		f.kind, f.text, rest = rest[0], nil, rest[1:]
		switch f.kind {
		case fieldNull, fieldUnchanged:
		case fieldText:
			if len(rest) < 4 {
				return dst[:i], tooShort(rel)
			}
			size := uint64(binary.BigEndian.Uint32(rest))
			if rest = rest[4:]; size > uint64(len(rest)) {
				return dst[:i], tooShort(rel)
			}
			f.text, rest = rest[:size:size], rest[size:]
		default:
			return dst[:i], fmt.Errorf("%w: a field of %s has the kind %q", errMalformed, rel, f.kind)
		}
	}
	p.rest = rest
	if n != len(rel.columns) {
		return dst, refused("a row of %s has %d columns, and its description %d: "+
			"PostgreSQL 15.0 and 15.1 do this where a publication has a column list; upgrade to 15.2 or later", rel, n, len(rel.columns))
	}
	return dst, nil
}

func tooShort(rel *relation) error {
	return fmt.Errorf("%w: a row of %s is too short", errMalformed, rel)
}

// Kinds of a tuple.
const (
	tupleNew = 'N'
	tupleOld = 'O' // the whole old row
	tupleKey = 'K' // the old row's columns of the replica identity; nulls else
)

// sent tells what an old row is, whatever it is called.
func (r *relation) sent(kind byte) byte {
	if kind == tupleOld && r.partial {
		return tupleKey
	}
	return kind
}

func (d *decoder) insert(ctx context.Context, p *payload) error {
	rel, fresh, err := d.row(ctx, p, events.OpInsert)
	if err != nil || !fresh {
		return err
	}
	if kind := p.byte(); kind != tupleNew {
		return fmt.Errorf("%w: an insert into %s with a tuple of kind %q", errMalformed, rel, kind)
	}
	if d.new, err = p.tuple(d.new, rel); err != nil {
		return err
	}
	c := d.blank(events.OpInsert)
	c.after = d.image(ctx, c.after[:0], rel, d.new, nil)
	c.After = c.after
	d.listUnchanged(c, rel, nil)
	return d.holdRow(ctx, c, rel, d.new, nil)
}

func (d *decoder) update(ctx context.Context, p *payload) error {
	rel, fresh, err := d.row(ctx, p, events.OpUpdate)
	if err != nil || !fresh {
		return err
	}
	kind := p.byte()
	var old []field
	if kind == tupleOld || kind == tupleKey {
		if d.old, err = p.tuple(d.old, rel); err != nil {
			return err
		}
		old = d.old
	}
	before := rel.sent(kind)
	if old != nil {
		kind = p.byte()
	}
	if kind != tupleNew {
		return fmt.Errorf("%w: an update of %s with a tuple of kind %q", errMalformed, rel, kind)
	}
	if d.new, err = p.tuple(d.new, rel); err != nil {
		return err
	}
	c := d.blank(events.OpUpdate)
	switch before {
	case tupleOld:
		c.before = d.image(ctx, c.before[:0], rel, old, nil)
		c.Before = c.before
		d.listChanged(c, rel)
		c.after = d.image(ctx, c.after[:0], rel, d.new, old)
		d.listUnchanged(c, rel, old)
	default:
		if before == tupleKey && d.keyChanged(rel) {
			c.before = d.identityImage(ctx, c.before[:0], rel, old)
			c.Before = c.before
		}
		c.after = d.image(ctx, c.after[:0], rel, d.new, nil)
		d.listUnchanged(c, rel, nil)
	}
	c.After = c.after
	return d.holdRow(ctx, c, rel, d.new, old)
}

func (d *decoder) delete(ctx context.Context, p *payload) error {
	rel, fresh, err := d.row(ctx, p, events.OpDelete)
	if err != nil || !fresh {
		return err
	}
	kind := p.byte()
	if kind != tupleOld && kind != tupleKey {
		return fmt.Errorf("%w: a delete from %s with a tuple of kind %q", errMalformed, rel, kind)
	}
	if d.old, err = p.tuple(d.old, rel); err != nil {
		return err
	}
	c := d.blank(events.OpDelete)
	if rel.sent(kind) == tupleOld {
		c.before = d.image(ctx, c.before[:0], rel, d.old, nil)
	} else {
		c.before = d.identityImage(ctx, c.before[:0], rel, d.old)
	}
	c.Before = c.before
	return d.holdRow(ctx, c, rel, d.old, nil)
}

// row counts a change of a row; fresh tells whether it is to be published.
func (d *decoder) row(ctx context.Context, p *payload, op events.Op) (rel *relation, fresh bool, err error) {
	if rel, err = d.known(p.uint32()); err != nil {
		return nil, false, err
	}
	fresh, err = d.next()
	if err != nil || !fresh || !d.wants(rel, op) {
		return rel, false, err
	}
	if rel.mutable && rel.asOf < d.commit {
		err = d.renew(ctx, rel, d.commit)
	}
	return rel, true, err
}

// wants tells whether a change that is not stored yet is one that is published, as far as its table and operation say.
func (d *decoder) wants(rel *relation, op events.Op) bool {
	if !rel.published {
		d.metrics.filtered[whyTable].Inc()
		return false
	}
	return d.sieve.takes(op)
}

// holdRow fills in the key, from row, or from old where row does not have a value, and holds c, unless a filter holds it
// back: then it is nothing that rows which are read beside the stream would have to heed either.
func (d *decoder) holdRow(ctx context.Context, c *change, rel *relation, row, old []field) error {
	d.fillKey(ctx, c, rel, row, old)
	if d.failed != nil {
		return fmt.Errorf("decode %s: %w", rel, d.failed)
	}
	d.address(c, rel)
	if !d.sieve.passes(ctx, &c.Change) {
		return nil
	}
	if err := d.touched(ctx, c.Op, rel, d.xid, row, old); err != nil {
		return err
	}
	return d.hold(ctx, c)
}

// listUnchanged names the columns of d.new that were not sent, and that the old row does not give.
func (d *decoder) listUnchanged(c *change, rel *relation, old []field) {
	c.unchanged = c.unchanged[:0]
	for i := range rel.columns {
		if d.new[i].kind == fieldUnchanged && !rel.columns[i].hidden && (old == nil || old[i].kind == fieldUnchanged) {
			c.unchanged = append(c.unchanged, rel.columns[i].name)
		}
	}
	if len(c.unchanged) > 0 {
		c.Unchanged = c.unchanged
	}
}

// listChanged names the columns whose text differs between the whole old row and the new one.
func (d *decoder) listChanged(c *change, rel *relation) {
	if c.changed == nil {
		c.changed = make([]string, 0, len(rel.columns)) // an empty list says that nothing changed; none, that nobody knows
	}
	c.changed = c.changed[:0]
	for i := range rel.columns {
		if d.new[i].kind != fieldUnchanged && !rel.columns[i].hidden && !d.new[i].equal(&d.old[i]) {
			c.changed = append(c.changed, rel.columns[i].name)
		}
	}
	c.Changed = c.changed
}

// keyChanged compares the old columns of the replica identity with the new ones: the old are also sent, unchanged,
// where one of them is TOASTed.
func (d *decoder) keyChanged(rel *relation) bool {
	for i := range rel.columns {
		if rel.columns[i].identity && d.new[i].kind != fieldUnchanged && !d.new[i].equal(&d.old[i]) {
			return true
		}
	}
	return false
}
