package pgcdc

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

func compositeOf(types ...*Type) *Type {
	c := &Type{Name: "composite", kind: kindComposite, mutable: true}
	for i, t := range types {
		c.fields = append(c.fields, member{[]byte{'"', byte('a' + i), '"', ':'}, t})
	}
	return c
}

func TestCompositesAreObjects(t *testing.T) {
	number, text, texts := builtinTypes[23], builtinTypes[25], builtinTypes[1009]
	pair := compositeOf(number, text)
	pairs := &Type{kind: kindArray, elem: pair, delim: ','}
	for name, c := range map[string]struct {
		typ *Type
		valueCase
	}{
		"two fields":                 {pair, valueCase{text: "(1,x)", want: `{"a":1,"b":"x"}`}},
		"null and empty":             {compositeOf(text, text, text), valueCase{text: `(,"",)`, want: `{"a":null,"b":"","c":null}`}},
		"doubled quotes":             {pair, valueCase{text: `(1,"a ""b"" \\ (,)")`, want: `{"a":1,"b":"a \"b\" \\ (,)"}`}},
		"one null":                   {compositeOf(number), valueCase{text: "()", want: `{"a":null}`}},
		"no field":                   {compositeOf(), valueCase{text: "()", want: `{}`}},
		"one in another":             {compositeOf(pair, text), valueCase{text: `("(1,""a """"b"""""")",x)`, want: `{"a":{"a":1,"b":"a \"b\""},"b":"x"}`}},
		"an array in one":            {compositeOf(texts), valueCase{text: `("{a,""b c"",NULL}")`, want: `{"a":["a","b c",null]}`}},
		"an array of them":           {pairs, valueCase{text: `{"(1,\"a \"\"b\"\" \\\\\\\\\")",NULL,"(,)"}`, want: `[{"a":1,"b":"a \"b\" \\\\"},null,{"a":null,"b":null}]`}},
		"a field that isn't decoded": {pair, valueCase{text: "(x,y)", want: `{"a":"x","b":"y"}`, notOK: true}},
		"a field less":               {pair, valueCase{text: "(1)", want: `"(1)"`, notOK: true}},
		"a field more":               {pair, valueCase{text: "(1,2,3)", want: `"(1,2,3)"`, notOK: true}},
		"fields where there is none": {compositeOf(), valueCase{text: "(1)", want: `"(1)"`, notOK: true}},
		"no parentheses":             {pair, valueCase{text: "1,2", want: `"1,2"`, notOK: true}},
		"no closing parenthesis":     {pair, valueCase{text: "(1,2", want: `"(1,2"`, notOK: true}},
		"no closing quote":           {pair, valueCase{text: `(1,"a"")`, want: `"(1,\"a\"\")"`, notOK: true}},
		"more behind the end":        {pair, valueCase{text: "(1,2)3", want: `"(1,2)3"`, notOK: true}},
		"nothing":                    {pair, valueCase{text: "", want: `""`, notOK: true}},
	} {
		t.Run(name, func(t *testing.T) { checkValue(t, c.typ, c.valueCase) })
	}
}

func FuzzComposite(f *testing.F) {
	for _, seed := range []string{"()", `(1,x)`, `(1,"a ""b"" \\")`, `("(1,""a"")",)`, `("{""(1,\\""a\\"")""}",x)`} {
		f.Add([]byte(seed))
	}
	pair := compositeOf(builtinTypes[23], builtinTypes[25])
	types := []*Type{compositeOf(), compositeOf(builtinTypes[25]), pair, compositeOf(&Type{kind: kindArray, elem: pair, delim: ','}, pair)}
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, typ := range types {
			checkAnyText(t, typ, text)
		}
	})
}

// FuzzTextsSurviveQuoting puts texts into an array of composites as PostgreSQL does, and reads them out of the JSON.
func FuzzTextsSurviveQuoting(f *testing.F) {
	f.Add("a", `"\`, "")
	f.Add("{,}", "(,)", "\n\x00 NULL")
	doubled := strings.NewReplacer(`"`, `""`, `\`, `\\`)
	escaped := strings.NewReplacer(`"`, `\"`, `\`, `\\`)
	text := builtinTypes[25]
	list := &Type{kind: kindArray, delim: ',', elem: compositeOf(text, &Type{kind: kindHstore}, builtinTypes[1009])}
	f.Fuzz(func(t *testing.T, a, b, c string) {
		if !utf8.ValidString(a) || !utf8.ValidString(b) || !utf8.ValidString(c) {
			t.Skip("no text of a database in UTF-8")
		}
		hstore := `"` + escaped.Replace(a) + `"=>"` + escaped.Replace(b) + `"`
		texts := `{"` + escaped.Replace(b) + `",NULL,"` + escaped.Replace(c) + `"}`
		composite := `("` + doubled.Replace(a) + `","` + doubled.Replace(hstore) + `","` + doubled.Replace(texts) + `")`
		out, ok := list.AppendValue(nil, []byte(`{"`+escaped.Replace(composite)+`",NULL}`))
		var got []*struct {
			A string
			B map[string]string
			C []*string
		}
		if err := json.Unmarshal(out, &got); err != nil || !ok {
			t.Fatalf("%v, %v: %s", err, ok, out)
		}
		if len(got) != 2 || got[1] != nil || got[0].A != a || got[0].B[a] != b || len(got[0].B) != 1 ||
			len(got[0].C) != 3 || *got[0].C[0] != b || got[0].C[1] != nil || *got[0].C[2] != c {
			t.Errorf("%q, %q, %q became %s", a, b, c, out)
		}
	})
}
