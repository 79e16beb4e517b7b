package expr

import (
	"fmt"
	"math/big"
	"strconv"
	"strings"
)

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
