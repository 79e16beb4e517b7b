package expr

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/big"
	"reflect"
	"strconv"
	"strings"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

// Decimal is an exact number that is no integer of 64 bits: the text of its JSON, as it came or as it was computed. It
// stands where CEL has a double, and is of CEL's type double; no binary double is ever made of it.
//
// Comparing looks at digits and never writes an exponent out, so 1e999999999 costs no more than its text. Arithmetic is
// for numbers within maxDigits; it keeps scales as PostgreSQL's numeric does: 19.90 * 2 is 39.80.
type Decimal string

const (
	maxDigits      = 4096 // of an operand and of a result of arithmetic, zeros that an exponent stands for included
	divisionDigits = 34   // significant digits of a quotient that does not end, as in IEEE 754's decimal128
	maxExponent    = 1e15
	plainZeros     = 40 // zeros behind the digits of a result that are written out rather than as an exponent
)

var (
	errDigits   = fmt.Errorf("a number has more than %d digits: it can be compared and passed on, not computed with", maxDigits)
	errExponent = errors.New("a number's exponent is out of range: it can be passed on, not compared or computed with")
	errZero     = errors.New("division by zero")
)

// sign, digits without zeros before and behind, and the place of the point: 0.d₁d₂… × 10^magnitude. Zero has no digits.
type figure struct {
	negative  bool
	digits    string
	magnitude int64
}

// parts cuts a JSON number at its point and exponent.
func (d Decimal) parts() (negative bool, whole, fraction string, exponent int64, err error) {
	text := string(d)
	text, negative = strings.CutPrefix(text, "-")
	if at := strings.IndexAny(text, "eE"); at >= 0 {
		exponent, err = strconv.ParseInt(text[at+1:], 10, 64)
		if err != nil || exponent > maxExponent || exponent < -maxExponent {
			err = errExponent
		}
		text = text[:at]
	}
	whole, fraction, _ = strings.Cut(text, ".")
	return negative, whole, fraction, exponent, err
}

func (d Decimal) figure() (figure, error) {
	negative, whole, fraction, exponent, err := d.parts()
	digits := whole
	if fraction != "" {
		digits = whole + fraction
	}
	significant := strings.TrimLeft(digits, "0")
	if significant == "" {
		return figure{}, nil
	}
	if err != nil {
		return figure{}, err
	}
	zeros := len(digits) - len(significant)
	return figure{negative, strings.TrimRight(significant, "0"), int64(len(whole)-zeros) + exponent}, nil
}

// compare is exact for any two numbers.
func (d Decimal) compare(other Decimal) (int, error) {
	if d == other {
		return 0, nil
	}
	a, err := d.figure()
	if err != nil {
		return 0, err
	}
	b, err := other.figure()
	if err != nil {
		return 0, err
	}
	if order := cmp.Compare(a.sign(), b.sign()); order != 0 {
		return order, nil
	}
	// Zeros behind the digits are cut, so of two with one beginning the longer one is larger.
	return a.sign() * cmp.Or(cmp.Compare(a.magnitude, b.magnitude), strings.Compare(a.digits, b.digits)), nil
}

func (f figure) sign() int {
	switch {
	case f.digits == "":
		return 0
	case f.negative:
		return -1
	default:
		return 1
	}
}

// number is coefficient × 10^-scale.
type number struct {
	coefficient *big.Int
	scale       int64
}

func (d Decimal) number() (number, error) {
	negative, whole, fraction, exponent, err := d.parts()
	digits := whole + fraction
	switch {
	case err != nil:
		return number{}, err
	case len(digits) > maxDigits:
		return number{}, errDigits
	}
	n := number{new(big.Int), int64(len(fraction)) - exponent}
	if _, ok := n.coefficient.SetString(digits, 10); !ok {
		return number{}, fmt.Errorf("%q is no number", clip(string(d)))
	}
	if negative {
		n.coefficient.Neg(n.coefficient)
	}
	return n, nil
}

func clip(text string) string {
	const most = 40
	if len(text) > most {
		return text[:most] + "…"
	}
	return text
}

// decimal writes a number down.
func (n number) decimal() (Decimal, error) {
	digits := n.coefficient.String()
	digits, negative := strings.CutPrefix(digits, "-")
	size := int64(len(digits))
	switch {
	case size > maxDigits:
		return "", errDigits
	case n.scale == 0:
	case digits == "0" && (n.scale < 0 || n.scale > maxDigits):
	case n.scale < 0 && -n.scale <= plainZeros:
		digits += strings.Repeat("0", int(-n.scale))
	case n.scale < 0 || n.scale > size+plainZeros:
		digits += "e" + strconv.FormatInt(-n.scale, 10)
	default:
		if n.scale >= size {
			digits = strings.Repeat("0", int(n.scale-size)+1) + digits
		}
		point := len(digits) - int(n.scale)
		digits = digits[:point] + "." + digits[point:]
	}
	if negative {
		digits = "-" + digits
	}
	return Decimal(digits), nil
}

// raise gives the coefficient for a scale that is larger than the number's own.
func (n number) raise(scale int64) (*big.Int, error) {
	by := scale - n.scale
	if by == 0 || n.coefficient.Sign() == 0 {
		return n.coefficient, nil
	}
	if by > maxDigits {
		return nil, errDigits
	}
	return new(big.Int).Mul(n.coefficient, power(by)), nil
}

