package indexer_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/indexer"
	"github.com/tributary-dev/tributary/pkg/indexer/indextest"
	"github.com/tributary-dev/tributary/pkg/indexer/query"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func stored() time.Time { return time.Date(2026, 12, 1, 0, 0, 1, 5000, time.UTC) }

func document(t *testing.T, m indexer.Message) (indexer.Document, map[string]any) {
	t.Helper()
	d, err := indexer.NewDocument(m)
	if err != nil {
		t.Fatal(err)
	}
	var body map[string]any
	decoder := json.NewDecoder(bytes.NewReader(d.Body))
	decoder.UseNumber()
	if err := decoder.Decode(&body); err != nil {
		t.Fatalf("%v in %s", err, d.Body)
	}
	return d, body
}

func TestDocumentsAreAsTheGoldenFileHasThem(t *testing.T) {
	const golden = "testdata/documents.json"
	var got bytes.Buffer
	for _, m := range []indexer.Message{
		indextest.Row(1, events.OpInsert, "", `{"id":1,"status":"packed","total":19.90,"tags":["a",{"b":null}],"ok":true}`),
		indextest.Row(2, events.OpUpdate, `{"id":2,"status":"packed","city":"York"}`, `{"id":2,"status":"shipped","city":"York"}`),
		indextest.Row(3, events.OpDelete, `{"id":3}`, ""),
		indextest.Logical(4, "audit", `{"who":"ann"}`),
		indextest.Published(t, 1, stored(), "{\n  \"total\": 50\n}"),
		indextest.Published(t, 2, stored(), `[1,"two"]`),
	} {
		d, err := indexer.NewDocument(m)
		if err != nil {
			t.Fatal(err)
		}
		got.WriteString(d.ID + " " + d.Month + "\n")
		if err := json.Indent(&got, d.Body, "", "  "); err != nil {
			t.Fatal(err)
		}
		got.WriteString("\n\n")
	}
	if *update {
		if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("documents are not as in %s (-update rewrites it):\n%s", golden, diff)
	}
}

func TestDocumentsHaveOnlyFieldsThatCanBeAsked(t *testing.T) {
	known := map[string]bool{indexer.Envelope: true, "tx": true}
	for _, f := range query.Fields() {
		known[f.Name] = true
	}
	for _, m := range []indexer.Message{
		indextest.Row(2, events.OpUpdate, `{"id":2}`, `{"id":2,"x":"y"}`), indextest.Logical(4, "audit", `"text"`),
		indextest.Published(t, 1, stored(), `{"total":50}`),
	} {
		_, body := document(t, m)
		for name := range body {
			if !known[name] {
				t.Errorf("no query can ask for %s", name)
			}
		}
	}
}

func TestTheEnvelopeIsKeptByteForByte(t *testing.T) {
	for name, data := range map[string]string{
		"escapes":                    `{"a":"\u00e9 \" \\ \/ <&> \ud83d\ude00","é":1e400}`,
		"a long number":              `{"a":123456789012345678901234567890.1230}`,
		"space and line ends":        "{ \"a\" :\r\n [ 1 ,\n 2 ] }",
		"a name twice":               `{"a":1,"a":2}`,
		"half a pair of surrogates":  `{"a":"\ud800"}`,
		"deeper than an index takes": strings.Repeat(`{"a":`, 3000) + "1" + strings.Repeat("}", 3000),
	} {
		t.Run(name, func(t *testing.T) {
			m := indextest.Published(t, 1, stored(), data)
			d, body := document(t, m)
			if body[indexer.Envelope] != string(m.Data) {
				t.Errorf("got %s, want %s", body[indexer.Envelope], m.Data)
			}
			if !strings.Contains(string(m.Data), data) {
				t.Errorf("the envelope %s does not hold the data", m.Data)
			}
			if bytes.ContainsAny(d.Body, "\r\n") {
				t.Errorf("the document has more than one line: %q", d.Body)
			}
		})
	}
}

