package expr_test

import (
	"encoding/json"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/internal/stall"
	"github.com/tributary-dev/tributary/pkg/observers/expr"
)

// decimals is a row of numbers that no double holds, or that it holds in another form.
var decimals = `{"after":{"total":19.90,"same":19.9,"whole":20.00,"id":42,"max":18446744073709551615,"beyond":18446744073709551616,` +
	`"tiny":1e-400,"huge":1e400,"vast":1e999999999,"absurd":1e99999999999999999999,"zero":0.00,"none":-0.0e99999999999999999999,"debt":-7.50,` +
	`"digits":` + digits(1000) + `,"long":` + digits(100_000) + `,"fraction":0.` + digits(100_000) + `,"text":"19.90","list":[1,2.50,[3.0]]}}`

func digits(n int) string { return strings.Repeat("1234567890", n/10) }

func TestDecimals(t *testing.T) {
	thousand := digits(1000)
	tests := map[string]struct{ body, want string }{
		"a decimal passes digit for digit":            {`after.total`, `19.90`},
		"a whole one too":                             {`after.whole`, `20.00`},
		"a thousand digits pass":                      {`after.digits`, thousand},
		"an integer over 64 bits passes":              {`after.beyond`, `18446744073709551616`},
		"an exponent passes as it came":               {`[after.huge, after.tiny, after.vast, after.absurd]`, `[1e400,1e-400,1e999999999,1e99999999999999999999]`},
		"a literal keeps its digits":                  {`[19.90, -0.10, - 2.50, .5, 1e3, 1E-7]`, `[19.90,-0.10,-2.50,0.5,1e3,1E-7]`},
		"a literal in a loop":                         {`[1.50].map(x, x * 2.50)`, `[3.7500]`},
		"a literal behind wide characters":            {`{"é😀": "é😀", "n": 19.90}`, `{"n":19.90,"é😀":"é😀"}`},
		"a literal in the second line":                {"after.total +\n  0.01", `19.91`},
		"an int and a decimal multiply":               {`after.total * 2`, `39.80`},
		"a decimal and an int":                        {`2 * after.total`, `39.80`},
		"an unsigned integer and a decimal":           {`after.max + 0.5`, `18446744073709551615.5`},
		"integers of different kinds":                 {`after.max + after.id`, `18446744073709551657`},
		"literals of different kinds":                 {`[1 + 0.5, 0.5 + 1, 2u * 1.5, 3 - 0.1]`, `[1.5,1.5,3.0,2.9]`},
		"what doubles do not add up":                  {`0.1 + 0.2 == 0.3`, `true`},
		"a thousand digits and one":                   {`after.digits + 1.0`, plusOne(thousand) + ".0"},
		"a thousand digits times themselves":          {`after.digits * after.digits`, squared(thousand)},
		"negation":                                    {`[-after.total, -after.debt, -after.zero]`, `[-19.90,7.50,-0.00]`},
		"subtraction keeps the larger scale":          {`after.total - 19.9`, `0.00`},
		"a quotient that ends":                        {`[after.total / 2, 1.0 / 8, after.debt / 2.5, 100.0 / 10]`, `[9.95,0.125,-3,10]`},
		"a quotient that does not end has 34 digits":  {`[1.0 / 3, 2.0 / 3, -2.0 / 3]`, `[0.3333333333333333333333333333333333,0.6666666666666666666666666666666667,-0.6666666666666666666666666666666667]`},
		"a quotient rounds half to even":              {`[10000000000000000000000000000000005.0 / 10, 10000000000000000000000000000000015.0 / 10]`, `[1000000000000000000000000000000000,1000000000000000000000000000000002]`},
		"a quotient just over a half":                 {`10000000000000000000000000000000005.0000000000000000000000000000000000000000000001 / 10`, `1000000000000000000000000000000001`},
		"integers divide as integers":                 {`after.id / 5`, `8`},
		"exponents add up":                            {`[after.huge * after.huge, after.huge * after.tiny, after.vast * 10]`, `[1e800,1,10e999999999]`},
		"double() is exact":                           {`[double("19.90"), double(after.id), double(after.total), double("1e400")]`, `[19.90,42,19.90,1e400]`},
		"int() and uint() cut off":                    {`[int(after.total), int(after.debt), int(0.99), uint(after.total), int(after.tiny)]`, `[19,-7,0,19u,0]`},
		"string() is the text":                        {`string(after.total) + "!"`, `"19.90!"`},
		"the type is double":                          {`type(after.total) == double`, `true`},
		"a decimal in a conditional":                  {`after.total > 10 ? after.total : 10.0`, `19.90`},
		"numbers of one value are equal":              {`[after.total == after.same, after.total == 19.9, 20 == after.whole, after.whole == 20, 20u == after.whole, after.whole != 20]`, `[true,true,true,true,true,false]`},
		"a number is no text":                         {`[after.total == after.text, after.text == after.total]`, `[false,false]`},
		"zeros are equal":                             {`[after.zero == 0, 0 == after.none, after.zero == -0.0]`, `[true,true,true]`},
		"equality goes deep":                          {`[after.list == [1.0, 2.5, [3]], [1, 2.5, [3]] == after.list, {"a": dyn(1)} == {"a": 1.0}, after == after]`, `[true,true,true,true]`},
		"comparison is exact":                         {`[after.beyond > after.max, after.max < after.beyond, after.huge < after.digits, after.tiny > 0, after.tiny < double("1e-399")]`, `[true,true,true,true,true]`},
		"comparison never writes out":                 {`[after.vast > after.huge, -after.vast < after.debt, after.long > 1, after.fraction < 0.124, 1 < after.vast]`, `[true,true,true,true,true]`},
		"negative numbers":                            {`[after.debt < 0, after.debt < -7.4, after.debt > -7.6, -7.5 == after.debt, after.debt <= 1]`, `[true,true,true,true,true]`},
		"in a list":                                   {`[after.whole in [10, 20], after.total in [1, 19.9], 3 in after.list, 1.0 in after.list, after.total in [19, 20], after.id in [41, 42]]`, `[true,true,false,true,false,true]`},
		"in a map":                                    {`["total" in after, after.whole in {20: "x"}]`, `[true,true]`},
		"the greatest of a list":                      {`after.list.filter(x, type(x) != list).exists(x, x >= 2.5)`, `true`},
		"an optional decimal":                         {`[optional.of(1.0) == optional.of(dyn(1)), optional.of(2.5) == optional.of(dyn(1))]`, `[true,false]`},
		"times and texts are computed as they always": {`["a" + "b", string(timestamp("2026-11-23T00:00:00Z") + duration("1h")), string(duration("2h") - duration("1h")), [dyn(1)] + [2.5]]`, `["ab","2026-11-23T01:00:00Z","3600s",[1,2.5]]`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			body, err := environment(t).CompileJSON(test.body)
			if err != nil {
				t.Fatal(err)
			}
			got, err := body.Append(nil, input("insert", decimals))
			if want := strings.ReplaceAll(test.want, "19u", "19"); err != nil || string(got) != want {
				t.Errorf("%s = %.200s, %v, want %.200s", test.body, got, err, want)
			}
		})
	}
}