func power(of10 int64) *big.Int {
	return new(big.Int).Exp(big.NewInt(10), big.NewInt(of10), nil)
}

// arithmetic is one of the operations on two numbers.
type arithmetic func(a, b number) (number, error)

func add(a, b number) (number, error) {
	return aligned(a, b, (*big.Int).Add)
}

func subtract(a, b number) (number, error) {
	return aligned(a, b, (*big.Int).Sub)
}

func aligned(a, b number, do func(result, x, y *big.Int) *big.Int) (number, error) {
	scale := max(a.scale, b.scale)
	x, err := a.raise(scale)
	if err != nil {
		return number{}, err
	}
	y, err := b.raise(scale)
	if err != nil {
		return number{}, err
	}
	return number{do(new(big.Int), x, y), scale}, nil
}

func multiply(a, b number) (number, error) {
	return number{new(big.Int).Mul(a.coefficient, b.coefficient), a.scale + b.scale}, nil
}

// divide gives the exact quotient where it has at most divisionDigits, without zeros behind it; else it rounds there, half
// to even.
func divide(a, b number) (number, error) {
	if b.coefficient.Sign() == 0 {
		return number{}, errZero
	}
	if a.coefficient.Sign() == 0 {
		return number{new(big.Int), 0}, nil
	}
	// One digit more than needed, and a last one that is not 0 where something is left: so rounding sees all there is.
	size := func(n number) int64 { return int64(len(n.coefficient.Text(10))) }
	shift := max(0, divisionDigits+2+size(b)-size(a))
	quotient, rest := new(big.Int).QuoRem(new(big.Int).Mul(a.coefficient, power(shift)), b.coefficient, new(big.Int))
	scale := a.scale - b.scale + shift
	if rest.Sign() != 0 {
		quotient.Mul(quotient, big.NewInt(10))
		quotient.Add(quotient, big.NewInt(int64(a.coefficient.Sign()*b.coefficient.Sign())))
		scale++
	}
	return round(number{quotient, scale}, divisionDigits), nil
}

// round keeps so many significant digits, half to even, and drops the zeros behind the point.
func round(n number, digits int) number {
	text := n.coefficient.Text(10)
	text, negative := strings.CutPrefix(text, "-")
	if cut := len(text) - digits; cut > 0 {
		last, behind := text[digits-1]-'0', text[digits:]
		half := "5" + strings.Repeat("0", cut-1)
		up := behind > half || behind == half && last%2 == 1
		text = text[:digits]
		n.coefficient.SetString(text, 10)
		if up {
			n.coefficient.Add(n.coefficient, big.NewInt(1))
		}
		if negative {
			n.coefficient.Neg(n.coefficient)
		}
		n.scale -= int64(cut)
	}
	for rest := new(big.Int); n.scale > 0; n.scale-- {
		quotient, _ := new(big.Int).QuoRem(n.coefficient, big.NewInt(10), rest)
		if rest.Sign() != 0 {
			break
		}
		n.coefficient = quotient
	}
	return n
}

// calculate does arithmetic on two numbers of any kind; it is nil where one of them is none.
func calculate(a, b ref.Val, do arithmetic) ref.Val {
	x, ok := decimalOf(a)
	y, also := decimalOf(b)
	if !ok || !also {
		return nil
	}
	m, err := x.number()
	if err != nil {
		return types.WrapErr(err)
	}
	n, err := y.number()
	if err != nil {
		return types.WrapErr(err)
	}
	result, err := do(m, n)
	if err != nil {
		return types.WrapErr(err)
	}
	d, err := result.decimal()
	if err != nil {
		return types.WrapErr(err)
	}
	return d
}

// decimalOf gives a number of any kind as a decimal.
func decimalOf(value ref.Val) (Decimal, bool) {
	switch v := value.(type) {
	case Decimal:
		return v, true
	case types.Int:
		return Decimal(strconv.FormatInt(int64(v), 10)), true
	case types.Uint:
		return Decimal(strconv.FormatUint(uint64(v), 10)), true
	default:
		return "", false
	}
}

// parseDecimal reads a JSON number.
func parseDecimal(text string) (Decimal, bool) {
	d := decoder{text: text}
	if _, err := d.number(); err != nil || d.at != len(text) {
		return "", false
	}
	return Decimal(text), true
}

// integer cuts the fraction off, where the rest is one of 64 bits.
func (d Decimal) integer(signed bool) ref.Val {
	f, err := d.figure()
	if err != nil {
		return types.WrapErr(err)
	}
	const most = 20 // digits of 64 bits
	text := "0"
	switch {
	case f.magnitude > most:
		return types.NewErr("range: %s does not fit 64 bits", clip(string(d)))
	case f.magnitude > 0:
		text = f.digits + strings.Repeat("0", max(0, int(f.magnitude)-len(f.digits)))
		text = text[:f.magnitude]
	}
	if f.negative && text != "0" {
		text = "-" + text
	}
	if signed {
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			return types.Int(n)
		}
	} else if n, err := strconv.ParseUint(text, 10, 64); err == nil {
		return types.Uint(n)
	}
	return types.NewErr("range: %s does not fit 64 bits", clip(string(d)))
}

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
