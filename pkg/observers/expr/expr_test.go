package expr_test

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/tributary-dev/tributary/pkg/observers/expr"
)

// orderUpdate is the data of an update of 0.7 kB in a table with REPLICA IDENTITY FULL.
const orderUpdate = `{"op":"update","schema":"public","table":"orders","key":{"id":42},` +
	`"before":{"id":42,"status":"packed","total":19.90,"customer":7,"region":"eu-west","note":null,"email":"ada@shop.example","created_at":"2026-11-23T08:40:00.000001+00:00","big":9007199254740993},` +
	`"after":{"id":42,"status":"shipped","total":19.90,"customer":7,"region":"eu-west","note":null,"email":"ada@shop.example","created_at":"2026-11-23T08:40:00.000001+00:00","big":9007199254740993},` +
	`"changed":["status"],"tx":{"id":771,"commit_lsn":"0/16B37488","index":3,"last":true}}`

func input(op, data string) *expr.Input {
	envelope := `{"specversion":"1.0","id":"shop-1-0000000016B37488-771-3","source":"/tributary/shop","type":"tributary.row.` + op + `.v1",` +
		`"subject":"public.orders/42","time":"2026-11-23T08:45:53.123456Z","datacontenttype":"application/json",` +
		`"partitionkey":"public.orders/42","sequence":"0000000016B37488.0000000003","data":` + data + `}`
	return expr.NewInput(expr.Fields{Envelope: []byte(envelope), Data: []byte(data), Op: op, Row: op != "message"})
}

func environment(t testing.TB) *expr.Env {
	t.Helper()
	env, err := expr.NewEnv()
	if err != nil {
		t.Fatal(err)
	}
	return env
}

func condition(t testing.TB, text string) *expr.Condition {
	t.Helper()
	c, err := environment(t).CompileCondition(text)
	if err != nil {
		t.Fatalf("CompileCondition(%s): %v", text, err)
	}
	return c
}

const (
	orderInsert = `{"op":"insert","schema":"public","table":"orders","key":{"id":42},` +
		`"after":{"id":42,"status":"shipped","total":20,"note":null,"max":18446744073709551615,"items":[{"n":1},{"n":2}]}}`
	// orderDefault is an update under REPLICA IDENTITY DEFAULT: no old row.
	orderDefault  = `{"op":"update","schema":"public","table":"orders","key":{"id":42},"after":{"id":42,"status":"shipped"}}`
	orderOversize = `{"op":"update","schema":"public","table":"orders","key":{"id":42},"oversize":true}`
)