func plusOne(text string) string {
	n, _ := new(big.Int).SetString(text, 10)
	return n.Add(n, big.NewInt(1)).String()
}

func squared(text string) string {
	n, _ := new(big.Int).SetString(text, 10)
	return n.Mul(n, n).String()
}

func TestDecimalsThatFail(t *testing.T) {
	const long = "a number has more than 4096 digits: it can be compared and passed on, not computed with"
	const exponent = "a number's exponent is out of range: it can be passed on, not compared or computed with"
	tests := map[string]struct{ body, want string }{
		"too many digits to compute with":  {`after.long + 1`, long},
		"too many behind the point":        {`after.fraction * 2`, long},
		"an exponent is not written out":   {`after.vast + 1`, long},
		"a result with too many digits":    {`after.digits * after.digits * after.digits * after.digits * after.digits`, long},
		"an exponent that is no number":    {`after.absurd > 1`, exponent},
		"one that is computed with":        {`after.absurd * 2`, exponent},
		"it is equal to itself, no more":   {`after.absurd == 1`, exponent},
		"division by zero":                 {`after.total / after.zero`, "division by zero"},
		"an integer that does not fit":     {`int(after.huge)`, "range: 1e400 does not fit 64 bits"},
		"a negative one that is unsigned":  {`uint(after.debt)`, "range: -7.50 does not fit 64 bits"},
		"a text that is no number":         {`double("NaN")`, `"NaN" is no decimal number`},
		"a text that is nearly one":        {`double("1_000")`, `"1_000" is no decimal number`},
		"no rest of decimals":              {`after.total % 2`, "no such overload: _%_"},
		"no number and a text":             {`after.total + after.text`, "no such overload: double + string"},
		"no comparison of number and text": {`after.total > after.text`, "no such overload: double > string"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			body, err := environment(t).CompileJSON(test.body)
			if err != nil {
				t.Fatal(err)
			}
			got, err := body.Append(nil, input("insert", decimals))
			if err == nil || err.Error() != test.want {
				t.Errorf("%s = %.100s, %v, want the error %s", test.body, got, err, test.want)
			}
		})
	}
}

