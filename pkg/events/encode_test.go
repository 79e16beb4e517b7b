package events_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	cloudevents "github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tributary-dev/tributary/pkg/events"
)

var update = flag.Bool("update", false, "write the golden files")

func TestAppendChangeGivesTheDesignsExample(t *testing.T) {
	const want = `{"specversion":"1.0","id":"shop-1-0000000016B37488-771-3","source":"/tributary/shop","type":"tributary.row.update.v1",` +
		`"subject":"public.orders/42","time":"2026-11-23T08:45:53.123456Z","datacontenttype":"application/json",` +
		`"partitionkey":"public.orders/42","sequence":"0000000016B37488.0000000003","traceparent":"00-5bb30558a2e67803b682edd317b8a0ca-9ee5a1e6c99c66c4-01",` +
		`"data":{"op":"update","schema":"public","table":"orders","key":{"id":42},` +
		`"before":{"id":42,"status":"packed","total":19.90},"after":{"id":42,"status":"shipped","total":19.90},` +
		`"changed":["status"],` +
		`"tx":{"id":771,"commit_lsn":"0/16B37488","index":3,"last":true}}}`
	if diff := cmp.Diff(want, string(events.AppendChange(nil, example()))); diff != "" {
		t.Error(diff)
	}
}

// changes has one of every kind.
func changes() map[string]*events.Change {
	kind := func(edit func(c *events.Change)) *events.Change {
		c := example()
		edit(c)
		return c
	}
	outside := func(c *events.Change) { c.InTransaction, c.XID, c.Commit, c.Last = false, 0, 0, false }
	message := func(c *events.Change) {
		c.Op, c.Schema, c.Table, c.Key, c.Before, c.After, c.Changed = events.OpMessage, "", "", nil, nil, nil, nil
		c.Prefix, c.Content = "billing.invoice", []byte(`{"invoice":7}`)
	}
	return map[string]*events.Change{
		"insert": kind(func(c *events.Change) { c.Op, c.Before, c.Changed = events.OpInsert, nil, nil }),
		"update": example(),
		"update-without-old-row": kind(func(c *events.Change) {
			c.Before, c.Changed, c.Unchanged, c.Last = nil, nil, []string{"photo", `quo"ted`}, false
		}),
		"update-of-nothing": kind(func(c *events.Change) { c.Changed = []string{} }),
		"delete":            kind(func(c *events.Change) { c.Op, c.After, c.Changed = events.OpDelete, nil, nil }),
		"truncate": kind(func(c *events.Change) {
			c.Op, c.Key, c.Before, c.After, c.Changed = events.OpTruncate, nil, nil, nil, nil
		}),
		"message":                   kind(message),
		"message-without-a-tx":      kind(func(c *events.Change) { message(c); outside(c); c.Content = []byte(`"plain text"`) }),
		"oversize":                  kind(func(c *events.Change) { c.Before, c.After, c.Changed, c.Oversize = nil, nil, nil, true }),
		"names-that-need-an-escape": kind(func(c *events.Change) { c.Schema, c.Table = "naïve schema", "a\"b\\c\nd" }),
		"snapshot": kind(func(c *events.Change) {
			outside(c)
			c.Op, c.Before, c.Changed = events.OpSnapshot, nil, nil
			c.ID = events.AppendSnapshotID(nil, "shop", 1, 0x16B37000, 16_385, c.PartitionKey)
		}),
		"partition-key-with-escapes": kind(func(c *events.Change) {
			c.PartitionKey = events.AppendEntityKey(nil, "public", "a.b", []byte("ü/"), nil)
		}),
	}
}

