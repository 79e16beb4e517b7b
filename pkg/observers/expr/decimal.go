package expr

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
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
