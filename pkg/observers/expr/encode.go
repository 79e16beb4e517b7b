package expr

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"

	"github.com/tributary-dev/tributary/pkg/events"
)

// MaxResult bounds the value of one expression, and of one text, in bytes as they are sent.
const MaxResult = 1 << 20

// ErrTooLarge marks a value over MaxResult.
var ErrTooLarge = errors.New("the value is larger than 1 MiB")

// encoder appends the JSON of CEL values. The same value has the same bytes: keys are sorted, no white space, numbers
// digit for digit.
type encoder struct {
	dst   []byte
	most  int // length of dst that is too large
	depth int
}

func appendJSON(dst []byte, value any) ([]byte, error) {
	e := encoder{dst: dst, most: len(dst) + MaxResult}
	if err := e.value(value); err != nil {
		return dst, err
	}
	return e.dst, nil
}

func (e *encoder) value(value any) error {
	if e.depth++; e.depth > maxDepth {
		return errors.New("the value is nested too deeply")
	}
	defer func() { e.depth-- }()
	var err error
	switch v := value.(type) {
	case types.Bool:
		e.dst = strconv.AppendBool(e.dst, bool(v))
	case types.Int:
		e.dst = strconv.AppendInt(e.dst, int64(v), 10)
	case types.Uint:
		e.dst = strconv.AppendUint(e.dst, uint64(v), 10)
	case Decimal:
		e.dst = append(e.dst, v...)
	case types.String:
		e.dst = events.AppendString(e.dst, string(v))
	case types.Bytes:
		e.dst = append(e.dst, '"')
		e.dst = base64.StdEncoding.AppendEncode(e.dst, v)
		e.dst = append(e.dst, '"')
	case types.Null:
		e.dst = append(e.dst, "null"...)
	case types.Timestamp:
		e.dst = v.AppendFormat(append(e.dst, '"'), time.RFC3339Nano)
		e.dst = append(e.dst, '"')
	case types.Duration:
		e.dst = events.AppendString(e.dst, strconv.FormatFloat(v.Seconds(), 'f', -1, 64)+"s")
	case map[string]any:
		err = e.object(v)
	case []any:
		err = e.array(len(v), func(i int) any { return v[i] })
	case *types.Optional:
		if !v.HasValue() {
			return errors.New("the value is optional.none(): give it a default with orValue")
		}
		err = e.value(v.GetValue())
	case traits.Mapper:
		err = e.mapper(v)
	case traits.Lister:
		size, _ := v.Size().(types.Int)
		err = e.array(int(size), func(i int) any { return v.Get(types.Int(i)) })
	case *types.Err:
		err = v
	case ref.Val:
		return fmt.Errorf("a %s has no JSON", v.Type().TypeName())
	default:
		return fmt.Errorf("a %T has no JSON", v)
	}
	if err == nil && len(e.dst) > e.most {
		err = ErrTooLarge
	}
	return err
}

func (e *encoder) array(size int, at func(int) any) error {
	e.dst = append(e.dst, '[')
	for i := range size {
		if i > 0 {
			e.dst = append(e.dst, ',')
		}
		if err := e.value(at(i)); err != nil {
			return err
		}
	}
	e.dst = append(e.dst, ']')
	return nil
}

func (e *encoder) mapper(m traits.Mapper) error {
	if object, ok := m.Value().(map[string]any); ok {
		return e.object(object)
	}
	object := make(map[string]any)
	for it := m.Iterator(); it.HasNext() == types.True; {
		key := it.Next()
		name, ok := key.(types.String)
		if !ok {
			return fmt.Errorf("the keys of a JSON object are strings, not %s: wrap the key in string()", key.Type().TypeName())
		}
		object[string(name)] = m.Get(key)
	}
	return e.object(object)
}

func (e *encoder) object(object map[string]any) error {
	names := make([]string, 0, len(object))
	for name := range object {
		names = append(names, name)
	}
	slices.Sort(names)
	e.dst = append(e.dst, '{')
	for i, name := range names {
		if i > 0 {
			e.dst = append(e.dst, ',')
		}
		e.dst = append(events.AppendString(e.dst, name), ':')
		if err := e.value(object[name]); err != nil {
			return err
		}
	}
	e.dst = append(e.dst, '}')
	return nil
}
