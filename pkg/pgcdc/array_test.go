package pgcdc

import "testing"

func TestArraysNest(t *testing.T) {
	testValues(t, map[string]valueCase{
		"empty":                       {typ: "_int4", text: "{}", want: "[]"},
		"numbers and null":            {typ: "_int4", text: "{1,NULL,-3}", want: "[1,null,-3]"},
		"the text NULL is no null":    {typ: "_text", text: `{"NULL",NULL,null}`, want: `["NULL",null,"null"]`},
		"quotes and escapes":          {typ: "_text", text: `{"a b","c\"d\\e","{,}",""}`, want: `["a b","c\"d\\e","{,}",""]`},
		"three dimensions":            {typ: "_int4", text: "{{{1,2}},{{3,NULL}}}", want: "[[[1,2]],[[3,null]]]"},
		"lower bounds":                {typ: "_int4", text: "[0:1]={5,6}", want: "[5,6]"},
		"lower bounds of two":         {typ: "_int4", text: "[-1:0][2:2]={{5},{6}}", want: "[[5],[6]]"},
		"boxes, between semicolons":   {typ: "_box", text: "{(1,1),(0,0);(2,2),(1,1)}", want: `["(1,1),(0,0)","(2,2),(1,1)"]`},
		"points, quoted":              {typ: "_point", text: `{"(1,2)","(3,4)"}`, want: `["(1,2)","(3,4)"]`},
		"timestamps":                  {typ: "_timestamptz", text: `{"2026-11-23 08:45:53+00",infinity}`, want: `["2026-11-23T08:45:53+00:00","infinity"]`},
		"documents":                   {typ: "_jsonb", text: `{"{\"a\": \"\\\\\"}",null,NULL}`, want: `[{"a": "\\"},null,null]`},
		"bools":                       {typ: "_bool", text: "{t,f}", want: "[true,false]"},
		"int2vector":                  {typ: "int2vector", text: "1 2 3", want: "[1,2,3]"},
		"oidvector":                   {typ: "oidvector", text: "23 25", want: `["23","25"]`},
		"an empty vector":             {typ: "oidvector", text: "", want: "[]"},
		"vectors":                     {typ: "_int2vector", text: `{"1 2",3,""}`, want: "[[1,2],[3],[]]"},
		"one element is not decoded":  {typ: "_int4", text: "{1,x}", want: `[1,"x"]`, notOK: true},
		"seven dimensions are text":   {typ: "_int4", text: "{{{{{{{1}}}}}}}", want: `"{{{{{{{1}}}}}}}"`, notOK: true},
		"no closing brace":            {typ: "_int4", text: "{1", want: `"{1"`, notOK: true},
		"no closing quote":            {typ: "_text", text: `{"a\"}`, want: `"{\"a\\\"}"`, notOK: true},
		"more behind the end":         {typ: "_int4", text: "{1}2", want: `"{1}2"`, notOK: true},
		"nothing between commas":      {typ: "_int4", text: "{1,,2}", want: `"{1,,2}"`, notOK: true},
		"bounds alone":                {typ: "_int4", text: "[0:1]", want: `"[0:1]"`, notOK: true},
		"nothing":                     {typ: "_int4", text: "", want: `""`, notOK: true},
		"a vector with a space alone": {typ: "int2vector", text: "1 ", want: `"1 "`, notOK: true},
	})
}

func FuzzArray(f *testing.F) {
	for _, seed := range []string{"{}", "{1,NULL}", `{{"a\"","b"},{c,""}}`, "[0:1]={1,2}", "1 2", "{(1,1),(0,0);(2,2),(1,1)}", `{"1 2",3}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, name := range []string{"_int4", "_text", "_jsonb", "_box", "_timestamptz", "int2vector", "_oidvector"} {
			checkAnyText(t, builtinNamed(t, name), text)
		}
	})
}
