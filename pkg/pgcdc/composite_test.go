package pgcdc

import "testing"

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