func TestConditions(t *testing.T) {
	tests := map[string]struct {
		op, data, when string
		want           bool
	}{
		"a field of the new row":                          {"update", orderUpdate, `after.status == "shipped"`, true},
		"a field of the old row":                          {"update", orderUpdate, `before.status == "shipped"`, false},
		"a field of the key":                              {"update", orderUpdate, `key.id == 42`, true},
		"the operation":                                   {"update", orderUpdate, `op in ["insert", "update"]`, true},
		"an attribute of the envelope":                    {"update", orderUpdate, `event.source == "/tributary/shop" && event.subject.startsWith("public.orders/")`, true},
		"data under the envelope":                         {"update", orderUpdate, `event.data.tx.last && event.data.after.id == 42`, true},
		"the time of the envelope":                        {"update", orderUpdate, `timestamp(event.time) > timestamp("2026-01-01T00:00:00Z")`, true},
		"a decimal beside an integer":                     {"update", orderUpdate, `after.total > 10`, true},
		"an integer beside a decimal":                     {"insert", orderInsert, `after.total > 19.5`, true},
		"an integer equals its decimal":                   {"insert", orderInsert, `after.total == 20.0`, true},
		"integers above 2^53 are exact":                   {"update", orderUpdate, `after.big == 9007199254740993 && after.big != 9007199254740992`, true},
		"integers above 2^63 are exact":                   {"insert", orderInsert, `after.max == 18446744073709551615u`, true},
		"an unsigned integer beside a small one":          {"insert", orderInsert, `after.max > 1`, true},
		"a column that is null":                           {"update", orderUpdate, `after.note == null`, true},
		"has is true for a column that is null":           {"update", orderUpdate, `has(after.note)`, true},
		"has is false for a column that is not there":     {"update", orderUpdate, `has(after.colour)`, false},
		"has is false without an old row":                 {"insert", orderInsert, `has(before.status)`, false},
		"has guards a look into the old row":              {"insert", orderInsert, `has(before.status) && before.status == "x"`, false},
		"no old row equals null":                          {"insert", orderInsert, `before == null`, true},
		"null equals no old row":                          {"insert", orderInsert, `null == before`, true},
		"an old row is not null":                          {"update", orderUpdate, `before != null`, true},
		"an optional look without an old row":             {"insert", orderInsert, `before.?status.orValue("none") == "none"`, true},
		"the envelope holds no before without an old row": {"insert", orderInsert, `has(event.data.before)`, false},
		"a list of objects":                               {"insert", orderInsert, `after.items.exists(i, i.n == 2) && size(after.items) == 2`, true},
		"changed column":                                  {"update", orderUpdate, `changed("status")`, true},
		"unchanged column":                                {"update", orderUpdate, `changed("total")`, false},
		"changed to the new value":                        {"update", orderUpdate, `changed_to("status", "shipped")`, true},
		"changed to another value":                        {"update", orderUpdate, `changed_to("status", "packed")`, false},
		"changed from the old value":                      {"update", orderUpdate, `changed_from("status", "packed")`, true},
		"changed from another value":                      {"update", orderUpdate, `changed_from("status", "shipped")`, false},
		"unchanged column, whatever its value":            {"update", orderUpdate, `changed_to("total", 19.90)`, false},
		"an insert changes nothing":                       {"insert", orderInsert, `changed("status") || changed_to("status", "shipped") || changed_from("status", "")`, false},
		"a message changes nothing":                       {"message", `{"after":{"status":"shipped"}}`, `changed("status")`, false},
		"a message has no row":                            {"message", `{"after":{"status":"shipped"}}`, `after == null && before == null && key == null`, true},
		"a message has data":                              {"message", `{"after":{"status":"shipped"}}`, `event.data.after.status == "shipped"`, true},
		"data that is no object":                          {"message", `[1,2,3]`, `event.data[1] == 2`, true},
		"a constant":                                      {"update", orderUpdate, `true`, true},
		"a value that is only known at run time":          {"update", orderUpdate, `event.data.tx.last`, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := condition(t, test.when).Eval(input(test.op, test.data))
			if err != nil || got != test.want {
				t.Errorf("%s = %t, %v, want %t", test.when, got, err, test.want)
			}
		})
	}
}

func TestConditionsThatFail(t *testing.T) {
	tests := map[string]struct{ op, data, when, want string }{
		"a missing field":                     {"update", orderUpdate, `after.colour == "red"`, "no such key: colour"},
		"no old row":                          {"insert", orderInsert, `before.status == "x"`, "no such key: status: this event (insert) has no before"},
		"no old row, by index":                {"insert", orderInsert, `before["status"] == "x"`, "no such key: status: this event (insert) has no before"},
		"no row in a message":                 {"message", `{}`, `after.id == 1`, "no such key: id: this event (message) has no after"},
		"kinds that do not compare":           {"update", orderUpdate, `after.status > 5`, "no such overload: string > int"},
		"null does not compare":               {"update", orderUpdate, `after.note > 5`, "no such overload: null_type > int"},
		"kinds that do not add up":            {"update", orderUpdate, `after.total * after.status > 1`, "no such overload: double * string"},
		"no bool at run time":                 {"update", orderUpdate, `after.status`, "a condition is true or false, this event gave a string"},
		"changed without the whole old row":   {"update", orderDefault, `changed("status")`, `changed("status"): the old row was not sent whole: ALTER TABLE public.orders REPLICA IDENTITY FULL`},
		"changed_to without the old row":      {"update", orderDefault, `changed_to("status", "x")`, `changed("status"): the old row was not sent whole: ALTER TABLE public.orders REPLICA IDENTITY FULL`},
		"changed on a column that is not":     {"update", orderUpdate, `changed("colour")`, `changed("colour"): public.orders has no such column`},
		"changed on a row that was too large": {"update", orderOversize, `changed("status")`, `changed("status"): the event was too large to hold its row: its images are in the dead letters`},
		"changed of something else":           {"update", orderUpdate, `changed(after.id)`, "no such overload: changed"},
		"data that can't be decoded":          {"update", `{"after":`, `after.id == 1`, "decode JSON: syntax error at byte 9"},
		"a loop without end": {"insert", orderInsert, `[0,1,2,3,4,5,6,7,8,9].all(a, [0,1,2,3,4,5,6,7,8,9].all(b, [0,1,2,3,4,5,6,7,8,9].all(c, [0,1,2,3,4,5,6,7,8,9].all(d, ` +
			`[0,1,2,3,4,5,6,7,8,9].all(e, [0,1,2,3,4,5,6,7,8,9].all(f, a+b+c+d+e+f+after.id > 0))))))`, "operation cancelled: actual cost limit exceeded"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := condition(t, test.when).Eval(input(test.op, test.data))
			if err == nil || err.Error() != test.want {
				t.Errorf("%s = %t, %v, want the error %s", test.when, got, err, test.want)
			}
		})
	}
}

