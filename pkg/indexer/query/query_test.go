package query

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var (
	entity  = Field{"entity", Keyword}
	op      = Field{"op", Keyword}
	after   = Field{"after", Object}
	status  = Field{"after.status", Value}
	txID    = Field{"tx.id", Number}
	when    = Field{"time", Time}
	textual = Field{"text", Text}
)

func now() time.Time { return time.Date(2026, 11, 23, 8, 45, 53, 123456789, time.UTC) }

func ms(text string) int64 {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		panic(err)
	}
	return t.UnixMilli()
}

func word(text string) Node {
	return Or{[]Node{Term{textual, text}, Term{Field{"id", Keyword}, text}, Term{Field{"effect_id", Keyword}, text},
		Term{Field{"partitionkey", Keyword}, text}, Term{entity, text}}}
}

func TestQueriesAreReadAsTheyAreMeant(t *testing.T) {
	update, orders := Term{op, "update"}, Term{entity, "public.orders"}
	for text, want := range map[string]Node{
		"":                                   All{},
		"  ":                                 All{},
		"*":                                  All{},
		"op:update":                          update,
		" op:update ":                        update,
		"op:update entity:public.orders":     And{[]Node{update, orders}},
		"op:update AND entity:public.orders": And{[]Node{update, orders}},
		"op:update && entity:public.orders":  And{[]Node{update, orders}},
		"op:update OR entity:public.orders":  Or{[]Node{update, orders}},
		"op:update || entity:public.orders":  Or{[]Node{update, orders}},
		"NOT op:update":                      Not{update},
		"-op:update":                         Not{update},
		"entity:public.orders -op:update":    And{[]Node{orders, Not{update}}},
		"entity:public.orders AND NOT (op:update)": And{[]Node{orders, Not{update}}},
		"shipped op:update OR packed":              Or{[]Node{And{[]Node{word("shipped"), update}}, word("packed")}},
		"shipped (op:update OR packed)":            And{[]Node{word("shipped"), Or{[]Node{update, word("packed")}}}},
		"(shipped)":                                word("shipped"),
		`"two words"`:                              word("two words"),
		`"a \"quoted\" \\ word"`:                   word(`a "quoted" \ word`),
		`"a * in quotes"`:                          word("a * in quotes"),
		`"OR"`:                                     word("OR"),
		"ORDER":                                    word("ORDER"),
		"public.orders/42":                         word("public.orders/42"),
		`a\:b`:                                     word("a:b"),
		`partitionkey:public.orders/42`:            Term{Field{"partitionkey", Keyword}, "public.orders/42"},
		`ce_source:"/tributary/shop"`:              Term{Field{"ce_source", Keyword}, "/tributary/shop"},
		"op:(update OR delete)":                    Or{[]Node{update, Term{op, "delete"}}},
		"op:(update -delete)":                      And{[]Node{update, Not{Term{op, "delete"}}}},
		"op:(update)":                              update,
		"op:(update) shipped":                      And{[]Node{update, word("shipped")}},
		"after:shipped":                            Term{after, "shipped"},
		"after.status:shipped":                     Term{status, "shipped"},
		"after.a.b:c":                              Term{Field{"after.a.b", Value}, "c"},
		`after.a\:b:c`:                             Term{Field{"after.a:b", Value}, "c"},
		"after.status:ship*":                       Prefix{status, "ship"},
		"after:sh*d":                               Wildcard{after, "sh*d"},
		"after.status:*":                           Exists{status},
		"time:*":                                   Exists{when},
		"op:[* TO *]":                              Exists{op},
		"type:tributary.row.*":                     Prefix{Field{"type", Keyword}, "tributary.row."},
		"entity:public.*s":                         Wildcard{entity, "public.*s"},
		`entity:a\*b?`:                             Wildcard{entity, `a\*b?`},
		`entity:a\*b`:                              Term{entity, "a*b"},
		"text:SHIP*":                               Prefix{textual, "ship"},
		"text:SH*D":                                Wildcard{textual, "sh*d"},
		"text:Shipped":                             Term{textual, "Shipped"},
		"tx.id:771":                                IntRange{txID, 771, 771},
		"tx.id:>771":                               IntRange{txID, 772, math.MaxInt64},
		"tx.id:>=771":                              IntRange{txID, 771, math.MaxInt64},
		"tx.id:<771":                               IntRange{txID, math.MinInt64, 770},
		"tx.id:<=771":                              IntRange{txID, math.MinInt64, 771},
		"tx.id:[1 TO 5]":                           IntRange{txID, 1, 5},
		"tx.id:{1 TO 5}":                           IntRange{txID, 2, 4},
		"tx.id:[ 1 TO 5 }":                         IntRange{txID, 1, 4},
		"tx.id:[1 TO *]":                           IntRange{txID, 1, math.MaxInt64},
		"tx.last:true":                             Term{Field{"tx.last", Bool}, "true"},
		"after.city:[a TO n}":                      TextRange{Field{"after.city", Value}, &Bound{"a", true}, &Bound{"n", false}},
		`after.city:>"New York"`:                   TextRange{Field{"after.city", Value}, &Bound{"New York", false}, nil},
		"sequence:<0000000016B37488":               TextRange{Field{"sequence", Keyword}, nil, &Bound{"0000000016B37488", false}},
		"time:2026":                                TimeRange{when, ms("2026-01-01T00:00:00Z"), ms("2027-01-01T00:00:00Z")},
		"time:2026-02":                             TimeRange{when, ms("2026-02-01T00:00:00Z"), ms("2026-03-01T00:00:00Z")},
		"time:2026-11-23":                          TimeRange{when, ms("2026-11-23T00:00:00Z"), ms("2026-11-24T00:00:00Z")},
		"time:2026-11-23T08":                       TimeRange{when, ms("2026-11-23T08:00:00Z"), ms("2026-11-23T09:00:00Z")},
		"time:2026-11-23T08:45":                    TimeRange{when, ms("2026-11-23T08:45:00Z"), ms("2026-11-23T08:46:00Z")},
		"time:2026-11-23T08:45:53Z":                TimeRange{when, ms("2026-11-23T08:45:53Z"), ms("2026-11-23T08:45:54Z")},
		"time:2026-11-23T09:45:53+01:00":           TimeRange{when, ms("2026-11-23T08:45:53Z"), ms("2026-11-23T08:45:54Z")},
		`time:"2026-11-23 08:45:53"`:               TimeRange{when, ms("2026-11-23T08:45:53Z"), ms("2026-11-23T08:45:54Z")},
		"time:2026-11-23T08:45:53.123456Z":         TimeRange{when, ms("2026-11-23T08:45:53.123Z"), ms("2026-11-23T08:45:53.124Z")},
		"time:[2026-11-01 TO 2026-11-23]":          TimeRange{when, ms("2026-11-01T00:00:00Z"), ms("2026-11-24T00:00:00Z")},
		"time:{2026-11-01 TO 2026-11-23}":          TimeRange{when, ms("2026-11-02T00:00:00Z"), ms("2026-11-23T00:00:00Z")},
		"time:>now-1h":                             TimeRange{when, ms("2026-11-23T07:45:53.124Z"), math.MaxInt64},
		"time:>=now-1d":                            TimeRange{when, ms("2026-11-22T08:45:53.123Z"), math.MaxInt64},
		"time:<=now":                               TimeRange{when, math.MinInt64, ms("2026-11-23T08:45:53.124Z")},
		"time:(>now-1h OR 2025)": Or{[]Node{
			TimeRange{when, ms("2026-11-23T07:45:53.124Z"), math.MaxInt64}, TimeRange{when, ms("2025-01-01T00:00:00Z"), ms("2026-01-01T00:00:00Z")}}},
	} {
		t.Run(text, func(t *testing.T) {
			got, err := Parse(text, now())
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				t.Errorf("%v %s", err, diff)
			}
		})
	}
}

