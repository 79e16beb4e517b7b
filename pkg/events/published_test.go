package events_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"

	"github.com/tributary-dev/tributary/pkg/events"
)

// published is a message of the billing application.
func published(header map[string][]string, body string) events.Published {
	return events.Published{
		Publication: events.Publication{Source: "billing", Entity: "invoice", Type: "paid", Key: "7/a"},
		Header:      header, Body: []byte(body), ID: "msg-1", Sequence: 255, Time: time.Date(2026, 11, 23, 9, 45, 53, 123_456_789, time.FixedZone("", 3600)),
	}
}

const (
	ours       = `"partitionkey":"invoice/7%2Fa","sequence":"00000000000000FF.0000000001",`
	stored     = `"time":"2026-11-23T08:45:53.123456Z",`
	plainTrace = `"traceparent":"00-d86db0db2795c029e933a78246cea8d9-a2b9c07866713b1e-01",`
	trace      = `"traceparent":"00-78b42c600d416c1754059fd4ca6f123b-30c86e6049cb9ac6-01",`
	head       = `{"specversion":"1.0","id":"7","source":"https://billing.example","type":"invoice.paid",`
)

var structured = map[string][]string{"Content-Type": {"application/cloudevents+json; charset=utf-8"}}

// binary gives the headers of a CloudEvent in binary mode, edited by pairs of names and values.
func binary(pairs ...string) map[string][]string {
	header := map[string][]string{"ce-specversion": {"1.0"}, "ce-id": {"7"}, "ce-source": {"https://billing.example"}, "ce-type": {"invoice.paid"}}
	for i := 0; i < len(pairs); i += 2 {
		header[pairs[i]] = []string{pairs[i+1]}
	}
	return header
}

func TestAppendPublished(t *testing.T) {
	const plain = `{"specversion":"1.0","id":"msg-1","source":"/tributary/billing","type":"invoice.paid","subject":"invoice/7%2Fa",` + stored +
		`"datacontenttype":"application/json",` + ours + plainTrace
	event := head[:len(head)-1]
	cases := map[string]struct {
		header     map[string][]string
		body, want string
	}{
		"plain JSON is wrapped":                  {nil, ` {"n": 1.50, "n": 2} `, plain + `"data": {"n": 1.50, "n": 2} }`},
		"a number too":                           {nil, `42`, plain + `"data":42}`},
		"whatever its content type":              {map[string][]string{"Content-Type": {"text/plain"}}, `"text"`, plain + `"data":"text"}`},
		"a specversion of another kind is data":  {nil, `{"specversion":2}`, plain + `"data":{"specversion":2}}`},
		"a specversion further down is data":     {nil, `{"a":{"specversion":"1.0"}}`, plain + `"data":{"a":{"specversion":"1.0"}}}`},
		"a specversion in another case is data":  {nil, `{"SpecVersion":"1.0"}`, plain + `"data":{"SpecVersion":"1.0"}}`},
		"a CloudEvent by its content type":       {structured, event + `}`, head + stored + ours + trace[:len(trace)-1] + `}`},
		"or the shorter content type of the SDK": {map[string][]string{"content-type": {"Application/CloudEvents"}}, event + `}`, head + stored + ours + trace[:len(trace)-1] + `}`},
		"a CloudEvent by its specversion":        {nil, event + `,"data":{"n": 1}}`, head + stored + ours + trace + `"data":{"n": 1}}`},
		"as JSON of an application":              {map[string][]string{"Content-Type": {"application/json"}}, event + `,"data":null}`, head + stored + ours + trace + `"data":null}`},
		"a specversion written with escapes":     {nil, strings.Replace(event, "specversion", `\u0073pecversion`, 1) + `}`, head + stored + ours + trace[:len(trace)-1] + `}`},
		"all attributes are kept": {
			structured,
			event + `,"data":[],"subject":"s","time":"2020-01-01T00:00:00+02:00","datacontenttype":"application/vnd.x+json","dataschema":"https://s.example/1"}`,
			head + `"subject":"s","time":"2020-01-01T00:00:00+02:00","datacontenttype":"application/vnd.x+json","dataschema":"https://s.example/1",` + ours + trace + `"data":[]}`,
		},
		"extensions are kept, by name": {
			structured, event + `,"zebra":"\u00fc\"","ant":-2147483648,"bee":true,"none":null}`,
			head + stored + ours + `"ant":-2147483648,"bee":true,"zebra":"\u00fc\"",` + trace[:len(trace)-1] + `}`,
		},
		"ours are overridden": {
			structured, event + `,"partitionkey":"x","sequence":"1","sequencetype":"Integer"}`, head + stored + ours + trace[:len(trace)-1] + `}`,
		},
		"a trace is kept": {
			structured, event + `,"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}`,
			head + stored + ours + `"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}`,
		},
		"binary data is kept":        {structured, event + `,"data_base64":"AP8="}`, head + stored + ours + trace + `"data_base64":"AP8="}`},
		"binary mode":                {binary("Content-Type", "application/json"), `{"n":1}`, head + stored + `"datacontenttype":"application/json",` + ours + trace + `"data":{"n":1}}`},
		"binary mode without a type": {binary(), `{"n":1}`, head + stored + ours + trace + `"data":{"n":1}}`},
		"binary mode without data":   {binary(), ``, head + stored + ours + trace[:len(trace)-1] + `}`},
		"binary mode, text":          {binary("Content-Type", "text/plain; charset=utf-8"), "a\"ü", head + stored + `"datacontenttype":"text/plain; charset=utf-8",` + ours + trace + `"data":"a\"ü"}`},
		"binary mode, broken text":   {binary("Content-Type", "text/plain"), "\xff", head + stored + `"datacontenttype":"text/plain",` + ours + trace + `"data_base64":"/w=="}`},
		"binary mode, other data":    {binary("Content-Type", "image/png"), "\x00\xff", head + stored + `"datacontenttype":"image/png",` + ours + trace + `"data_base64":"AP8="}`},
		"binary mode, type of its own": {
			binary("ce-datacontenttype", "application/x+json", "Content-Type", "text/plain"), "1", head + stored + `"datacontenttype":"application/x+json",` + ours + trace + `"data":1}`,
		},
		"binary mode with names in any case, and escapes": {
			map[string][]string{"CE-SpecVersion": {"1.0"}, "Ce-Id": {"7"}, "ce-Source": {"https://billing.example"}, "CE-TYPE": {"invoice.paid"}, "Ce-Note": {"100% %C3%bc%25"}},
			`1`, head + stored + ours + `"note":"100% ü%",` + trace + `"data":1}`,
		},
		"headers go before a body that looks like one": {binary(), event + `}`, head + stored + ours + trace + `"data":` + event + `}}`},
		"the content type goes before headers": {
			map[string][]string{"Content-Type": {events.ContentType}, "ce-id": {"other"}}, event + `}`, head + stored + ours + trace[:len(trace)-1] + `}`,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := events.AppendPublished([]byte("before"), published(c.header, c.body))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff("before"+c.want, string(got)); diff != "" {
				t.Error(diff)
			}
			checkPublished(t, published(c.header, c.body))
		})
	}
}

