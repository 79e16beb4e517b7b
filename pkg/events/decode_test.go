package events_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tributary-dev/tributary/pkg/events"
)

const minimal = `{"specversion":"1.0","id":"i","source":"s","type":"t","partitionkey":"k","sequence":"0000000000000001.0000000002"}`

// with gives the minimal envelope with more members.
func with(members string) string { return strings.TrimSuffix(minimal, "}") + "," + members + "}" }

func TestParse(t *testing.T) {
	parsed := func(edit func(e *events.Event)) *events.Event {
		e := &events.Event{ID: "i", Source: "s", Type: "t", PartitionKey: "k", Sequence: events.Sequence{Commit: 1, Index: 2}}
		edit(e)
		return e
	}
	same := func(*events.Event) {}
	cases := map[string]struct {
		envelope string
		want     *events.Event
	}{
		"the least":                        {minimal, parsed(same)},
		"space everywhere":                 {" \t\r\n" + strings.NewReplacer("{", "{ ", ":", " : ", ",", " ,\n", "}", " }").Replace(minimal) + "\n", parsed(same)},
		"extensions of any kind":           {with(`"a":1,"b":[null,true,{"id":"x"}],"c":{"id":"x"}`), parsed(same)},
		"names in another case":            {with(`"ID":"x","Data":1`), parsed(same)},
		"null for none":                    {with(`"subject":null,"time":null`), parsed(same)},
		"the last of a name":               {with(`"id":"last"`), parsed(func(e *events.Event) { e.ID = "last" })},
		"a name with escapes":              {with(`"\u0069d":"last"`), parsed(func(e *events.Event) { e.ID = "last" })},
		"a value with escapes":             {with(`"id":"\"\\\/\b\f\n\r\t\u00fc\ud83c\udf89"`), parsed(func(e *events.Event) { e.ID = "\"\\/\b\f\n\r\tü🎉" })},
		"half a surrogate":                 {with(`"id":"\ud83c"`), parsed(func(e *events.Event) { e.ID = "\uFFFD" })},
		"a broken byte":                    {with("\"id\":\"\xff\""), parsed(func(e *events.Event) { e.ID = "\uFFFD" })},
		"subject and partition key differ": {with(`"subject":"other"`), parsed(func(e *events.Event) { e.Subject = "other" })},
		"subject and partition key agree":  {with(`"subject":"k"`), parsed(func(e *events.Event) { e.Subject = "k" })},
		"a time with an offset": {with(`"time":"2026-11-23T09:45:53.5+01:00"`), parsed(func(e *events.Event) {
			e.Time = time.Date(2026, 11, 23, 8, 45, 53, 500_000_000, time.UTC)
		})},
		"data as it is written": {with(`"data": {"n": 1.50, "n": 2} `), parsed(func(e *events.Event) { e.Data = json.RawMessage(`{"n": 1.50, "n": 2}`) })},
		"data that is null":     {with(`"data":null`), parsed(func(e *events.Event) { e.Data = json.RawMessage(`null`) })},
		"other attributes": {with(`"datacontenttype":"text/plain","traceparent":"00"`), parsed(func(e *events.Event) {
			e.DataContentType, e.TraceParent = "text/plain", "00"
		})},

		"nothing":                    {"", nil},
		"no object":                  {`[` + minimal + `]`, nil},
		"two objects":                {minimal + minimal, nil},
		"an object cut off":          {minimal[:len(minimal)-1], nil},
		"a comma too many":           {with(``), nil},
		"no specversion":             {strings.Replace(minimal, "specversion", "x", 1), nil},
		"another specversion":        {strings.Replace(minimal, "1.0", "0.3", 1), nil},
		"no id":                      {strings.Replace(minimal, `"id"`, `"x"`, 1), nil},
		"an empty id":                {with(`"id":""`), nil},
		"an id taken back":           {with(`"id":null`), nil},
		"an id that is a number":     {with(`"id":1`), nil},
		"no source":                  {with(`"source":""`), nil},
		"no type":                    {with(`"type":""`), nil},
		"no partition key":           {with(`"partitionkey":""`), nil},
		"no sequence":                {with(`"sequence":""`), nil},
		"a sequence in lower case":   {with(`"sequence":"000000000000000a.0000000001"`), nil},
		"a sequence that is a count": {with(`"sequence":1`), nil},
		"a time that is none":        {with(`"time":"yesterday"`), nil},
		"a traceparent that is none": {with(`"traceparent":{}`), nil},
		"data that is broken":        {with(`"data":{"n":01}`), nil},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := events.Parse([]byte(c.envelope))
			if c.want == nil {
				if !errors.Is(err, events.ErrInvalid) || got != nil {
					t.Fatalf("got %+v, %v; want ErrInvalid", got, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseNestsAsDeepAsEncodingJSON(t *testing.T) {
	const limit = 10_000
	nested := func(depth int) []byte {
		return []byte(with(`"data":` + strings.Repeat("[", depth-1) + strings.Repeat("]", depth-1)))
	}
	for depth, want := range map[int]bool{limit: true, limit + 1: false} {
		_, err := events.Parse(nested(depth))
		if valid := json.Valid(nested(depth)); valid != want || want != (err == nil) {
			t.Errorf("depth %d: encoding/json says %v, Parse %v", depth, valid, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, change := range changes() {
		f.Add(events.AppendChange(nil, change))
	}
	for _, members := range []string{
		`"data":[1,-0,0.5e+7,1E-2,"\u00e9",true,false,null,{}]`, `"data":01`, `"data":-`, `"data":1.`, `"data":1e`, `"data":tru`, `"data":"\x"`, `"data":"\u12g4"`,
		"\"data\":\"\\u\x111\x11\x11\"", `"data":[1,]`, `"data":{"a"}`, `"data":{"a":1,}`, "\"data\":\"\t\"", "\"data\":\"\x7f\xff\"", `"\u0069d":"\ud800"`, `"data":.5`, `"data":+1`,
	} {
		f.Add([]byte(with(members)))
	}
	f.Fuzz(func(t *testing.T, envelope []byte) {
		got, err := events.Parse(envelope)
		if err != nil && !errors.Is(err, events.ErrInvalid) {
			t.Errorf("error is %v, not ErrInvalid", err)
		}
		want := parseSlowly(envelope)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("encoding/json sees it otherwise (%v):\n%s", err, diff)
		}
		if got != nil {
			_, _ = got.Row() // must not panic, whatever the data is
		}
	})
}

// parseSlowly is Parse by encoding/json; nil is an error.
func parseSlowly(envelope []byte) *events.Event {
	var members map[string]json.RawMessage
	if json.Unmarshal(envelope, &members) != nil || members == nil {
		return nil
	}
	text := make(map[string]string)
	for _, name := range []string{"specversion", "id", "source", "type", "subject", "time", "datacontenttype", "partitionkey", "sequence", "traceparent"} {
		var s string
		if raw, ok := members[name]; ok && json.Unmarshal(raw, &s) != nil {
			return nil
		}
		text[name] = s
	}
	sequence, err := events.ParseSequence(text["sequence"])
	if err != nil || text["specversion"] != "1.0" || text["id"] == "" || text["source"] == "" || text["type"] == "" || text["partitionkey"] == "" {
		return nil
	}
	var at time.Time
	if text["time"] != "" {
		if at, err = time.Parse(time.RFC3339Nano, text["time"]); err != nil {
			return nil
		}
	}
	return &events.Event{
		ID: text["id"], Source: text["source"], Type: text["type"], Subject: text["subject"], Time: at, DataContentType: text["datacontenttype"],
		PartitionKey: text["partitionkey"], Sequence: sequence, TraceParent: text["traceparent"], Data: members["data"],
	}
}

func TestRowRefusesWhatIsNoChange(t *testing.T) {
	for name, data := range map[string]string{
		"no data":          ``,
		"another data":     `"text"`,
		"no op":            `{}`,
		"an unknown op":    `{"op":"merge"}`,
		"a key in a wrong": `{"op":"insert","changed":"status"}`,
		"null":             `null`,
	} {
		t.Run(name, func(t *testing.T) {
			e := events.Event{ID: "i", Data: json.RawMessage(data)}
			if row, err := e.Row(); !errors.Is(err, events.ErrInvalid) || row != nil {
				t.Errorf("got %+v, %v; want ErrInvalid", row, err)
			}
		})
	}
}
