package expr

import (
	"fmt"
	"strings"

	"cel.dev/cel-go/cel"
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