func TestAppendPublishedRefuses(t *testing.T) {
	event := head[:len(head)-1]
	without := func(name string) map[string][]string {
		header := binary()
		delete(header, name)
		return header
	}
	typed := func(contentType string) map[string][]string {
		return map[string][]string{"Content-Type": {contentType}}
	}
	long := strings.Repeat("x", 1025)
	cases := map[string]struct {
		header     map[string][]string
		body, says string
	}{
		"a body that is no JSON":           {nil, `{"n":`, "the JSON ends early"},
		"an empty body":                    {nil, ``, "the JSON ends early"},
		"two values":                       {nil, `1 2`, "the JSON is broken at byte 2"},
		"JSON that is not UTF-8":           {nil, "\"\xff\"", "not UTF-8"},
		"JSON as deep as an abyss":         {nil, strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000), "broken at byte 9999"},
		"a source of ours":                 {structured, strings.Replace(event, "https://billing.example", "/tributary/shop", 1) + `}`, "may not claim a source in /tributary/"},
		"a source of ours in escapes":      {nil, strings.Replace(event, "https://billing.example", `\u002ftributary/shop`, 1) + `}`, "may not claim"},
		"a source of ours in binary mode":  {binary("ce-source", "/tributary/shop"), `1`, "may not claim"},
		"one behind percent-encoding":      {binary("ce-source", "%2Ftributary/shop"), `1`, "may not claim"},
		"another specversion":              {nil, strings.Replace(event, "1.0", "0.3", 1) + `}`, `specversion is "0.3"`},
		"no specversion":                   {structured, `{"id":"7","source":"s","type":"t"}`, `specversion is "", not "1.0"`},
		"no object":                        {structured, `[` + event + `}]`, "broken at byte 0"},
		"a broken object":                  {structured, event, "the JSON ends early"},
		"something behind the object":      {structured, event + `}}`, "broken at byte"},
		"no id":                            {nil, strings.Replace(event, `"id":"7",`, "", 1) + `}`, "the id is missing"},
		"an id that is null":               {nil, strings.Replace(event, `"7"`, "null", 1) + `}`, "the id is missing"},
		"an id of spaces":                  {nil, strings.Replace(event, `"7"`, `" "`, 1) + `}`, "the id is missing"},
		"an id that is a number":           {nil, strings.Replace(event, `"7"`, `7`, 1) + `}`, `attribute "id" is not a string`},
		"an id of more than a kilobyte":    {nil, strings.Replace(event, `"7"`, `"`+long+`"`, 1) + `}`, "the id has 1025 bytes, more than 1024"},
		"an id with a control character":   {nil, strings.Replace(event, `"7"`, `"\u0000"`, 1) + `}`, `attribute "id" holds a control character`},
		"no source":                        {nil, strings.Replace(event, `"https://billing.example"`, `""`, 1) + `}`, "the source is missing"},
		"a source that is no URI":          {nil, strings.Replace(event, "https://billing.example", `%zz`, 1) + `}`, `source "%zz" is not a URI reference`},
		"no type":                          {nil, strings.Replace(event, `"type"`, `"kind"`, 1) + `}`, "the type is missing"},
		"an attribute given twice":         {nil, event + `,"id":"8"}`, `attribute "id" is given twice`},
		"an attribute in upper case":       {nil, event + `,"Subject":"s"}`, `attribute "Subject" is not made of a-z and 0-9`},
		"an attribute with a line":         {nil, event + `,"my_note":"s"}`, `attribute "my_note" is not made of`},
		"an attribute without a name":      {nil, event + `,"":"s"}`, `attribute "" is not made of`},
		"an attribute that is an object":   {nil, event + `,"note":{}}`, `attribute "note" is neither`},
		"an attribute that is a fraction":  {nil, event + `,"note":1.5}`, `attribute "note" is neither`},
		"an attribute beyond 32 bits":      {nil, event + `,"note":2147483648}`, `attribute "note" is neither`},
		"a trace that is no text":          {nil, event + `,"traceparent":1}`, `attribute "traceparent" is not a string`},
		"a time that is none":              {nil, event + `,"time":"yesterday"}`, `time "yesterday" is not a time of RFC 3339`},
		"a content type that is none":      {nil, event + `,"datacontenttype":"/"}`, `datacontenttype "/" is not a media type`},
		"a relative schema":                {nil, event + `,"dataschema":"a/b"}`, `dataschema "a/b" is not an absolute URI`},
		"data of both kinds":               {nil, event + `,"data":1,"data_base64":"AA=="}`, "both data and data_base64"},
		"data that is no base64":           {nil, event + `,"data_base64":"?"}`, "data_base64 is not base64"},
		"data that is no text of base64":   {nil, event + `,"data_base64":1}`, "data_base64 is not a string"},
		"a batch":                          {typed("application/cloudevents-batch+json"), `[]`, `"application/cloudevents-batch+json" is not supported`},
		"another format":                   {typed("application/cloudevents+protobuf"), `1`, "is not supported"},
		"binary mode without an id":        {without("ce-id"), `1`, "the id is missing"},
		"binary mode without a version":    {without("ce-specversion"), `1`, `specversion is ""`},
		"binary mode with data in headers": {binary("ce-data", "1"), `1`, "the attribute data is not allowed"},
		"binary mode with a bad name":      {binary("ce-my_note", "1"), `1`, `attribute "my_note" is not made of`},
		"binary mode with a name twice":    {binary("Ce-Id", "8"), `1`, `attribute "id" is given twice`},
		"binary mode with two values":      {map[string][]string{"ce-id": {"1", "2"}}, `1`, `attribute "id" is given twice`},
		"binary mode with broken text":     {binary("ce-note", "%FF"), `1`, `attribute "note" is not UTF-8`},
		"binary mode with a line end":      {binary("ce-note", "%0A"), `1`, `attribute "note" holds a control character`},
		"binary mode with broken JSON":     {binary("Content-Type", "application/json"), `{`, "the JSON ends early"},
		"binary mode, no JSON, no type":    {binary(), `text`, "the JSON is broken at byte 1"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			for range 3 { // the reason must not depend on the order of a map
				got, err := events.AppendPublished([]byte("before"), published(c.header, c.body))
				if !errors.Is(err, events.ErrInvalid) || !strings.Contains(err.Error(), c.says) {
					t.Errorf("error is %v, want ErrInvalid with %q", err, c.says)
				}
				if string(got) != "before" {
					t.Errorf("something was appended: %s", got)
				}
			}
		})
	}
}

