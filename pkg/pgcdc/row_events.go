package pgcdc

import (
	"context"
	"time"

	"github.com/tributary-dev/tributary/pkg/events"
)

// rowEvents makes snapshot events of rows that queries read.
type rowEvents struct {
	rowEncoder
	source      string
	incarnation uint64
	partitions  int
	lsn         events.LSN // names the reading in the events' ids
	time        time.Time  // of the events

	sieve  *sieve
	change *change
	row    []field
}

func (r *run) newRowEvents() *rowEvents {
	return &rowEvents{
		rowEncoder: r.newEncoder(), source: r.opts.Name, incarnation: r.out.position.Incarnation, partitions: r.opts.Partitions,
		sieve: r.newSieve(), change: new(change),
	}
}

// put puts a row as an event at its place, unless a filter holds it back. The values are of the table's columns; ctid names
// a row of a table without a key.
func (e *rowEvents) put(ctx context.Context, out *output, t *snapshotTable, values [][]byte, ctid []byte, at events.Sequence) error {
	e.row = e.row[:0]
	for _, value := range values {
		if value == nil {
			e.row = append(e.row, field{kind: fieldNull})
		} else {
			e.row = append(e.row, field{kind: fieldText, text: value})
		}
	}
	if !e.sieve.takes(events.OpSnapshot) {
		return nil
	}
	c := e.change
	c.Change = events.Change{Source: e.source, Op: events.OpSnapshot, Schema: t.relation.schema, Table: t.relation.table,
		Time: e.time, Sequence: at}
	c.through = 0
	c.after = e.image(ctx, c.after[:0], t.relation, e.row, nil)
	c.After = c.after
	e.fillKey(ctx, c, t.relation, e.row, nil)
	if e.failed != nil {
		return e.failed
	}
	named := c.path
	if !t.keyed() {
		named = ctid
	}
	c.id = events.AppendSnapshotID(c.id[:0], e.source, e.incarnation, e.lsn, t.OID, named)
	c.ID = c.id
	c.subject = t.relation.subject(e.source, c.Op, events.Partition(c.path, e.partitions))
	if !e.sieve.passes(ctx, &c.Change) {
		return nil
	}
	return out.add(ctx, c)
}