func TestAppendChangeKeepsItsBytes(t *testing.T) {
	for name, change := range changes() {
		t.Run(name, func(t *testing.T) {
			got := append(events.AppendChange(nil, change), '\n')
			path := filepath.Join("testdata", "envelopes", name+".json")
			if *update {
				if err := os.WriteFile(path, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("the envelope is not the golden one (-update writes it):\n%s", diff)
			}
		})
	}
}

var traceparent = regexp.MustCompile(`^00-[0-9a-f]{32}-[0-9a-f]{16}-01$`)

// The SDK of CloudEvents is the oracle for every envelope.
func TestAppendChangeGivesCloudEvents(t *testing.T) {
	for name, change := range changes() {
		t.Run(name, func(t *testing.T) {
			envelope := events.AppendChange(nil, change)
			var e cloudevents.Event
			if err := json.Unmarshal(envelope, &e); err != nil {
				t.Fatal(err)
			}
			if err := e.Validate(); err != nil {
				t.Error(err)
			}
			extensions := e.Extensions()
			if parent, _ := extensions["traceparent"].(string); !traceparent.MatchString(parent) {
				t.Errorf("traceparent is %q", parent)
			}
			delete(extensions, "traceparent")
			want := map[string]any{"partitionkey": string(change.PartitionKey), "sequence": change.Sequence.String()}
			if diff := cmp.Diff(want, extensions); diff != "" {
				t.Error(diff)
			}
			got := []string{e.ID(), e.Source(), e.Type(), e.Subject(), e.DataContentType(), e.Time().Format(time.RFC3339Nano)}
			if diff := cmp.Diff([]string{
				string(change.ID), "/tributary/shop", change.Op.Type(), string(change.PartitionKey), "application/json", "2026-11-23T08:45:53.123456Z",
			}, got); diff != "" {
				t.Error(diff)
			}
			checkParsed(t, envelope, change)
		})
	}
}

// checkParsed holds Parse and Row against the change that was encoded.
func checkParsed(t *testing.T, envelope []byte, c *events.Change) {
	t.Helper()
	e, err := events.Parse(envelope)
	if err != nil {
		t.Fatal(err)
	}
	if e.ID != string(c.ID) || e.PartitionKey != string(c.PartitionKey) || e.Sequence != c.Sequence || !e.Time.Equal(c.Time.Truncate(time.Microsecond)) {
		t.Errorf("parsed %+v", e)
	}
	row, err := e.Row()
	if err != nil {
		t.Fatal(err)
	}
	want := &events.Row{
		Op: c.Op, Schema: c.Schema, Table: c.Table, Key: c.Key, Before: c.Before, After: c.After, Changed: c.Changed,
		Unchanged: c.Unchanged, Oversize: c.Oversize, Prefix: c.Prefix, Content: c.Content,
	}
	if c.InTransaction {
		want.Tx = &events.Tx{ID: c.XID, CommitLSN: c.Commit.String(), Index: c.Sequence.Index, Last: c.Last}
	}
	if diff := cmp.Diff(want, row); diff != "" {
		t.Error(diff)
	}
}

func TestAppendChangeAllocatesNothing(t *testing.T) {
	for name, change := range changes() {
		dst := make([]byte, 0, 4096)
		if n := testing.AllocsPerRun(100, func() { dst = events.AppendChange(dst[:0], change) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func TestAppendChangeAppends(t *testing.T) {
	got := events.AppendChange([]byte("before"), example())
	if want := append([]byte("before"), events.AppendChange(nil, example())...); !bytes.Equal(got, want) {
		t.Errorf("got %s", got)
	}
}

func FuzzAppendString(f *testing.F) {
	for _, text := range []string{"", "plain", `"\`, "\x00\x1f\x7f", "\b\f\n\r\t", "ü☃🎉", "\xff\xc3(", "\u2028\u2029", "<&>", "\xed\xa0\x80"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) { checkString(t, text) })
}

func TestAppendStringAgreesWithEncodingJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { checkString(t, string(rapid.SliceOf(rapid.Byte()).Draw(t, "text"))) })
}

func checkString[T interface{ Errorf(string, ...any) }](t T, text string) {
	var want bytes.Buffer
	encoder := json.NewEncoder(&want)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(text); err != nil {
		t.Errorf("encode %q: %v", text, err)
	}
	got := events.AppendString(nil, text)
	var meant, wanted string
	if errGot, errWant := json.Unmarshal(got, &meant), json.Unmarshal(want.Bytes(), &wanted); errGot != nil || errWant != nil || meant != wanted {
		t.Errorf("%s means %q, %v; want %q, %v", got, meant, errGot, wanted, errWant)
	}
	// encoding/json escapes two line ends for the sake of JavaScript, and the replacement of a broken byte; PostgreSQL
	// and we do not.
	escaped := strings.NewReplacer("\u2028", `\u2028`, "\u2029", `\u2029`)
	if s := strings.TrimSuffix(want.String(), "\n"); utf8.ValidString(text) && escaped.Replace(string(got)) != s {
		t.Errorf("got %s, want %s", got, s)
	}
	if again := events.AppendString([]byte("before"), []byte(text)); string(again) != "before"+string(got) {
		t.Errorf("%q as bytes is %s, as a string %s", text, again, got)
	}
	if !utf8.Valid(got) {
		t.Errorf("%q is not UTF-8", got)
	}
}

func TestAppendStringFindsEachByteWhereverItStands(t *testing.T) {
	const length = 20 // words of eight, and what is left
	for c := range 256 {
		for i := range length {
			for _, around := range []byte{'x', ' ', '!', '#', '[', ']', 0x7f} { // beside those that are escaped
				text := bytes.Repeat([]byte{around}, length)
				text[i] = byte(c)
				checkString(t, string(text))
			}
		}
	}
}

func TestAppendTextTellsWhatWasNotUTF8(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.SliceOf(rapid.SampledFrom([]byte("x\"\n\xff\xc3\xbc\xed\xa0\x80"))).Draw(t, "text")
		if _, ok := events.AppendText(nil, text); ok != utf8.Valid(text) {
			t.Errorf("%q: %v", text, ok)
		}
	})
}
