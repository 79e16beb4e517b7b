package pgcdc

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

func builtinNamed(t testing.TB, name string) *Type {
	t.Helper()
	for _, typ := range builtinTypes {
		if typ.Name == name {
			return typ
		}
	}
	t.Fatalf("no built-in type %s", name)
	return nil
}

type valueCase struct {
	typ   string
	text  string
	want  string
	notOK bool
}

func testValues(t *testing.T, cases map[string]valueCase) {
	for name, c := range cases {
		t.Run(name, func(t *testing.T) { checkValue(t, builtinNamed(t, c.typ), c) })
	}
}

// checkValue writes the value behind bytes that must stay.
func checkValue(t *testing.T, typ *Type, c valueCase) {
	t.Helper()
	const before = `{"a":`
	text := []byte(c.text)
	out, ok := typ.AppendValue([]byte(before), text)
	if string(text) != c.text {
		t.Errorf("the text was changed to %q", text)
	}
	got, found := strings.CutPrefix(string(out), before)
	if !found {
		t.Fatalf("what stood before is lost: %q", out)
	}
	if got != c.want || ok == c.notOK {
		t.Errorf("%s of %q = %s, %v; want %s, %v", c.typ, c.text, got, ok, c.want, !c.notOK)
	}
	if !json.Valid([]byte(got)) {
		t.Errorf("not JSON: %s", got)
	}
}

func TestScalarsAreWrittenAsRowToJSONDoes(t *testing.T) {
	testValues(t, map[string]valueCase{
		"true":                          {typ: "bool", text: "t", want: "true"},
		"false":                         {typ: "bool", text: "f", want: "false"},
		"another bool is text":          {typ: "bool", text: "true", want: `"true"`, notOK: true},
		"an empty bool is text":         {typ: "bool", text: "", want: `""`, notOK: true},
		"int2":                          {typ: "int2", text: "-32768", want: "-32768"},
		"int8 beyond 2^53":              {typ: "int8", text: "9223372036854775807", want: "9223372036854775807"},
		"float8 in its shortest form":   {typ: "float8", text: "0.1", want: "0.1"},
		"float8 with exponent":          {typ: "float8", text: "1.7976931348623157e+308", want: "1.7976931348623157e+308"},
		"negative zero":                 {typ: "float8", text: "-0", want: "-0"},
		"float8 NaN is a string":        {typ: "float8", text: "NaN", want: `"NaN"`},
		"float4 infinity is a string":   {typ: "float4", text: "-Infinity", want: `"-Infinity"`},
		"numeric keeps its zeros":       {typ: "numeric", text: "19.9000", want: "19.9000"},
		"numeric of many digits":        {typ: "numeric", text: strings.Repeat("9", 200) + ".01", want: strings.Repeat("9", 200) + ".01"},
		"numeric infinity is a string":  {typ: "numeric", text: "Infinity", want: `"Infinity"`},
		"a number that is none is text": {typ: "int4", text: "01", want: `"01"`, notOK: true},
		"an empty number is text":       {typ: "int4", text: "", want: `""`, notOK: true},
		"text is escaped":               {typ: "text", text: "a\"b\\c\n\x01/é😀", want: `"a\"b\\c\n\u0001/é😀"`},
		"an empty text":                 {typ: "text", text: "", want: `""`},
		"text that is not UTF-8":        {typ: "text", text: "a\xffb", want: "\"a\uFFFDb\"", notOK: true},
		"oid is a string":               {typ: "oid", text: "26", want: `"26"`},
		"money is a string":             {typ: "money", text: "$1,234.50", want: `"$1,234.50"`},
		"bytea is a string":             {typ: "bytea", text: `\x00ff`, want: `"\\x00ff"`},
		"jsonb goes through as it is":   {typ: "jsonb", text: `{"a": 12345678901234567890.10}`, want: `{"a": 12345678901234567890.10}`},
		"json keeps its space":          {typ: "json", text: " [1 ,\n2] ", want: " [1 ,\n2] "},
		"JSON null is not SQL's":        {typ: "jsonb", text: "null", want: "null"},
		"json that is none is text":     {typ: "json", text: `{"a":}`, want: `"{\"a\":}"`, notOK: true},
		"jsonb in UTF-8 only":           {typ: "jsonb", text: "\"\xff\"", want: "\"\\\"\uFFFD\\\"\"", notOK: true},
		"json as deep as readers go":    {typ: "json", text: nested(maxDepth), want: nested(maxDepth)},
		"json deeper than readers go":   {typ: "json", text: nested(maxDepth + 1), want: `"` + nested(maxDepth+1) + `"`, notOK: true},
		"intervals are text":            {typ: "interval", text: "1 year -2 days +03:04:05.6", want: `"1 year -2 days +03:04:05.6"`},
		"a range is text":               {typ: "tsrange", text: `["2024-01-01 00:00:00",)`, want: `"[\"2024-01-01 00:00:00\",)"`},
	})
}

func nested(depth int) string { return strings.Repeat("[", depth) + strings.Repeat("]", depth) }

func TestTypeThatIsNotKnownIsTextAndCounted(t *testing.T) {
	checkValue(t, &Type{kind: kindUnknown}, valueCase{text: `a "b"`, want: `"a \"b\""`, notOK: true})
}

