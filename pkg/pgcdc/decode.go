package pgcdc

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tributary-dev/tributary/pkg/events"
)

// ownPrefix begins the logical messages of our own, which are not events.
const ownPrefix = "tributary."

// closingPrefix is that of an event that ends a transaction of which a part was stored before its rest was left out.
const closingPrefix = ownPrefix + "closed"

// heartbeatPrefix is that of the messages which prove that the stream still brings what is written.
const heartbeatPrefix = ownPrefix + "heartbeat"

// maxTopic bounds a logical message's prefix within a subject; a longer one is hashed there.
const maxTopic = 512

// decoder reads what pgoutput sends in protocol 1, without streaming and two_phase: each transaction whole, after its
// commit, in the order of commits.
// https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
type decoder struct {
	rowEncoder
	source      string
	incarnation uint64
	partitions  int
	stored      events.Sequence // changes up to here are stored already
	describe    func(ctx context.Context, w *wireRelation, again bool) (*relation, error)
	renew       func(ctx context.Context, rel *relation, commit events.LSN) error // brings the types of its columns up to date
	put         func(ctx context.Context, c *change) error                        // takes the next change; c is the decoder's again when it returns
	heartbeat   func(content []byte)
	own         func(ctx context.Context, t ownTransaction) error                                          // told of a transaction that is an addition's message alone
	touched     func(ctx context.Context, op events.Op, rel *relation, xid uint32, row, old []field) error // told of each change of a row
	emptied     func(rel *relation, xid uint32)                                                            // told of each TRUNCATE of a table
	metrics     *sourceMetrics
	sieve       *sieve

	relations map[uint32]*relation
	topics    map[string]string // subjects by prefix of logical messages

	open      bool // within a transaction
	xid       uint32
	commit    events.LSN
	committed time.Time
	index     uint32     // of the last change; from 1
	through   events.LSN // every commit that begins before it was put

	addition []byte // the content of the addition's message that the transaction begins with; nil for none

	// One change of a transaction is held back until the next one or the commit, which tells whether it is the last.
	held    *change
	holding bool
	spare   *change

	old, new []field
}

// ownTransaction is one that holds a message of ours, and nothing else.
type ownTransaction struct {
	commit    events.LSN
	committed time.Time
	content   []byte
}

// change is an event to be, with the memory of its parts.
type change struct {
	events.Change
	subject string
	through events.LSN // of its ingest.Item

	id, path, key, before, after, content []byte
	changed, unchanged                    []string
}

func (d *decoder) init() {
	d.relations, d.topics = map[uint32]*relation{}, map[string]string{}
	d.held, d.spare = new(change), new(change)
}

// decode reads one message of the output plugin.
func (d *decoder) decode(ctx context.Context, data []byte) error {
	p := payload{rest: data}
	switch kind := p.byte(); kind {
	case 'B':
		return d.begin(&p)
	case 'C':
		return d.end(ctx, &p)
	case 'R':
		return d.relation(ctx, &p)
	case 'I':
		return d.insert(ctx, &p)
	case 'U':
		return d.update(ctx, &p)
	case 'D':
		return d.delete(ctx, &p)
	case 'T':
		return d.truncate(ctx, &p)
	case 'M':
		return d.message(ctx, &p)
	case 'O', 'Y': // the origin of a transaction, the name of a type
		return nil
	default:
		return fmt.Errorf("%w: kind %q is unknown", errMalformed, kind)
	}
}

func (d *decoder) begin(p *payload) error {
	if d.open {
		return fmt.Errorf("%w: a transaction begins within another", errMalformed)
	}
	d.commit, d.committed, d.xid = p.lsn(), p.time(), p.uint32()
	d.open, d.index, d.addition = true, 0, nil
	d.writer = d.xid
	return p.done('B')
}