func TestCompileErrors(t *testing.T) {
	env := environment(t)
	asCondition := func(text string) error { _, err := env.CompileCondition(text); return err }
	asText := func(text string) error { _, err := env.CompileText(text, expr.Plain); return err }
	asHeader := func(text string) error { _, err := env.CompileText(text, expr.Header); return err }
	asJSON := func(text string) error { _, err := env.CompileJSON(text); return err }
	tests := map[string]struct {
		compile func(string) error
		text    string
		at      string // what stands at the error's offset
		want    string
	}{
		"an unknown variable":            {asCondition, `op == "x" && aftr.status == 1`, "aftr", "undeclared reference to 'aftr' (did you mean 'after'?)"},
		"an unknown function":            {asCondition, `lower(after.status) == "x"`, "(after", "undeclared reference to 'lower'"},
		"a method that is not there":     {asCondition, `op.matchez("x")`, "(\"x", "undeclared reference to 'matchez' (did you mean 'matches'?)"},
		"kinds that never compare":       {asCondition, `op == 5`, "== 5", "found no matching overload for '_==_' applied to '(string, int)'"},
		"a wrong argument":               {asCondition, `changed(5)`, "(5)", "found no matching overload for 'changed' applied to '(int)'"},
		"a missing argument":             {asCondition, `changed_to("status")`, "(\"status", "found no matching overload for 'changed_to' applied to '(string)'"},
		"a condition that is a number":   {asCondition, `1 + 2`, "1 + 2", "a condition is true or false, this is of type int"},
		"a condition that is a sum":      {asCondition, `after.total + 1`, "after.total + 1", "a condition is true or false, this is of type dyn"},
		"a syntax error":                 {asCondition, `after.status = "x"`, `= "x"`, "syntax error: token recognition error at: '= '"},
		"an error behind other letters":  {asCondition, `"ä€😀" == op && aftr.x`, "aftr", "undeclared reference to 'aftr' (did you mean 'after'?)"},
		"an error on the second line":    {asCondition, "op == 'x' &&\n  aftr.x", "aftr", "undeclared reference to 'aftr' (did you mean 'after'?)"},
		"an end too early":               {asCondition, `after.status ==`, "", "syntax error: mismatched input '<EOF>'"},
		"nothing":                        {asCondition, "  ", "  ", "the expression is empty"},
		"a bad regular expression":       {asCondition, `op.matches("(")`, `"(")`, "invalid matches argument"},
		"a body of a type":               {asJSON, `type(op)`, "type(op)", "a type has no JSON"},
		"an unknown variable in a text":  {asText, `a ${after.id} b ${aftr.id}`, "aftr", "undeclared reference to 'aftr' (did you mean 'after'?)"},
		"a placeholder that is not shut": {asText, `a ${after.id`, "${after", "${ is not closed"},
		"a placeholder of nothing":       {asText, `a ${ }`, "${ }", "${} holds no expression"},
		"a list in a text":               {asText, `a ${[1]}`, "[1]", "a text takes a string, a number or a bool, this is of type list(int)"},
		"a line break in a header":       {asHeader, "a\nb", "a\nb", `a header can't hold the character '\n'`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			err := test.compile(test.text)
			var located *expr.Error
			if !errors.As(err, &located) {
				t.Fatalf("error is %v, want %s", err, test.want)
			}
			if located.Message != test.want {
				t.Errorf("message is %s, want %s", located.Message, test.want)
			}
			if rest := test.text[located.Offset:]; !strings.HasPrefix(rest, test.at) || (rest == "") != (test.at == "") {
				t.Errorf("offset %d is at %q, want %q", located.Offset, rest, test.at)
			}
		})
	}
}

