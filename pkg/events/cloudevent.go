package events

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"mime"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// CloudEvent is a CloudEvents 1.0 event of an application, as it was published. Optional attributes are empty where
// there are none.
type CloudEvent struct {
	ID, Source, Type string
	Subject          string
	Time             string // RFC 3339, as it was written
	DataContentType  string
	DataSchema       string
	Extensions       []Extension     // sorted by name
	Data             json.RawMessage // as it was written; nil where there is none, or binary data
	DataBase64       string

	specVersion        string
	hasData, hasBase64 bool
}

// Extension is an attribute that CloudEvents itself does not define.
type Extension struct {
	Name  string
	Value json.RawMessage // a string, an integer of 32 bits, or a boolean
}

// maxEventID is the longest id of an application's event, in bytes.
const maxEventID = 1024

// ParseCloudEvent reads an event in structured mode, as JSON. It errors with ErrInvalid where the JSON or an attribute
// breaks the rules of CloudEvents 1.0, or an attribute comes twice.
func ParseCloudEvent(body []byte) (*CloudEvent, error) {
	if !utf8.Valid(body) {
		return nil, fmt.Errorf("%w: the body is not UTF-8", ErrInvalid)
	}
	var c CloudEvent
	var fault error
	s := scanner{data: body}
	seen := make(map[string]bool)
	s.space()
	whole := s.object(func(quoted span) bool {
		name, start := quoted.String(), s.pos
		if !s.value(maxDepth - 1) {
			return false
		}
		if seen[name] {
			fault = fmt.Errorf("%w: attribute %q is given twice", ErrInvalid, name)
			return false
		}
		seen[name] = true
		fault = c.member(name, body[start:s.pos:s.pos])
		return fault == nil
	})
	s.space()
	switch {
	case fault != nil:
		return nil, fault
	case !whole || s.pos < len(body):
		return nil, s.fault()
	case c.hasData && c.hasBase64:
		return nil, fmt.Errorf("%w: there are both data and data_base64", ErrInvalid)
	}
	return c.finish()
}

// member takes one member of structured mode; value is any JSON.
func (c *CloudEvent) member(name string, value []byte) error {
	isNull := string(value) == "null"
	switch {
	case name == "data":
		c.Data, c.hasData = value, true
		return nil
	case isNull: // as good as none
		return nil
	case name == "data_base64":
		c.hasBase64 = true
		if err := json.Unmarshal(value, &c.DataBase64); err != nil {
			return fmt.Errorf("%w: data_base64 is not a string", ErrInvalid)
		}
		if _, err := base64.StdEncoding.DecodeString(c.DataBase64); err != nil {
			return fmt.Errorf("%w: data_base64 is not base64", ErrInvalid)
		}
		return nil
	default:
		return c.set(name, value)
	}
}

// FromBinary reads an event in binary mode: attributes in ce- headers, in any case and percent-encoded, and data in
// the body. The data's content type is ce-datacontenttype, else Content-Type, else JSON. Data that is neither JSON nor
// text becomes base64. It errors like ParseCloudEvent.
func FromBinary(header map[string][]string, body []byte) (*CloudEvent, error) {
	var c CloudEvent
	seen := make(map[string]bool)
	for _, name := range slices.Sorted(maps.Keys(header)) { // so that of several faults always the same is told
		attribute, ok := cutFold(name, binaryPrefix)
		if !ok {
			continue
		}
		attribute = strings.ToLower(attribute)
		values := header[name]
		if seen[attribute] || len(values) != 1 {
			return nil, fmt.Errorf("%w: attribute %q is given twice", ErrInvalid, attribute)
		}
		seen[attribute] = true
		if attribute == "data" {
			return nil, fmt.Errorf("%w: the attribute data is not allowed", ErrInvalid)
		}
		text := percentDecode(values[0])
		if !utf8.ValidString(text) {
			return nil, fmt.Errorf("%w: attribute %q is not UTF-8", ErrInvalid, attribute)
		}
		if err := c.set(attribute, AppendString(nil, text)); err != nil {
			return nil, err
		}
	}
	if c.DataContentType == "" {
		c.DataContentType = contentType(header)
	}
	if _, err := c.finish(); err != nil || len(body) == 0 {
		return &c, err
	}
	switch media := mediaType(c.DataContentType); {
	case media == "" || strings.HasSuffix(media, "/json") || strings.HasSuffix(media, "+json"):
		c.Data = body
		return &c, validJSON(body)
	case strings.HasPrefix(media, "text/") && utf8.Valid(body):
		c.Data = AppendString(nil, body)
	default:
		c.DataBase64 = base64.StdEncoding.EncodeToString(body)
	}
	return &c, nil
}

