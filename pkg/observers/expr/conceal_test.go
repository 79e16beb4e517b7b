package expr_test

import (
	"strings"
	"testing"

	"github.com/tributary-dev/tributary/pkg/observers/expr"
)

func TestErrorsQuoteTheExpressionAndNotTheEvent(t *testing.T) {
	const value = "s3cr`et\\\"( 7"
	env, err := expr.NewEnv()
	if err != nil {
		t.Fatal(err)
	}
	for text, says := range map[string]string{
		`after.gone == 1`:           "no such key: gone",
		`after[after.name] == 1`:    "no such key: …",
		`{"a": 1}[after.name] == 1`: "no such key: …",
		`double(after.name) > 3.0`:  `"…" is no decimal number`,
		`double("x1") > 3.0`:        `"x1" is no decimal number`,
		`timestamp(after.name) > timestamp("2026-01-01T00:00:00Z")`: `invalid RFC 3339 timestamp "…"`,
		`duration(after.name) > duration("1s")`:                     "type conversion error",
		`after.name.matches(after.name)`:                            "error parsing regexp: ",
		`int(after.name) > 3`:                                       "type conversion error",
		`after.name + 1 == 2`:                                       "no such overload",
	} {
		condition, err := env.CompileCondition(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		input := expr.NewInput(expr.Fields{Data: []byte(`{"op":"insert","after":{"name":"s3cr` + "`" + `et\\\"( 7"}}`), Op: "insert", Row: true})
		_, err = condition.Eval(input)
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: error is %v, want %q", text, err, says)
		}
		for _, part := range []string{value, "s3cr", "et\\", "( 7"} {
			if err != nil && strings.Contains(err.Error(), part) {
				t.Errorf("%s: the error quotes the event: %v", text, err)
			}
		}
	}
}