func TestAppendPublishedRefusesIDsAndTypesThatBreakTheRules(t *testing.T) {
	for name, edit := range map[string]func(m *events.Published){
		"no id":                      func(m *events.Published) { m.ID = "" },
		"a long id":                  func(m *events.Published) { m.ID = strings.Repeat("x", 1025) },
		"an id that is not UTF-8":    func(m *events.Published) { m.ID = "\xff" },
		"a type that is not UTF-8":   func(m *events.Published) { m.Publication.Type = "\xff" },
		"an entity with a line end":  func(m *events.Published) { m.Publication.Entity = "a\nb" },
		"a type with a control code": func(m *events.Published) { m.Publication.Type = "\x00" },
	} {
		t.Run(name, func(t *testing.T) {
			m := published(nil, "1")
			edit(&m)
			if _, err := events.AppendPublished(nil, m); !errors.Is(err, events.ErrInvalid) {
				t.Errorf("error is %v, want ErrInvalid", err)
			}
		})
	}
}

func TestEveryPublicationHasItsOwnTrace(t *testing.T) {
	seen := make(map[string]bool)
	for _, source := range []string{"billing", "shop"} {
		m := published(nil, "1")
		m.Publication.Source = source
		envelope, err := events.AppendPublished(nil, m)
		if err != nil {
			t.Fatal(err)
		}
		e, err := events.Parse(envelope)
		if err != nil || !traceparent.MatchString(e.TraceParent) || seen[e.TraceParent] {
			t.Errorf("%s: traceparent %q, %v", source, e.TraceParent, err)
		}
		seen[e.TraceParent] = true
	}
}