func TestWordsAreThoseOfValues(t *testing.T) {
	for name, c := range map[string]struct {
		message indexer.Message
		want    []string
	}{
		"of a new row":                  {indextest.Row(1, events.OpInsert, "", `{"id":1,"a":"x \" y","n":null,"t":true,"d":{"e":["z",-1.5e3]}}`), []string{"1", `x " y`, "z", "-1.5e3"}},
		"of an old row":                 {indextest.Row(1, events.OpDelete, `{"id":1,"a":"x"}`, ""), []string{"1", "x"}},
		"of what an update changed too": {indextest.Row(1, events.OpUpdate, `{"id":1,"a":"x","b":"y"}`, `{"id":1,"a":"z","b":"y"}`), []string{"1", "z", "y", "x"}},
		"of a key that changed":         {indextest.Row(1, events.OpUpdate, `{"id":1}`, `{"a":"z","id":2}`), []string{"z", "2", "1"}},
		"of a column that is gone":      {indextest.Row(1, events.OpUpdate, `{"a":"q","id":1}`, `{"id":1}`), []string{"1", "q"}},
		"of a logical message":          {indextest.Logical(1, "audit", `{"who":"ann"}`), []string{"audit", "ann"}},
		"of an application":             {indextest.Published(t, 1, stored(), `{"a" : "x", "b": ""}`), []string{"x"}},
		"of a text":                     {indextest.Published(t, 1, stored(), `"x"`), []string{"x"}},
		"none":                          {indextest.Published(t, 1, stored(), `{"x":{}}`), nil},
		"none of a null":                {indextest.Published(t, 1, stored(), `null`), nil},
	} {
		t.Run(name, func(t *testing.T) {
			_, body := document(t, c.message)
			var got []string
			list, _ := body["text"].([]any)
			for _, word := range list {
				got = append(got, word.(string))
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestObjectsThatAnIndexCannotTakeAreLeftOut(t *testing.T) {
	for name, c := range map[string]struct {
		row  string
		kept bool
	}{
		"a plain one":                  {`{"id":1,"a":[{"b":"x"}]}`, true},
		"one as deep as may be":        {`{"a":[[1]]}`, true},
		"one that is deeper":           {`{"a":[[[1]]]}`, false},
		"one with a long value":        {`{"a":"` + strings.Repeat("x", 21) + `"}`, false},
		"one with a long name":         {`{"` + strings.Repeat("x", 21) + `":1}`, false},
		"one with much in its strings": {`{"a":"[[[[","b":"\"{{{{"}`, true},
	} {
		t.Run(name, func(t *testing.T) {
			m := indextest.Row(1, events.OpInsert, "", c.row)
			d, whole := document(t, m)
			var body map[string]any
			if err := json.Unmarshal(d.Bounded(3, 20).Body, &body); err != nil {
				t.Fatal(err)
			}
			if _, kept := body["after"]; kept != c.kept {
				t.Errorf("after is kept: %v", kept)
			}
			if body[indexer.Envelope] != whole[indexer.Envelope] || len(body) < len(whole)-1 || body["key"] == nil {
				t.Errorf("the document has %v", body)
			}
		})
	}
}

func TestMonthIsOfTheRowAndOfTheStoringOfOthers(t *testing.T) {
	late := indextest.Row(1, events.OpInsert, "", `{"id":1}`)
	late.Stored = stored()
	mad := late
	mad.Data = bytes.ReplaceAll(mad.Data, []byte(`"time":"2026`), []byte(`"time":"8026`))
	for name, c := range map[string]struct {
		message indexer.Message
		want    string
	}{
		"a row that is stored a month later":            {late, "2026.11"},
		"a row whose clock is mad":                      {mad, "2026.12"},
		"an application's event with a time of its own": {indextest.Published(t, 1, stored(), `{"specversion":"1.0","id":"x","source":"/web","type":"t","time":"1999-01-01T00:00:00Z"}`), "2026.12"},
	} {
		if d, _ := document(t, c.message); d.Month != c.want {
			t.Errorf("%s belongs to %s, want %s", name, d.Month, c.want)
		}
	}
}

func TestTimesThatNoIndexTakesAreLeftOut(t *testing.T) {
	m := indextest.Published(t, 1, stored(), `{"specversion":"1.0","id":"x","source":"/web","type":"t","time":"9999-12-31T23:59:59-01:00"}`)
	if _, body := document(t, m); body["time"] != nil || body["stored"] == nil {
		t.Errorf("the document has the times %v and %v", body["time"], body["stored"])
	}
}

func TestIDsKeepApplicationsApart(t *testing.T) {
	first := indextest.Published(t, 1, stored(), `{"specversion":"1.0","id":"1","source":"/a","type":"t"}`)
	second := indextest.Published(t, 1, stored(), `{"specversion":"1.0","id":"1","source":"/b","type":"t"}`)
	one, body := document(t, first)
	other, _ := document(t, second)
	if one.ID == other.ID || body["effect_id"] != one.ID || body["id"] != "1" || body["ce_source"] != "/a" || body["source"] != "web" {
		t.Errorf("got %s and %s, and %v", one.ID, other.ID, body)
	}
}

func TestWhatIsNoEventIsRefused(t *testing.T) {
	good := indextest.Row(1, events.OpInsert, "", `{"id":1}`)
	for name, change := range map[string]func(*indexer.Message){
		"a foreign subject":    func(m *indexer.Message) { m.Subject = "events.x" },
		"broken JSON":          func(m *indexer.Message) { m.Data = m.Data[:20] },
		"no data":              func(m *indexer.Message) { m.Data = cutData(m.Data, "") },
		"data that is no row":  func(m *indexer.Message) { m.Data = cutData(m.Data, `,"data":5`) },
		"data without members": func(m *indexer.Message) { m.Data = cutData(m.Data, `,"data":{}`) },
	} {
		t.Run(name, func(t *testing.T) {
			m := good
			m.Data = slices.Clone(m.Data)
			change(&m)
			if _, err := indexer.NewDocument(m); !errors.Is(err, events.ErrInvalid) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func cutData(envelope []byte, instead string) []byte {
	i := bytes.Index(envelope, []byte(`,"data":`))
	return append(append(slices.Clone(envelope[:i]), instead...), '}')
}

func FuzzDocument(f *testing.F) {
	for _, data := range []string{`{"a":[1,{"b":"c\""}]}`, "[ ]", `"x"`, "5", `{"a" : {} }`, "{\n}"} {
		f.Add([]byte(data))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if !json.Valid(data) {
			return
		}
		envelope := append([]byte(`{"specversion":"1.0","id":"1","source":"/a","type":"t","partitionkey":"k","sequence":"0000000000000001.0000000001","data":`), data...)
		d, err := indexer.NewDocument(indexer.Message{Subject: "events.001.web.order.placed.message", Data: append(envelope, '}'), Stored: stored()})
		if err != nil {
			return // not UTF-8, or too deep
		}
		if !json.Valid(d.Body) || bytes.IndexByte(d.Body, '\n') >= 0 {
			t.Errorf("%q becomes %q", data, d.Body)
		}
	})
}