// set takes one attribute; value is its JSON.
func (c *CloudEvent) set(name string, value []byte) error {
	if !validAttribute(name) {
		return fmt.Errorf("%w: attribute %q is not made of a-z and 0-9", ErrInvalid, name)
	}
	var text string
	isText := value[0] == '"'
	if isText {
		if err := json.Unmarshal(value, &text); err != nil {
			return fmt.Errorf("%w: attribute %q: %w", ErrInvalid, name, err)
		}
		if strings.ContainsFunc(text, unicode.IsControl) {
			return fmt.Errorf("%w: attribute %q holds a control character", ErrInvalid, name)
		}
	}
	field := c.field(name)
	switch {
	case field != nil && isText:
		*field = text
	case field != nil, name == attributeTraceParent && !isText:
		return fmt.Errorf("%w: attribute %q is not a string", ErrInvalid, name)
	case !isText && !isFlagOrInteger(value):
		return fmt.Errorf("%w: attribute %q is neither a string, an integer of 32 bits nor a boolean", ErrInvalid, name)
	default:
		c.Extensions = append(c.Extensions, Extension{name, value})
	}
	return nil
}

// field gives the place of an attribute that CloudEvents defines, nil for an extension.
func (c *CloudEvent) field(name string) *string {
	switch name {
	case "specversion":
		return &c.specVersion
	case "id":
		return &c.ID
	case "source":
		return &c.Source
	case "type":
		return &c.Type
	case "subject":
		return &c.Subject
	case "time":
		return &c.Time
	case "datacontenttype":
		return &c.DataContentType
	case "dataschema":
		return &c.DataSchema
	default:
		return nil
	}
}

func isFlagOrInteger(value []byte) bool {
	var number int32
	return value[0] == 't' || value[0] == 'f' || json.Unmarshal(value, &number) == nil
}

// finish checks what was collected, and brings it into order.
func (c *CloudEvent) finish() (*CloudEvent, error) {
	slices.SortFunc(c.Extensions, func(a, b Extension) int { return strings.Compare(a.Name, b.Name) })
	refuse := func(format string, args ...any) (*CloudEvent, error) {
		return nil, fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
	}
	if c.specVersion != SpecVersion {
		return refuse("specversion is %q, not %q", c.specVersion, SpecVersion)
	}
	required := []struct{ name, value string }{{"id", c.ID}, {"source", c.Source}, {"type", c.Type}}
	for _, r := range required {
		if strings.TrimSpace(r.value) == "" {
			return refuse("the %s is missing", r.name)
		}
	}
	if len(c.ID) > maxEventID {
		return refuse("the id has %d bytes, more than %d", len(c.ID), maxEventID)
	}
	if _, err := url.Parse(c.Source); err != nil {
		return refuse("source %q is not a URI reference", c.Source)
	}
	if c.Time != "" {
		if _, err := time.Parse(time.RFC3339Nano, c.Time); err != nil {
			return refuse("time %q is not a time of RFC 3339", c.Time)
		}
	}
	if c.DataContentType != "" {
		if _, _, err := mime.ParseMediaType(c.DataContentType); err != nil {
			return refuse("datacontenttype %q is not a media type", c.DataContentType)
		}
	}
	if c.DataSchema != "" {
		if schema, err := url.Parse(c.DataSchema); err != nil || !schema.IsAbs() {
			return refuse("dataschema %q is not an absolute URI", c.DataSchema)
		}
	}
	return c, nil
}

// validAttribute tells whether name matches [a-z0-9]+.
func validAttribute(name string) bool {
	for i := range len(name) {
		if c := name[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}

// percentDecode undoes the encoding of header values, once. What is no escape stays, as not every sender encodes.
func percentDecode(text string) string {
	if !strings.Contains(text, "%") {
		return text
	}
	var dst []byte
	for i := 0; i < len(text); i++ {
		if text[i] == '%' && i+2 < len(text) {
			upper := strings.ToUpper(text[i+1 : i+3])
			hi, okHi := unhex(upper[0])
			lo, okLo := unhex(upper[1])
			if okHi && okLo {
				dst = append(dst, hi<<4|lo)
				i += 2
				continue
			}
		}
		dst = append(dst, text[i])
	}
	return string(dst)
}
