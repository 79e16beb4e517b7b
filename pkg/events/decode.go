package events

import (
	"fmt"
	"time"
)

// Parse decodes an envelope as it lies in EVENTS. It errors with ErrInvalid where the JSON is broken, or a required
// attribute is missing or out of its form. Extensions are left out; of a name that comes twice, the last counts. The
// event's Data is a part of data, which must not be changed afterwards.
//
// Every worker parses every event of its partitions, which is why this is no json.Unmarshal: that takes four times as long.
func Parse(data []byte) (*Event, error) {
	d := decoder{scanner: scanner{data: data}}
	d.space()
	if !d.object(d.member) {
		if d.mistyped != "" {
			return nil, fmt.Errorf("%w: the %s is not a string", ErrInvalid, d.mistyped)
		}
		return nil, d.fault()
	}
	d.space()
	if d.pos < len(data) {
		return nil, d.fault()
	}
	return d.event()
}

// decoder collects the attributes of an envelope as they are written.
type decoder struct {
	scanner
	specVersion, id, source, kind, subject, time, contentType, partitionKey, sequence, traceParent span

	dataStart, dataEnd int
	mistyped           string
}

// member reads one attribute.
func (d *decoder) member(name span) bool {
	key := name.raw()
	if !name.plain {
		key = []byte(name.String())
	}
	switch string(key) {
	case "specversion":
		return d.attribute(&d.specVersion, "specversion")
	case "id":
		return d.attribute(&d.id, "id")
	case "source":
		return d.attribute(&d.source, "source")
	case "type":
		return d.attribute(&d.kind, "type")
	case "subject":
		return d.attribute(&d.subject, "subject")
	case "time":
		return d.attribute(&d.time, "time")
	case "datacontenttype":
		return d.attribute(&d.contentType, "datacontenttype")
	case "partitionkey":
		return d.attribute(&d.partitionKey, "partitionkey")
	case "sequence":
		return d.attribute(&d.sequence, "sequence")
	case "traceparent":
		return d.attribute(&d.traceParent, "traceparent")
	case "data":
		d.dataStart = d.pos
		ok := d.value(maxDepth - 1)
		d.dataEnd = d.pos
		return ok
	default:
		return d.value(maxDepth - 1)
	}
}

// attribute reads a string; null is as good as no attribute.
func (d *decoder) attribute(into *span, name string) bool {
	switch d.peek() {
	case '"':
		var ok bool
		*into, ok = d.text()
		return ok
	case 'n':
		*into = span{}
		return d.word("null")
	default:
		if d.value(maxDepth - 1) {
			d.mistyped = name
		}
		return false
	}
}

// event checks what was collected.
func (d *decoder) event() (*Event, error) {
	head := string(d.data[:d.dataStart]) // one copy for all attributes: they come before the data
	text := func(t span) string {
		if end := t.at + len(t.quoted); t.plain && end <= len(head) {
			return head[t.at+1 : end-1]
		}
		return t.String()
	}
	e := &Event{
		ID: text(d.id), Source: text(d.source), Type: text(d.kind), Subject: text(d.subject),
		DataContentType: text(d.contentType), TraceParent: text(d.traceParent),
	}
	if d.dataEnd > 0 {
		e.Data = d.data[d.dataStart:d.dataEnd:d.dataEnd]
	}
	if e.PartitionKey = e.Subject; string(d.partitionKey.quoted) != string(d.subject.quoted) {
		e.PartitionKey = text(d.partitionKey)
	}
	switch version := text(d.specVersion); {
	case version != SpecVersion:
		return nil, fmt.Errorf("%w: specversion is %q, not %q", ErrInvalid, version, SpecVersion)
	case e.ID == "":
		return nil, fmt.Errorf("%w: the id is empty", ErrInvalid)
	case e.Source == "":
		return nil, fmt.Errorf("%w: %s: the source is empty", ErrInvalid, e.ID)
	case e.Type == "":
		return nil, fmt.Errorf("%w: %s: the type is empty", ErrInvalid, e.ID)
	case e.PartitionKey == "":
		return nil, fmt.Errorf("%w: %s: the partitionkey is empty", ErrInvalid, e.ID)
	}
	var err error
	if e.Sequence, err = ParseSequence(text(d.sequence)); err != nil {
		return nil, fmt.Errorf("%s: %w", e.ID, err)
	}
	if at := text(d.time); at != "" {
		if e.Time, err = time.Parse(time.RFC3339Nano, at); err != nil {
			return nil, fmt.Errorf("%w: %s: time: %w", ErrInvalid, e.ID, err)
		}
	}
	return e, nil
}