func TestJSON(t *testing.T) {
	tests := map[string]struct{ op, data, body, want string }{
		"an object, its keys sorted":  {"update", orderUpdate, `{"z": after.status, "a": after.id}`, `{"a":42,"z":"shipped"}`},
		"integers digit for digit":    {"insert", orderInsert, `[after.max, 9007199254740993]`, `[18446744073709551615,9007199254740993]`},
		"decimals digit for digit":    {"update", orderUpdate, `[after.total, 1e21, 1e-7, 0.1 + 0.2, 2.0]`, `[19.90,1e21,1e-7,0.3,2.0]`},
		"a row as it is":              {"insert", orderInsert, `after`, `{"id":42,"items":[{"n":1},{"n":2}],"max":18446744073709551615,"note":null,"status":"shipped","total":20}`},
		"no old row":                  {"insert", orderInsert, `{"before": before}`, `{"before":null}`},
		"a list that was made":        {"insert", orderInsert, `after.items.map(i, i.n * 2)`, `[2,4]`},
		"a text with every character": {"message", `"</script>\u0000\u2028\"\\é😀"`, `event.data`, "\"</script>\\u0000\u2028\\\"\\\\é😀\""},
		"a time":                      {"update", orderUpdate, `timestamp(event.time)`, `"2026-11-23T08:45:53.123456Z"`},
		"a duration":                  {"update", orderUpdate, `duration("90.5s")`, `"90.5s"`},
		"bytes":                       {"update", orderUpdate, `b"abc"`, `"YWJj"`},
		"an optional value":           {"update", orderUpdate, `after.?status`, `"shipped"`},
		"an optional member":          {"update", orderUpdate, `{?"a": after.?status, ?"b": after.?colour}`, `{"a":"shipped"}`},
		"null":                        {"update", orderUpdate, `null`, `null`},
		"the envelope's own members":  {"message", `1`, `[event.id, event.data]`, `["shop-1-0000000016B37488-771-3",1]`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			body, err := environment(t).CompileJSON(test.body)
			if err != nil {
				t.Fatal(err)
			}
			got, err := body.Append([]byte("> "), input(test.op, test.data))
			if err != nil || string(got) != "> "+test.want {
				t.Errorf("%s = %s, %v, want > %s", test.body, got, err, test.want)
			}
		})
	}
}

func TestJSONThatFails(t *testing.T) {
	long := `{"after":{"text":"` + strings.Repeat("x", 300_000) + `"}}`
	tests := map[string]struct{ data, body, want string }{
		"a missing field":       {orderUpdate, `{"a": after.colour}`, "no such key: colour"},
		"a key that is no text": {orderUpdate, `{after.id: 1}`, "the keys of a JSON object are strings, not int: wrap the key in string()"},
		"a number beyond JSON":  {orderUpdate, `1.0 / 0.0`, "division by zero"},
		"a type":                {orderUpdate, `[type(op)]`, "a type has no JSON"},
		"no optional value":     {orderUpdate, `after.?colour`, "the value is optional.none(): give it a default with orValue"},
		"a value over 1 MiB":    {long, `[after, after, after, after]`, expr.ErrTooLarge.Error()},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			body, err := environment(t).CompileJSON(test.body)
			if err != nil {
				t.Fatal(err)
			}
			got, err := body.Append([]byte("> "), input("update", test.data))
			if err == nil || err.Error() != test.want {
				t.Errorf("%s = %.100s, %v, want the error %s", test.body, got, err, test.want)
			}
			if string(got) != "> " {
				t.Errorf("an error left %.100s", got)
			}
		})
	}
}

func TestInputIsSharedSafely(t *testing.T) {
	c := condition(t, `changed("status") && event.data.after.id == 42 && before.status == "packed"`)
	in := input("update", orderUpdate)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 100 {
				if ok, err := c.Eval(in); !ok || err != nil {
					t.Errorf("Eval = %t, %v", ok, err)
					return
				}
			}
		})
	}
	all.Wait()
}