func (d *decoder) end(ctx context.Context, p *payload) error {
	p.byte() // flags
	commit, end := p.lsn(), p.lsn()
	if err := p.done('C'); err != nil {
		return err
	}
	if !d.open || commit != d.commit {
		return fmt.Errorf("%w: a commit at %s of a transaction that did not begin", errMalformed, commit)
	}
	if d.cut() {
		d.closing()
	}
	if d.holding {
		// The server sends a transaction again if its commit record begins at the position that it is asked for or later.
		d.held.Last, d.held.through = true, commit+1
		if err := d.release(ctx); err != nil {
			return err
		}
		d.metrics.transactions.Inc()
	}
	d.open, d.through = false, max(d.through, end)
	if d.addition != nil && d.index == 1 {
		return d.own(ctx, ownTransaction{commit: commit, committed: d.committed, content: d.addition})
	}
	return nil
}

// cut tells whether a part of the open transaction is stored, and nothing of its rest is published: the choice was another
// when the part was. Messages of our own that have rows at their place hold no event.
func (d *decoder) cut() bool {
	ours := d.addition != nil && d.index == 1
	return !d.holding && !ours && d.stored.Index > 0 && d.stored.Commit == uint64(d.commit)
}

// closing holds an event that says no more than that the transaction ends.
func (d *decoder) closing() {
	d.index = max(d.index, d.stored.Index+1)
	c := d.blank(events.OpMessage)
	d.fillMessage(c, closingPrefix, nil)
	d.held, d.spare, d.holding = c, d.held, true
}

func (d *decoder) relation(ctx context.Context, p *payload) error {
	w, err := parseRelation(p)
	if err != nil {
		return err
	}
	_, again := d.relations[w.oid]
	rel, err := d.describe(ctx, w, again)
	if err != nil {
		return err
	}
	d.relations[w.oid] = rel
	return nil
}

func (d *decoder) known(oid uint32) (*relation, error) {
	if rel := d.relations[oid]; rel != nil {
		return rel, nil
	}
	return nil, fmt.Errorf("%w: table %d was not described", errMalformed, oid)
}

// next counts a change of the open transaction, and tells whether it is still to be stored.
func (d *decoder) next() (fresh bool, err error) {
	if !d.open {
		return false, fmt.Errorf("%w: a change outside of a transaction", errMalformed)
	}
	if d.index == math.MaxUint32 {
		return false, refused("transaction %d has more than %d changes: split it, or skip it with pg_replication_slot_advance", d.xid, d.index)
	}
	d.index++
	return d.at().Compare(d.stored) > 0, nil
}

func (d *decoder) at() events.Sequence {
	return events.Sequence{Commit: uint64(d.commit), Index: d.index}
}

// blank gives the spare change, as one of the open transaction.
func (d *decoder) blank(op events.Op) *change {
	c := d.spare
	c.Change = events.Change{
		Source: d.source, Op: op, Time: d.committed, Sequence: d.at(), InTransaction: true, XID: d.xid, Commit: d.commit,
	}
	c.through = 0
	c.id = events.AppendChangeID(c.id[:0], d.source, d.incarnation, d.commit, d.xid, d.index)
	c.ID = c.id
	return c
}

// hold puts the change that was held, and holds c, which is the spare one.
func (d *decoder) hold(ctx context.Context, c *change) error {
	if d.holding {
		if err := d.release(ctx); err != nil {
			return err
		}
	}
	d.held, d.spare, d.holding = c, d.held, true
	return nil
}

func (d *decoder) release(ctx context.Context) error {
	d.holding = false
	return d.put(ctx, d.held)
}

func (d *decoder) truncate(ctx context.Context, p *payload) error {
	n := p.uint32()
	p.byte() // whether it cascades and restarts sequences
	for range n {
		oid := p.uint32()
		if p.short {
			break
		}
		rel, err := d.known(oid)
		if err != nil {
			return err
		}
		fresh, err := d.next()
		if err != nil {
			return err
		}
		if !fresh || !d.wants(rel, events.OpTruncate) {
			continue
		}
		c := d.blank(events.OpTruncate)
		c.path = append(c.path[:0], rel.entity...)
		d.address(c, rel)
		if !d.sieve.passes(ctx, &c.Change) {
			continue
		}
		d.emptied(rel, d.xid)
		if err := d.hold(ctx, c); err != nil {
			return err
		}
	}
	return p.done('T')
}

