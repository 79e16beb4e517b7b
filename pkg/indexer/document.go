package indexer

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/indexer/query"
)

// Document is an event as the index keeps it.
type Document struct {
	ID    string // the event's effect id: the same event has the same one, however often it is read
	Month string // YYYY.MM, the index that it belongs to
	Body  []byte // a JSON object in one line: the fields of query.Fields, and Envelope
}

// Envelope is the member of a document that holds the event, byte for byte, as a string.
const Envelope = "envelope"

// Message is an event as it lies in EVENTS.
type Message struct {
	Subject  string    `json:"subject"`
	Data     []byte    `json:"data"`
	Sequence uint64    `json:"sequence"` // in EVENTS
	Stored   time.Time `json:"stored"`
}

// A row whose clock says another year belongs to the month in which it was stored: indices are known by their names.
const (
	firstYear = 1000
	lastYear  = 2999
)

// NewDocument makes the document of an event. It errors with events.ErrInvalid where the message is none. A row belongs
// to the month of its own time, an application's event to the one in which it was stored: its time may be anything.
func NewDocument(m Message) (Document, error) {
	address, err := events.ParseAddress(m.Subject)
	if err != nil {
		return Document{}, err
	}
	event, err := events.Parse(m.Data)
	if err != nil {
		return Document{}, err
	}
	own := event.Time
	if address.FromApplication() || own.Year() < firstYear || own.Year() > lastYear {
		own = m.Stored
	}
	d := Document{ID: address.EffectID(event), Month: MonthOf(own)}
	b := builder{message: m, address: address, event: event}
	d.Body, err = b.build(d.ID)
	return d, err
}

// Bounded gives the document without the objects (query.Object) that nest deeper or hold a longer string than an index
// can take. Their words stay, and the envelope.
func (d Document) Bounded(depth, bytes int) Document {
	objects := map[string]bool{}
	for _, f := range query.Fields() {
		objects[f.Name] = f.Kind == query.Object
	}
	body := make([]byte, 0, len(d.Body))
	body = append(body, '{')
	eachMember(d.Body, func(name, value []byte) {
		if objects[string(name)] {
			if deep, long := measure(value); deep > depth || long > bytes {
				return
			}
		}
		if len(body) > 1 {
			body = append(body, ',')
		}
		body = append(append(append(body, '"'), name...), '"', ':')
		body = append(body, value...)
	})
	d.Body = append(body, '}')
	return d
}

// builder writes one document. Raw JSON is passed on as it is, but for line ends between values: in a bulk they would
// end the document.
type builder struct {
	message Message
	address events.Address
	event   *events.Event
	out     []byte
	words   []byte // what text holds
}

func (b *builder) build(id string) ([]byte, error) {
	b.out = make([]byte, 0, 3*len(b.message.Data)+512)
	b.attributes(id)
	if b.address.FromApplication() {
		b.published()
	} else if err := b.row(); err != nil {
		return nil, err
	}
	if b.words != nil {
		b.out = append(b.out, `,"text":[`...)
		b.out = append(b.out, b.words...)
		b.out = append(b.out, ']')
	}
	b.out = append(b.out, `,"`+Envelope+`":`...)
	b.out = events.AppendString(b.out, b.message.Data)
	return append(b.out, '}'), nil
}

// attributes writes what every event has.
func (b *builder) attributes(id string) {
	e, a := b.event, b.address
	b.out = append(b.out, `{"id":`...)
	b.out = events.AppendString(b.out, e.ID)
	b.text("effect_id", id)
	b.text("source", a.Source)
	b.text("ce_source", e.Source)
	b.text("type", e.Type)
	b.text("subject", e.Subject)
	b.time("time", e.Time)
	b.time("stored", b.message.Stored)
	b.number("partition", uint64(a.Partition))
	b.text("partitionkey", e.PartitionKey)
	b.text("sequence", e.Sequence.String())
	b.number("stream_sequence", b.message.Sequence)
	b.text("traceparent", e.TraceParent)
	b.text("op", string(a.Op))
	b.text("schema", a.Schema)
	b.text("table", a.Table)
	b.text("entity", a.Entity())
	if _, key, found := strings.Cut(e.PartitionKey, "/"); found {
		b.text("key_text", key)
	}
}

// row writes what is in the data of a change.
func (b *builder) row() error {
	var before, after []byte
	var members, message int
	ok := eachMember(b.event.Data, func(name, value []byte) {
		members++
		switch text := string(name); text {
		case "key":
			b.object(text, value)
		case "before":
			before = value
			b.object(text, value)
		case "after":
			after = value
			b.object(text, value)
		case "changed", "unchanged", "oversize", "tx":
			b.raw(text, value)
		case "prefix", "content":
			message++
		}
	})
	if !ok || members == 0 {
		return fmt.Errorf("%w: data of %s is not a change", events.ErrInvalid, b.event.ID)
	}
	if message > 0 {
		b.logicalMessage()
	}
	b.words = appendWords(b.words, after)
	b.words = appendWordsUnlike(b.words, before, after)
	return nil
}

// logicalMessage writes a logical message as data.
func (b *builder) logicalMessage() {
	begun := false
	eachMember(b.event.Data, func(name, value []byte) {
		if text := string(name); text != "prefix" && text != "content" {
			return
		}
		opening := byte(',')
		if !begun {
			b.out = append(b.out, `,"data":`...)
			opening, begun = '{', true
		}
		b.out = append(b.out, opening, '"')
		b.out = append(b.out, name...)
		b.out = append(b.out, '"', ':')
		b.out = appendLine(b.out, value)
		b.words = appendWords(b.words, value)
	})
	b.out = append(b.out, '}')
}

// published writes the data of an application's event.
func (b *builder) published() {
	data := b.event.Data
	switch {
	case len(data) == 0 || string(data) == "null":
		return
	case data[0] == '{':
		b.raw("data", data)
	default: // only objects have columns
		b.out = append(b.out, `,"data":{"value":`...)
		b.out = append(appendLine(b.out, data), '}')
	}
	b.words = appendWords(b.words, data)
}

// object writes a member that must be an object; a null is left out.
func (b *builder) object(name string, value []byte) {
	if len(value) > 0 && value[0] != 'n' {
		b.raw(name, value)
	}
}

func (b *builder) raw(name string, value []byte) {
	b.name(name)
	b.out = appendLine(b.out, value)
}

func (b *builder) name(name string) {
	b.out = append(b.out, ',', '"')
	b.out = append(b.out, name...)
	b.out = append(b.out, '"', ':')
}

func (b *builder) text(name, value string) {
	if value != "" {
		b.name(name)
		b.out = events.AppendString(b.out, value)
	}
}

func (b *builder) number(name string, value uint64) {
	b.name(name)
	b.out = strconv.AppendUint(b.out, value, 10)
}

// time writes a time that has four digits of year; no index takes others.
func (b *builder) time(name string, at time.Time) {
	at = at.UTC()
	if at.IsZero() || at.Year() < 0 || at.Year() > 9999 {
		return
	}
	b.name(name)
	b.out = append(b.out, '"')
	b.out = at.AppendFormat(b.out, events.TimeFormat)
	b.out = append(b.out, '"')
}

// appendLine appends JSON without the line ends between its values; within strings there are none.
func appendLine(dst, value []byte) []byte {
	start := len(dst)
	dst = append(dst, value...)
	if bytes.IndexByte(value, '\n') < 0 && bytes.IndexByte(value, '\r') < 0 {
		return dst
	}
	for i, c := range dst[start:] {
		if c == '\n' || c == '\r' {
			dst[start+i] = ' '
		}
	}
	return dst
}
