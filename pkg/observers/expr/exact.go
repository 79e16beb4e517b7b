package expr

import (
	"fmt"
	"strconv"
	"strings"

	"cel.dev/cel-go/cel"
	celast "cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/overloads"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

// CEL's operators know three kinds of numbers, and its parser makes doubles of literals. So what was checked is rewritten
// before it is planned: a literal becomes the Decimal of its text, and an operator that may meet a Decimal becomes a
// function of ours that does the same and knows it. What can't meet one stays as it is.

// exactly names the function that stands for one of CEL's. No expression can call it: its name has an @.
func exactly(function string) string { return "@exact" + function }

const normal = "@integer" // makes an int of a decimal that is one, for CEL's sets of integers

// arithmetics are the operators that are computed.
var arithmetics = map[string]arithmetic{
	operators.Add:      add,
	operators.Subtract: subtract,
	operators.Multiply: multiply,
	operators.Divide:   divide,
}

// comparisons are the operators that order, by whether they hold for -1, 0 and 1.
var comparisons = map[string][3]bool{
	operators.Less:          {true, false, false},
	operators.LessEquals:    {true, true, false},
	operators.Greater:       {false, false, true},
	operators.GreaterEquals: {false, true, true},
}

// exactFunctions declares the functions of ours, and for the checker arithmetic between kinds of numbers.
func exactFunctions() []cel.EnvOption {
	var options []cel.EnvOption
	binary := func(function string, result *cel.Type, do func(a, b ref.Val) ref.Val) {
		name := exactly(function)
		options = append(options, cel.Function(name, cel.Overload(name, []*cel.Type{cel.DynType, cel.DynType}, result, cel.BinaryBinding(do))))
	}
	for function, do := range arithmetics {
		binary(function, cel.DynType, func(a, b ref.Val) ref.Val { return compute(function, do, a, b) })
		for _, kinds := range [][2]*cel.Type{{cel.IntType, cel.DoubleType}, {cel.DoubleType, cel.IntType}, {cel.UintType, cel.DoubleType}, {cel.DoubleType, cel.UintType}} {
			id := fmt.Sprintf("exact%s_%s_%s", function, kinds[0], kinds[1])
			options = append(options, cel.Function(function, cel.Overload(id, kinds[:], cel.DoubleType)))
		}
	}
	for function, holds := range comparisons {
		binary(function, cel.BoolType, func(a, b ref.Val) ref.Val { return ordered(function, holds, a, b) })
	}
	binary(operators.Equals, cel.BoolType, equal)
	binary(operators.NotEquals, cel.BoolType, func(a, b ref.Val) ref.Val {
		result := equal(a, b)
		if is, ok := result.(types.Bool); ok {
			return !is
		}
		return result
	})
	binary(operators.In, cel.BoolType, within)
	unary := func(name string, do func(ref.Val) ref.Val) {
		options = append(options, cel.Function(name, cel.Overload(name, []*cel.Type{cel.DynType}, cel.DynType, cel.UnaryBinding(do))))
	}
	unary(exactly(overloads.TypeConvertDouble), toDecimal)
	unary(normal, toInteger)
	return options
}

// compute does arithmetic on numbers where one is a decimal or their kinds differ, and else what CEL does.
func compute(function string, do arithmetic, a, b ref.Val) ref.Val {
	_, decimal := a.(Decimal)
	if decimal || a.Type() != b.Type() {
		if result := calculate(a, b, do); result != nil {
			return result
		}
	}
	if decimal {
		return noOverload(function, a, b)
	}
	switch function {
	case operators.Add:
		if x, ok := a.(traits.Adder); ok {
			return x.Add(b)
		}
	case operators.Subtract:
		if x, ok := a.(traits.Subtractor); ok {
			return x.Subtract(b)
		}
	case operators.Multiply:
		if x, ok := a.(traits.Multiplier); ok {
			return x.Multiply(b)
		}
	case operators.Divide:
		if x, ok := a.(traits.Divider); ok {
			return x.Divide(b)
		}
	}
	return noOverload(function, a, b)
}

// noOverload says of which kinds two values were.
func noOverload(function string, a, b ref.Val) ref.Val {
	return types.NewErr("no such overload: %s %s %s", a.Type().TypeName(), strings.Trim(function, "_@"), b.Type().TypeName())
}

func ordered(function string, holds [3]bool, a, b ref.Val) ref.Val {
	order := compareNumbers(a, b)
	if order == nil {
		x, ok := a.(traits.Comparer)
		if !ok || a.Type() != b.Type() {
			return noOverload(function, a, b)
		}
		order = x.Compare(b)
	}
	if n, ok := order.(types.Int); ok {
		return types.Bool(holds[n+1])
	}
	return order
}

// equal is CEL's equality, with decimals wherever they lie.
func equal(a, b ref.Val) ref.Val {
	switch x := a.(type) {
	case Decimal:
		return x.Equal(b)
	case types.Int, types.Uint:
		if y, ok := b.(Decimal); ok {
			return y.Equal(a)
		}
	case traits.Mapper:
		if y, ok := b.(traits.Mapper); ok {
			return equalMaps(x, y)
		}
	case traits.Lister:
		if y, ok := b.(traits.Lister); ok {
			return equalLists(x, y)
		}
	case *types.Optional:
		if y, ok := b.(*types.Optional); ok && x.HasValue() && y.HasValue() {
			return equal(x.GetValue(), y.GetValue())
		}
	}
	return types.Equal(a, b)
}

func equalLists(a, b traits.Lister) ref.Val {
	if a.Size() != b.Size() {
		return types.False
	}
	size, _ := a.Size().(types.Int)
	for i := range size {
		if is := equal(a.Get(i), b.Get(i)); is != types.True {
			return is
		}
	}
	return types.True
}

func equalMaps(a, b traits.Mapper) ref.Val {
	if a.Size() != b.Size() {
		return types.False
	}
	for it := a.Iterator(); it.HasNext() == types.True; {
		key := it.Next()
		other, there := b.Find(key)
		if !there {
			return types.False
		}
		if is := equal(a.Get(key), other); is != types.True {
			return is
		}
	}
	return types.True
}

// within is CEL's in, of lists and of the keys of maps.
func within(value, container ref.Val) ref.Val {
	switch in := container.(type) {
	case traits.Mapper:
		_, there := in.Find(toInteger(value))
		return types.Bool(there)
	case traits.Lister:
		size, _ := in.Size().(types.Int)
		for i := range size {
			if is := equal(value, in.Get(i)); is != types.False {
				return is
			}
		}
		return types.False
	default:
		return types.MaybeNoSuchOverloadErr(container)
	}
}

// toDecimal is CEL's double().
func toDecimal(value ref.Val) ref.Val {
	switch v := value.(type) {
	case Decimal:
		return v
	case types.Int, types.Uint:
		d, _ := decimalOf(v)
		return d
	case types.String:
		if d, ok := parseDecimal(strings.TrimPrefix(string(v), "+")); ok {
			return d
		}
		return types.NewErr("%q is no decimal number", clip(string(v)))
	default:
		return types.MaybeNoSuchOverloadErr(value)
	}
}

// toInteger gives a decimal that is an integer as one, and everything else as it is.
func toInteger(value ref.Val) ref.Val {
	d, ok := value.(Decimal)
	if !ok {
		return value
	}
	for _, signed := range []bool{true, false} {
		if n := d.integer(signed); d.Equal(n) == types.True {
			return n
		}
	}
	return value
}

// prices is what calls cost that read decimals, by the size of what they read; CEL prices all others.
type prices struct{}

// CallCost gives nil for what CEL prices.
func (prices) CallCost(function, _ string, args []ref.Val, result ref.Val) *uint64 {
	const perUnit = 10 // characters
	cost := uint64(1)
	plain, ours := strings.CutPrefix(function, exactly(""))
	switch {
	case function == fnChangedTo, function == fnChangedFrom:
		cost = 100 // they read a column that is not among args
	case ours, function == overloads.TypeConvertInt, function == overloads.TypeConvertUint, function == operators.Negate:
		for _, arg := range args {
			cost += sizeOf(arg, 0) / perUnit
		}
		cost += sizeOf(result, 0) / perUnit
	default:
		return nil
	}
	if _, computed := arithmetics[plain]; ours && computed && len(args) == 2 {
		const perProduct = 1000 // pairs of digits
		cost += min(digitsOf(args[0]), maxDigits) * min(digitsOf(args[1]), maxDigits) / perProduct
	}
	return &cost
}

func digitsOf(value ref.Val) uint64 {
	if d, ok := value.(Decimal); ok {
		return uint64(len(d))
	}
	return 1
}

// sizeOf is how much there is to read of a value, about in characters; of a map the keys and values that lie below it are
// counted as its size alone, which CEL does too.
func sizeOf(value ref.Val, depth int) uint64 {
	const element = 10
	switch v := value.(type) {
	case Decimal:
		return uint64(len(v))
	case types.String:
		return uint64(len(v))
	case types.Bytes:
		return uint64(len(v))
	case traits.Mapper:
		return sizeOfMap(v, depth)
	case traits.Lister:
		size, _ := v.Size().(types.Int)
		total := uint64(size) * element
		if depth < maxDepth {
			for i := range size {
				total += sizeOf(v.Get(i), depth+1)
			}
		}
		return total
	default:
		return 0
	}
}

func sizeOfMap(m traits.Mapper, depth int) uint64 {
	const element = 10
	total := uint64(0)
	for it := m.Iterator(); depth < maxDepth && it.HasNext() == types.True; {
		total += element + sizeOf(m.Get(it.Next()), depth+1)
	}
	return total
}

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