// address names the table, and gives the subject in the partition of c.path.
func (d *decoder) address(c *change, rel *relation) {
	c.Schema, c.Table, c.PartitionKey = rel.schema, rel.table, c.path
	c.subject = rel.subject(d.source, c.Op, events.Partition(c.path, d.partitions))
}

// message reads what pg_logical_emit_message wrote.
func (d *decoder) message(ctx context.Context, p *payload) error {
	const transactional = 1
	within := p.byte()&transactional != 0
	lsn, prefix, content := p.lsn(), p.text(), p.sized()
	if err := p.done('M'); err != nil {
		return err
	}
	if within {
		fresh, err := d.next()
		if err != nil || !fresh {
			return err
		}
		if strings.HasPrefix(string(prefix), ownPrefix) {
			if string(prefix) == additionPrefix && d.index == 1 {
				d.addition = bytes.Clone(content)
			}
			return nil
		}
		if !d.sieve.takes(events.OpMessage) {
			return nil
		}
		c := d.blank(events.OpMessage)
		d.fillMessage(c, string(prefix), content)
		if !d.sieve.passes(ctx, &c.Change) {
			return nil
		}
		return d.hold(ctx, c)
	}
	if d.open {
		return fmt.Errorf("%w: message %s of no transaction within one", errMalformed, lsn)
	}
	at := events.Sequence{Commit: uint64(lsn)}
	switch {
	case string(prefix) == heartbeatPrefix:
		d.heartbeat(content)
	case strings.HasPrefix(string(prefix), ownPrefix), at.Compare(d.stored) <= 0, !d.sieve.takes(events.OpMessage):
	default:
		c := d.spare
		c.Change = events.Change{Source: d.source, Op: events.OpMessage, Sequence: at}
		c.id = events.AppendChangeID(c.id[:0], d.source, d.incarnation, lsn, 0, 0)
		c.ID = c.id
		d.fillMessage(c, string(prefix), content)
		// lsn is where the message ends. What commits before it came before it, and a commit may begin right there.
		c.through = lsn
		if d.sieve.passes(ctx, &c.Change) {
			if err := d.put(ctx, c); err != nil {
				return err
			}
		}
	}
	d.through = max(d.through, lsn)
	return nil
}

func (d *decoder) fillMessage(c *change, prefix string, content []byte) {
	c.path = events.AppendToken(c.path[:0], prefix)
	c.content = appendContent(c.content[:0], content)
	c.Prefix, c.Content, c.PartitionKey = prefix, c.content, c.path
	c.subject = d.topic(prefix, events.Partition(c.path, d.partitions))
}

// topic gives the subject of a logical message.
func (d *decoder) topic(prefix string, partition int) string {
	const most = 1000 // that are remembered: prefixes may be made of data
	if subject, ok := d.topics[prefix]; ok {
		return subject
	}
	a := events.Address{Partition: partition, Source: d.source, Table: prefix, Op: events.OpMessage}
	if len(prefix) > maxTopic {
		a.Table = events.KVKey(prefix)
	}
	if len(d.topics) >= most {
		clear(d.topics)
	}
	subject := a.Subject()
	d.topics[prefix] = subject
	return subject
}

// appendContent writes a message's content as JSON: itself where it is JSON, a string where it is text.
func appendContent(dst, content []byte) []byte {
	switch {
	case validJSON(content):
		return append(dst, content...)
	case utf8.Valid(content):
		return events.AppendString(dst, content)
	default:
		return appendBase64(dst, content)
	}
}
