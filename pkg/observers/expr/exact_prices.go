package expr

import (
	"strings"

	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/overloads"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

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