func TestHstoreIsAnObjectOfStrings(t *testing.T) {
	hstore := &Type{kind: kindHstore}
	for name, c := range map[string]valueCase{
		"empty":                   {text: "", want: "{}"},
		"pairs":                   {text: `"a"=>"1", "b"=>NULL, "c"=>"NULL"`, want: `{"a":"1","b":null,"c":"NULL"}`},
		"escapes":                 {text: `"a\"\\"=>"\"=>\", \\"`, want: `{"a\"\\":"\"=>\", \\"}`},
		"empty key and value":     {text: `""=>""`, want: `{"":""}`},
		"no value":                {text: `"a"=>`, want: `"\"a\"=>"`, notOK: true},
		"no quotes":               {text: `a=>1`, want: `"a=>1"`, notOK: true},
		"a comma at the end":      {text: `"a"=>"1", `, want: `"\"a\"=>\"1\", "`, notOK: true},
		"a quote without end":     {text: `"a"=>"1\"`, want: `"\"a\"=>\"1\\\""`, notOK: true},
		"bytes that aren't UTF-8": {text: "\"a\"=>\"\xff\"", want: "{\"a\":\"\uFFFD\"}", notOK: true},
	} {
		t.Run(name, func(t *testing.T) { checkValue(t, hstore, c) })
	}
}

func FuzzHstore(f *testing.F) {
	for _, seed := range []string{"", `"a"=>"1", "b"=>NULL`, `"a\"\\"=>"\"=>\", \\"`, `"a"=>`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) { checkAnyText(t, &Type{kind: kindHstore}, text) })
}

func FuzzJSON(f *testing.F) {
	for _, seed := range []string{`{"a":[1,-2.5e+3,"\u00e9\n",true,false,null]}`, `[01]`, `{"a" : {}}`, `"\x"`, `1.`, "[1,]"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if validJSON(text) && !json.Valid(text) {
			t.Errorf("held for JSON: %q", text)
		}
		if json.Valid(text) && !validJSON(text) && bytes.Equal(text, bytes.ToValidUTF8(text, nil)) {
			t.Errorf("not held for JSON: %q", text)
		}
		checkAnyText(t, builtinTypes[114], text)
	})
}

// checkAnyText checks what holds for every type and every text.
func checkAnyText(t *testing.T, typ *Type, text []byte) {
	t.Helper()
	kept := bytes.Clone(text)
	out, _ := typ.AppendValue([]byte("x"), text)
	if !bytes.Equal(text, kept) {
		t.Errorf("%s: the text %q was changed to %q", typ.Name, kept, text)
	}
	if len(out) < 2 || out[0] != 'x' || !json.Valid(out[1:]) {
		t.Errorf("%s of %q is not JSON: %q", typ.Name, text, out)
	}
	if roomy, _ := typ.AppendValue(append(make([]byte, 0, 4096), 'x'), text); !bytes.Equal(roomy, out) {
		t.Errorf("%s of %q depends on the room for it: %q, %q", typ.Name, text, out, roomy)
	}
}

func BenchmarkAppendValue(b *testing.B) {
	pair := &Type{kind: kindComposite, fields: []member{{[]byte(`"a":`), builtinTypes[23]}, {[]byte(`"b":`), builtinTypes[25]}}}
	for _, c := range []struct {
		name string
		typ  *Type
		text string
	}{
		{"bool", builtinTypes[16], "t"},
		{"int8", builtinTypes[20], "1234567890123"},
		{"numeric", builtinTypes[1700], "12345.6700"},
		{"text of 30", builtinTypes[25], "The quick brown fox jumps over"},
		{"text of 1k", builtinTypes[25], strings.Repeat("The quick brown fox jumps over. ", 32)},
		{"uuid", builtinTypes[2950], "7c1b2f0e-5a1d-4a6e-9d5f-0a1b2c3d4e5f"},
		{"timestamptz", builtinTypes[1184], "2026-11-23 08:45:53.123456+00"},
		{"date", builtinTypes[1082], "2026-11-23"},
		{"jsonb of 100", builtinTypes[3802], `{"id": 42, "name": "carrier", "tags": ["a", "b", "c"], "price": 19.90, "open": true, "note": null}`},
		{"jsonb of 1k", builtinTypes[3802], `[` + strings.Repeat(`{"id": 42, "name": "carrier"}, `, 32) + `1]`},
		{"int4 array", builtinTypes[1007], "{1,2,3,4,5,6,7,8}"},
		{"text array with escapes", builtinTypes[1009], `{a,"b c","d \"e\"",NULL}`},
		{"composite", pair, `(1,"a ""b""")`},
	} {
		b.Run(c.name, func(b *testing.B) {
			text := []byte(c.text)
			dst := make([]byte, 0, 4096)
			b.ReportAllocs()
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				if _, ok := c.typ.AppendValue(dst, text); !ok {
					b.Fatal("not written")
				}
			}
		})
	}
}

func TestAppendValueDoesNotAllocate(t *testing.T) {
	dst := make([]byte, 0, 4096)
	for name, text := range map[string]string{
		"bool": "t", "int4": "42", "numeric": "1.50", "text": "a \"quoted\" text", "uuid": "7c1b2f0e-5a1d-4a6e-9d5f-0a1b2c3d4e5f",
		"timestamptz": "2026-11-23 08:45:53.123456+00", "timestamp": "2026-11-23 08:45:53", "date": "2026-11-23", "jsonb": `{"a": [1, "b"]}`,
		"_text": `{a,"b \"c\"",NULL}`, "int2vector": "1 2",
	} {
		typ, text := builtinNamed(t, name), []byte(text)
		if n := testing.AllocsPerRun(100, func() { typ.AppendValue(dst, text) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
