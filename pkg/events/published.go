package events

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Published is a message of INBOX.
type Published struct {
	Publication Publication         // ParsePublication
	Header      map[string][]string // of the message, names as they came
	Body        []byte
	ID          string    // for a body that is no CloudEvent: Nats-Msg-Id, else the sequence in INBOX
	Sequence    uint64    // in INBOX
	Time        time.Time // at which INBOX stored the message
}

// What a message's headers say of its form.
const (
	binaryPrefix    = "ce-"
	mediaCloudEvent = "application/cloudevents"
)

// Attributes of ours in an application's event.
const (
	attributeTraceParent  = "traceparent"
	attributePartitionKey = "partitionkey"
	attributeSequence     = "sequence"
	attributeSequenceType = "sequencetype" // says how to read a sequence, which is ours then
)

// AppendPublished appends the envelope of a message that an application published. The same message has the same
// bytes each time. A message that is
//
//   - of the content type application/cloudevents or application/cloudevents+json, is a CloudEvent in structured mode;
//   - else one with ce- headers, is a CloudEvent in binary mode;
//   - else an object whose specversion is a string, whatever its content type, is a CloudEvent in structured mode;
//   - any other JSON, is the data of an event of ours: with the id m.ID, the source /tributary/<source>, the type
//     <entity>.<type>, the entity key as subject, and the time at which it was stored.
//
// A CloudEvent keeps its attributes but partitionkey, sequence and sequencetype, which are ours; where it has no time
// or traceparent it gets one. What is broken, and what claims a source of ours, errors with ErrInvalid; dst is
// returned as it was then.
func AppendPublished(dst []byte, m Published) ([]byte, error) {
	c, err := m.cloudEvent()
	if err != nil {
		return dst, err
	}
	return m.append(dst, c), nil
}

func (m Published) cloudEvent() (*CloudEvent, error) {
	var c *CloudEvent
	var err error
	switch media := mediaType(contentType(m.Header)); {
	case media == mediaCloudEvent || media == ContentType:
		c, err = ParseCloudEvent(m.Body)
	case strings.HasPrefix(media, mediaCloudEvent):
		return nil, fmt.Errorf("%w: content type %q is not supported: send one event as %s", ErrInvalid, media, ContentType)
	case hasBinaryHeader(m.Header):
		c, err = FromBinary(m.Header, m.Body)
	case claimsSpecVersion(m.Body):
		c, err = ParseCloudEvent(m.Body)
	default:
		return m.wrap()
	}
	if err == nil && strings.HasPrefix(c.Source, SourcePrefix) {
		err = fmt.Errorf("%w: source %q: an application may not claim a source in %s", ErrInvalid, c.Source, SourcePrefix)
	}
	return c, err
}

// wrap makes an event of plain JSON.
func (m Published) wrap() (*CloudEvent, error) {
	c := &CloudEvent{
		ID: m.ID, Source: SourcePrefix + m.Publication.Source, Type: m.Publication.Entity + "." + m.Publication.Type,
		Subject: m.Publication.EntityKey(), DataContentType: "application/json", Data: m.Body, specVersion: SpecVersion,
	}
	for name, text := range map[string]string{"id": c.ID, "type": c.Type} {
		if !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) {
			return nil, fmt.Errorf("%w: %s %q is not UTF-8, or holds a control character", ErrInvalid, name, text)
		}
	}
	if err := validJSON(m.Body); err != nil {
		return nil, err
	}
	return c.finish()
}

// append writes the envelope.
func (m Published) append(dst []byte, c *CloudEvent) []byte {
	dst = append(dst, `{"specversion":"1.0"`...)
	dst = appendText(dst, "id", c.ID)
	dst = appendText(dst, "source", c.Source)
	dst = appendText(dst, "type", c.Type)
	dst = appendOptional(dst, "subject", c.Subject)
	if c.Time == "" {
		c.Time = m.Time.UTC().Format(TimeFormat)
	}
	dst = appendText(dst, "time", c.Time)
	dst = appendOptional(dst, "datacontenttype", c.DataContentType)
	dst = appendOptional(dst, "dataschema", c.DataSchema)
	dst = appendText(dst, attributePartitionKey, m.Publication.EntityKey())
	dst = appendText(dst, attributeSequence, Sequence{Commit: m.Sequence, Index: 1}.String())
	traced := false
	for _, extension := range c.Extensions {
		switch extension.Name {
		case attributePartitionKey, attributeSequence, attributeSequenceType:
			continue
		case attributeTraceParent:
			traced = true
		}
		dst = append(dst, `,"`...)
		dst = append(dst, extension.Name...)
		dst = append(dst, `":`...)
		dst = append(dst, extension.Value...)
	}
	if !traced {
		id := ApplicationID(m.Publication.Source, c.Source, c.ID)
		dst = append(dst, `,"traceparent":"`...)
		dst = appendTraceParent(dst, []byte(id))
		dst = append(dst, '"')
	}
	dst = appendMember(dst, `,"data":`, c.Data)
	dst = appendOptional(dst, "data_base64", c.DataBase64)
	return append(dst, '}')
}

func appendText(dst []byte, name, value string) []byte {
	dst = append(dst, `,"`...)
	dst = append(dst, name...)
	dst = append(dst, `":`...)
	return AppendString(dst, value)
}

func appendOptional(dst []byte, name, value string) []byte {
	if value == "" {
		return dst
	}
	return appendText(dst, name, value)
}

func validJSON(body []byte) error {
	if !utf8.Valid(body) {
		return fmt.Errorf("%w: the body is not UTF-8", ErrInvalid)
	}
	s := scanner{data: body}
	s.space()
	ok := s.value(maxDepth - 1) // one level less: the envelope is around it
	s.space()
	if !ok || s.pos < len(body) {
		return s.fault()
	}
	return nil
}

// claimsSpecVersion tells whether body is an object that has a specversion of text. Whether body is JSON throughout
// is not asked: what is broken behind it is broken as a CloudEvent.
func claimsSpecVersion(body []byte) bool {
	s := scanner{data: body}
	claims := false
	s.space()
	s.object(func(name span) bool {
		claims = s.peek() == '"' && name.String() == "specversion"
		return !claims && s.value(maxDepth-1)
	})
	return claims
}

func hasBinaryHeader(header map[string][]string) bool {
	for name := range header {
		if _, ok := cutFold(name, binaryPrefix); ok {
			return true
		}
	}
	return false
}

// contentType gives the Content-Type header, whose name may be in any case.
func contentType(header map[string][]string) string {
	found := ""
	for name, values := range header {
		for _, value := range values {
			if strings.EqualFold(name, "Content-Type") && value > found { // of several always the same
				found = value
			}
		}
	}
	return found
}

// mediaType gives a content type without its parameters, in lower case.
func mediaType(contentType string) string {
	media, _, _ := strings.Cut(contentType, ";")
	return strings.ToLower(strings.TrimSpace(media))
}

// cutFold cuts prefix from text, in any case.
func cutFold(text, prefix string) (string, bool) {
	if len(text) < len(prefix) || !strings.EqualFold(text[:len(prefix)], prefix) {
		return "", false
	}
	return text[len(prefix):], true
}