func FuzzAppendPublished(f *testing.F) {
	event := head[:len(head)-1]
	for _, body := range []string{``, `1`, `{"a":[]}`, event + `}`, event + `,"data":{"n":1},"time":"2020-01-01T00:00:00Z","x":1}`, event + `,"data_base64":"AP8=","dataschema":"urn:x"}`} {
		f.Add("", "", "", []byte(body))
		f.Add(events.ContentType, "", "", []byte(body))
		f.Add("text/plain", "ce-id", "7", []byte(body))
		f.Add("image/png", "Ce-Time", "2020-01-01T00:00:00Z", []byte(body))
	}
	f.Fuzz(func(t *testing.T, contentType, name, value string, body []byte) {
		header := map[string][]string{"Content-Type": {contentType}}
		if strings.HasPrefix(strings.ToLower(name), "ce-") {
			header = binary("Content-Type", contentType, name, value)
		}
		m := published(header, string(body))
		if _, err := events.AppendPublished(nil, m); err != nil {
			if !errors.Is(err, events.ErrInvalid) {
				t.Errorf("error is %v, not ErrInvalid", err)
			}
			return
		}
		checkPublished(t, m)
	})
}

// checkPublished holds the envelope of a message that is not refused against Parse and against the SDK.
func checkPublished(t *testing.T, m events.Published) {
	t.Helper()
	envelope, err := events.AppendPublished(nil, m)
	if err != nil {
		t.Fatal(err)
	}
	copied := m
	copied.Header = maps.Clone(m.Header)
	if again, _ := events.AppendPublished(nil, copied); !bytes.Equal(envelope, again) {
		t.Errorf("two readings differ:\n%s\n%s", envelope, again)
	}
	if !json.Valid(envelope) {
		t.Fatalf("the envelope is no JSON: %s", envelope)
	}
	parsed, err := events.Parse(envelope)
	if err != nil {
		t.Fatalf("%s: %v", envelope, err)
	}
	if parsed.PartitionKey != m.Publication.EntityKey() || parsed.Sequence != (events.Sequence{Commit: m.Sequence, Index: 1}) || parsed.Time.IsZero() {
		t.Errorf("parsed %+v", parsed)
	}
	if foreign := parsed.Source != "/tributary/"+m.Publication.Source; foreign && strings.HasPrefix(parsed.Source, events.SourcePrefix) {
		t.Errorf("the source %s was claimed", parsed.Source)
	}
	var e cloudevents.Event
	if err := json.Unmarshal(forSDK(t, envelope), &e); err != nil {
		t.Fatalf("%s: %v", envelope, err)
	}
	if err := e.Validate(); err != nil {
		t.Errorf("%s: %v", envelope, err)
	}
	if e.ID() != parsed.ID || e.Type() != parsed.Type || e.Subject() != parsed.Subject {
		t.Errorf("the SDK reads %s, we read %+v", e, parsed)
	}
}

// forSDK takes the data out of an envelope where the SDK does not follow the specification: it knows only
// application/json and text/json as JSON, not +json, and wants a string as data of every other type.
func forSDK(t *testing.T, envelope []byte) []byte {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(envelope, &members); err != nil {
		t.Fatal(err)
	}
	if members["datacontenttype"] == nil || string(members["datacontenttype"]) == `"application/json"` {
		return envelope
	}
	delete(members, "data")
	rest, err := json.Marshal(members)
	if err != nil {
		t.Fatal(err)
	}
	return rest
}
