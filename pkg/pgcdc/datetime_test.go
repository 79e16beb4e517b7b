package pgcdc

import "testing"

func TestDatesAndTimesAreISO8601(t *testing.T) {
	testValues(t, map[string]valueCase{
		"date":                       {typ: "date", text: "2026-11-23", want: `"2026-11-23"`},
		"date BC":                    {typ: "date", text: "0044-03-15 BC", want: `"0044-03-15 BC"`},
		"the last date":              {typ: "date", text: "5874897-12-31", want: `"5874897-12-31"`},
		"infinity":                   {typ: "date", text: "infinity", want: `"infinity"`},
		"timestamp":                  {typ: "timestamp", text: "2026-11-23 08:45:53", want: `"2026-11-23T08:45:53"`},
		"timestamp with fraction":    {typ: "timestamp", text: "2026-11-23 08:45:53.12", want: `"2026-11-23T08:45:53.12"`},
		"the first timestamp":        {typ: "timestamp", text: "4714-11-24 00:00:00 BC", want: `"4714-11-24T00:00:00 BC"`},
		"timestamp -infinity":        {typ: "timestamp", text: "-infinity", want: `"-infinity"`},
		"timestamptz":                {typ: "timestamptz", text: "2026-11-23 08:45:53.123456+00", want: `"2026-11-23T08:45:53.123456+00:00"`},
		"timestamptz BC":             {typ: "timestamptz", text: "0001-01-01 00:00:00+00 BC", want: `"0001-01-01T00:00:00+00:00 BC"`},
		"the last timestamptz":       {typ: "timestamptz", text: "294276-12-31 23:59:59.999999+00", want: `"294276-12-31T23:59:59.999999+00:00"`},
		"time stays as it is":        {typ: "time", text: "24:00:00", want: `"24:00:00"`},
		"timetz stays as it is":      {typ: "timetz", text: "08:45:53.1+05:30", want: `"08:45:53.1+05:30"`},
		"another DateStyle":          {typ: "date", text: "23.11.2026", want: `"23.11.2026"`, notOK: true},
		"another zone":               {typ: "timestamptz", text: "2026-11-23 08:45:53+01", want: `"2026-11-23 08:45:53+01"`, notOK: true},
		"a zone where none belongs":  {typ: "timestamp", text: "2026-11-23 08:45:53+00", want: `"2026-11-23 08:45:53+00"`, notOK: true},
		"a date without a time":      {typ: "timestamp", text: "2026-11-23", want: `"2026-11-23"`, notOK: true},
		"a date with something more": {typ: "date", text: "2026-11-23 AD", want: `"2026-11-23 AD"`, notOK: true},
		"a point without a fraction": {typ: "timestamp", text: "2026-11-23 08:45:53.", want: `"2026-11-23 08:45:53."`, notOK: true},
		"no text":                    {typ: "timestamptz", text: "", want: `""`, notOK: true},
	})
}

func FuzzDateTime(f *testing.F) {
	for _, seed := range []string{"2026-11-23 08:45:53.123456+00", "0044-03-15 BC", "-infinity", "5874897-12-31", "2026-11-23 08:45:5"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, name := range []string{"date", "timestamp", "timestamptz"} {
			checkAnyText(t, builtinNamed(t, name), text)
		}
	})
}
