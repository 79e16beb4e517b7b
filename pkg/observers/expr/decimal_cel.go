package expr

import (
	"cmp"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

// The methods of ref.Val and of CEL's traits of numbers.

// Type is CEL's double.
func (d Decimal) Type() ref.Type { return types.DoubleType }

// Value is the text.
func (d Decimal) Value() any { return string(d) }

// ConvertToNative gives the text, or the nearest double.
func (d Decimal) ConvertToNative(to reflect.Type) (any, error) {
	switch to.Kind() {
	case reflect.String:
		return reflect.ValueOf(string(d)).Convert(to).Interface(), nil
	case reflect.Float64:
		f, err := strconv.ParseFloat(string(d), 64)
		if err != nil || math.IsInf(f, 0) {
			return nil, fmt.Errorf("%s is out of a double's range", clip(string(d)))
		}
		return reflect.ValueOf(f).Convert(to).Interface(), nil
	default:
		return nil, fmt.Errorf("a decimal can't become a %v", to)
	}
}

// ConvertToType is that of CEL's double, exactly: to int and uint by cutting off, to string as the text.
func (d Decimal) ConvertToType(to ref.Type) ref.Val {
	switch to {
	case types.DoubleType:
		return d
	case types.IntType:
		return d.integer(true)
	case types.UintType:
		return d.integer(false)
	case types.StringType:
		return types.String(d)
	case types.TypeType:
		return types.DoubleType
	default:
		return types.NewErr("type conversion error from 'double' to '%s'", to)
	}
}

// Equal compares with a number of any kind.
func (d Decimal) Equal(other ref.Val) ref.Val {
	o, ok := decimalOf(other)
	if !ok {
		return types.False
	}
	order, err := d.compare(o)
	if err != nil {
		return types.WrapErr(err)
	}
	return types.Bool(order == 0)
}

// Compare compares with a number of any kind.
func (d Decimal) Compare(other ref.Val) ref.Val { return orNone(compareNumbers(d, other), other) }

// Add is exact.
func (d Decimal) Add(other ref.Val) ref.Val { return orNone(calculate(d, other, add), other) }

// Subtract is exact.
func (d Decimal) Subtract(other ref.Val) ref.Val { return orNone(calculate(d, other, subtract), other) }

// Multiply is exact.
func (d Decimal) Multiply(other ref.Val) ref.Val { return orNone(calculate(d, other, multiply), other) }

// Divide keeps 34 significant digits of a quotient that does not end.
func (d Decimal) Divide(other ref.Val) ref.Val { return orNone(calculate(d, other, divide), other) }

// Negate changes the sign.
func (d Decimal) Negate() ref.Val {
	if text, negative := strings.CutPrefix(string(d), "-"); negative {
		return Decimal(text)
	}
	return "-" + d
}

func orNone(result, other ref.Val) ref.Val {
	if result == nil {
		return types.MaybeNoSuchOverloadErr(other)
	}
	return result
}

// compareNumbers gives -1, 0 or 1 as CEL's int, and nil where one of the values is no number.
func compareNumbers(a, b ref.Val) ref.Val {
	if x, ok := a.(types.Int); ok {
		if y, ok := b.(types.Int); ok {
			return types.Int(cmp.Compare(x, y))
		}
	}
	x, ok := decimalOf(a)
	y, also := decimalOf(b)
	if !ok || !also {
		return nil
	}
	order, err := x.compare(y)
	if err != nil {
		return types.WrapErr(err)
	}
	return types.Int(order)
}

var (
	_ traits.Adder      = Decimal("")
	_ traits.Comparer   = Decimal("")
	_ traits.Divider    = Decimal("")
	_ traits.Multiplier = Decimal("")
	_ traits.Negater    = Decimal("")
	_ traits.Subtractor = Decimal("")
)
