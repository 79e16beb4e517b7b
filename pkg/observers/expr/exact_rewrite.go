package expr

import (
	"strconv"
	"strings"

	"cel.dev/cel-go/cel"
	celast "cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/overloads"
	"cel.dev/cel-go/common/types"
)

// makeExact rewrites a checked expression; text is its source. It errors with *Error where a literal has no exact form.
func makeExact(text string, ast *cel.Ast) error {
	x := &rewriter{text: []rune(text), ast: ast.NativeRep(), make: celast.NewExprFactory()}
	x.next = celast.MaxID(x.ast)
	celast.PostOrderVisit(x.ast.Expr(), celast.NewExprVisitor(func(e celast.Expr) {
		switch e.Kind() {
		case celast.LiteralKind:
			x.literal(e)
		case celast.CallKind:
			x.call(e)
		}
	}))
	return x.err
}

type rewriter struct {
	text []rune
	ast  *celast.AST
	make celast.ExprFactory
	next int64
	err  error
}

func (x *rewriter) literal(e celast.Expr) {
	double, ok := e.AsLiteral().(types.Double)
	if !ok {
		return
	}
	offset, ok := x.ast.SourceInfo().GetOffsetRange(e.ID())
	if !ok || int(offset.Start) > len(x.text) {
		x.fail(0, "a number's place in the expression is not known")
		return
	}
	literal := numberAt(x.text[offset.Start:])
	value, err := strconv.ParseFloat(literal, 64)
	decimal, valid := parseDecimal(literal)
	if err != nil || value != float64(double) || !valid {
		x.fail(len(string(x.text[:offset.Start])), "this number can't be kept exactly")
		return
	}
	e.SetKindCase(x.make.NewLiteral(e.ID(), decimal))
}

func (x *rewriter) fail(offset int, message string) {
	if x.err == nil {
		x.err = &Error{Offset: offset, Message: message, Hint: `write it as double("19.90")`}
	}
}

// numberAt gives the number that begins text, in JSON's form: its sign may stand apart, and it may begin with a point.
func numberAt(text []rune) string {
	var b strings.Builder
	at := 0
	if at < len(text) && text[at] == '-' {
		b.WriteByte('-')
		for at++; at < len(text) && strings.ContainsRune(" \t\r\n", text[at]); at++ {
		}
	}
	if at < len(text) && text[at] == '.' {
		b.WriteByte('0')
	}
	for ; at < len(text); at++ {
		c := text[at]
		digit := c >= '0' && c <= '9' || c == '.' || c == 'e' || c == 'E'
		sign := (c == '+' || c == '-') && (text[at-1] == 'e' || text[at-1] == 'E')
		if !digit && !sign {
			break
		}
		b.WriteRune(c)
	}
	return b.String()
}

func (x *rewriter) call(e celast.Expr) {
	call := e.AsCall()
	function := call.FunctionName()
	_, computed := arithmetics[function]
	_, compared := comparisons[function]
	replace := false
	switch {
	case computed, compared:
		replace = x.meetsDecimals(e)
	case function == operators.Equals, function == operators.NotEquals:
		args := call.Args()
		replace = x.mayHold(args[0]) && x.mayHold(args[1])
	case function == operators.In:
		x.in(e)
	case function == overloads.TypeConvertDouble:
		replace = true
	}
	if replace {
		x.replace(e, exactly(function), call.Args()...)
	}
}

func (x *rewriter) replace(e celast.Expr, function string, args ...celast.Expr) {
	e.SetKindCase(x.make.NewCall(e.ID(), function, args...))
	x.ast.SetReference(e.ID(), celast.NewFunctionReference(function))
}

// meetsDecimals tells whether an operator, as it was checked, may meet one: it has not a single overload of others.
func (x *rewriter) meetsDecimals(e celast.Expr) bool {
	ids := x.ast.GetOverloadIDs(e.ID())
	return len(ids) != 1 || strings.Contains(ids[0], "double")
}

// mayHold tells whether a value, as it was checked, may be a decimal, hold one, or be equal to one.
func (x *rewriter) mayHold(e celast.Expr) bool {
	switch kind := x.ast.GetType(e.ID()).Kind(); kind {
	case types.StringKind, types.BoolKind, types.BytesKind, types.NullTypeKind, types.TimestampKind, types.DurationKind, types.TypeKind:
		return false
	default:
		return true
	}
}

// in leaves sets of integers to CEL, which looks them up, and sets of what is no number.
func (x *rewriter) in(e celast.Expr) {
	args := e.AsCall().Args()
	container := x.ast.GetType(args[1].ID())
	if !x.mayHold(args[0]) {
		return
	}
	if container.Kind() == types.ListKind && len(container.Parameters()) == 1 {
		switch container.Parameters()[0].Kind() {
		case types.StringKind, types.BoolKind, types.BytesKind:
			return
		case types.IntKind, types.UintKind:
			x.next++
			argument := x.make.NewCall(x.next, normal, args[0])
			x.ast.SetReference(x.next, celast.NewFunctionReference(normal))
			x.ast.SetType(x.next, types.DynType)
			e.SetKindCase(x.make.NewCall(e.ID(), operators.In, argument, args[1]))
			return
		}
	}
	x.replace(e, exactly(operators.In), args...)
}