func TestWhatNoIndexWouldUnderstandIsRefused(t *testing.T) {
	for text, want := range map[string]struct {
		position int
		words    string
	}{
		"foo:bar":                 {1, `there is no field "foo"`},
		"op:update foo:bar":       {11, `there is no field "foo"`},
		"after.:x":                {1, "there is no field"},
		"op:":                     {4, "a value for op is missing"},
		"op: update":              {4, "a value for op is missing"},
		"(op:update":              {1, "this ( has no )"},
		"op:update)":              {10, "there is no ( for this"},
		"()":                      {2, "something to look for is missing"},
		"op:update OR":            {13, "something to look for is missing"},
		"AND op:update":           {1, "nothing stands before this"},
		"NOT":                     {4, "something to look for is missing"},
		"NOT NOT op:update":       {9, "negated twice"},
		`"open`:                   {1, "this quote has no end"},
		`open\`:                   {6, "a character is missing behind the backslash"},
		"tx.id:abc":               {7, `a whole number is due here, got "abc"`},
		"tx.id:7*":                {7, "can't be matched with *"},
		"tx.last:yes":             {9, "true or false"},
		"tx.last:[a TO b]":        {9, "no ranges of tx.last"},
		"text:[a TO b]":           {6, "no ranges of text"},
		"time:yesterday":          {6, "a time such as"},
		"time:now-1y":             {6, "now-15m"},
		"time:now-":               {6, "now-15m"},
		"time:[2026 TO":           {14, "a value is missing"},
		"time:[2026 2027]":        {12, "TO is missing"},
		"time:[2026 TO 2027":      {6, "this range has no ]"},
		"after.total:[10 TO 20]":  {14, "compared as texts"},
		"after.total:>10":         {14, "compared as texts"},
		"after.status:sh*d":       {14, "only a beginning"},
		"after.status:s?":         {14, "only a beginning"},
		`op*:x`:                   {1, "no quotes and no *"},
		strings.Repeat("(", 102):  {102, "nest"},
		strings.Repeat("a ", 201): {401, "more than 200 parts"},
	} {
		t.Run(text, func(t *testing.T) {
			_, err := Parse(text, now())
			var wrong *Error
			if !errors.As(err, &wrong) {
				t.Fatalf("got %v", err)
			}
			if wrong.Position != want.position || !strings.Contains(wrong.Message, want.words) {
				t.Errorf("got %v, want character %d, %s", err, want.position, want.words)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{`a OR b`, `op:(a -b)`, `time:[now-1d TO *}`, `"x\"" after.a:b*`, `(((`, "a\\", "\xff:\x00"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		node, err := Parse(text, now())
		var wrong *Error
		if err != nil && !errors.As(err, &wrong) {
			t.Errorf("the error is %T", err)
		}
		if (node == nil) != (err != nil) {
			t.Errorf("got %v and %v", node, err)
		}
		if wrong != nil && (wrong.Position < 1 || wrong.Position > len([]rune(text))+1) {
			t.Errorf("position %d of %q", wrong.Position, text)
		}
	})
}