func TestLiteralsBeyondDoublesAreRefused(t *testing.T) {
	_, err := environment(t).CompileJSON("1e400")
	if err == nil {
		t.Error("1e400 compiled, and no double holds it")
	}
}

// TestDecimalsAreBounded evaluates what would take minutes and gigabytes if digits were free.
func TestDecimalsAreBounded(t *testing.T) {
	const many = `[0,1,2,3,4,5,6,7,8,9].all(a, [0,1,2,3,4,5,6,7,8,9].all(b, [0,1,2,3,4,5,6,7,8,9].all(c, [0,1,2,3,4,5,6,7,8,9].all(d, `
	for _, body := range []string{`after.long == after.copy`, `int(after.fraction) == 0`, `-after.long < 0`, `after.list == after.twin`, `after.many * after.many > 1`, `after.long in [after.copy]`} {
		row := `{"after":{"long":` + digits(100_000) + `.0,"copy":` + digits(100_000) + `.00,"fraction":0.` + digits(100_000) + `,"many":` + digits(2000) +
			`,"list":[` + digits(100_000) + `.0],"twin":[` + digits(100_000) + `]}}`
		c := condition(t, many+body+`))))`)
		begun := stall.Begin(t)
		_, err := c.Eval(input("insert", row))
		if err == nil || err.Error() != "operation cancelled: actual cost limit exceeded" {
			t.Errorf("%s, 10,000 times: %v, want it to be cut off", body, err)
		}
		begun.Within(5*time.Second, body+", cut off")
	}
}

// FuzzDecimals holds comparison and arithmetic against math/big, and what is written against encoding/json.
func FuzzDecimals(f *testing.F) {
	for _, seed := range [][2]string{{"19.90", "19.9"}, {"-0.0", "0"}, {"1e30", "1000000000000000000000000000000"}, {"1E-5", "0.00001"}, {"123456789012345678901234567890", "-1.5"}, {"0.5e1", "5"}, {"1e99999999999", "2"}} {
		f.Add(seed[0], seed[1])
	}
	env := environment(f)
	var exact [6]*expr.JSON
	for i, source := range []string{"after.a < after.b", "after.a == after.b", "after.a + after.b", "after.a - after.b", "after.a * after.b", "[after.a, after.b]"} {
		var err error
		if exact[i], err = env.CompileJSON(source); err != nil {
			f.Fatal(err)
		}
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		if !json.Valid([]byte(a)) || !json.Valid([]byte(b)) || !isNumber(a) || !isNumber(b) {
			t.Skip()
		}
		in := input("insert", `{"after":{"a":`+a+`,"b":`+b+`}}`)
		eval := func(i int) string {
			got, err := exact[i].Append(nil, in)
			if err != nil {
				return ""
			}
			if !json.Valid(got) {
				t.Fatalf("%q and %q gave %q, which is no JSON", a, b, got)
			}
			return string(got)
		}
		if got, want := eval(5), `[`+strings.TrimSpace(a)+`,`+strings.TrimSpace(b)+`]`; got != want {
			t.Errorf("%s became %s", want, got)
		}
		x, y := rational(a), rational(b)
		if x == nil || y == nil {
			return
		}
		holds(t, a+" < "+b, eval(0), x.Cmp(y) < 0)
		holds(t, a+" == "+b, eval(1), x.Cmp(y) == 0)
		for i, want := range map[int]*big.Rat{2: new(big.Rat).Add(x, y), 3: new(big.Rat).Sub(x, y), 4: new(big.Rat).Mul(x, y)} {
			text := eval(i)
			if text == "" { // integers overflow
				continue
			}
			if got := rational(text); got == nil || got.Cmp(want) != 0 {
				t.Errorf("operation %d of %s and %s gave %s, want %s", i, a, b, text, want.RatString())
			}
		}
	})
}

func holds(t *testing.T, what, got string, want bool) {
	t.Helper()
	if got != "" && got != map[bool]string{true: "true", false: "false"}[want] {
		t.Errorf("%s is %s, want %t", what, got, want)
	}
}

func isNumber(text string) bool {
	var n json.Number
	return json.Unmarshal([]byte(text), &n) == nil && n != "" && !strings.Contains(text, `"`)
}

// rational is nil for what math/big should not be asked to write out.
func rational(text string) *big.Rat {
	text = strings.TrimSpace(text)
	if at := strings.IndexAny(text, "eE"); len(text) > 20_000 || at >= 0 && len(text)-at > 4 {
		return nil
	}
	r, _ := new(big.Rat).SetString(text)
	return r
}
