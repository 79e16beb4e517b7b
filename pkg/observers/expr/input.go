package expr

import (
	"maps"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// Fields is what an Input is made of.
type Fields struct {
	Envelope []byte // the whole event, a JSON object
	Data     []byte // its member data, JSON
	Op       string
	Row      bool // data describes a change: its before, after and key are variables

	Schema, Table string // for a filter
}

// Input is what expressions see of one event. It decodes data, and the rest of the envelope, when an expression first
// asks for them, and once, however many expressions share it. It is safe for concurrent use, and reads the bytes of
// its fields, which must stay as they are.
type Input struct {
	*decoded
	lookups map[string]any // by name; nil where none was answered
}

// decoded is what all inputs of one event share.
type decoded struct {
	fields Fields

	dataOnce sync.Once
	data     any // decoded; nil where it could not be
	dataErr  error

	eventOnce sync.Once
	event     any // map[string]any, or *types.Err
}

// NewInput makes the input of one event; it decodes nothing yet.
func NewInput(f Fields) *Input { return &Input{decoded: &decoded{fields: f}} }

// WithLookup gives the same input with what a lookup answered, JSON, as lookup.<name>. It errors where that is no JSON.
func (in *Input) WithLookup(name string, answer []byte) (*Input, error) {
	value, err := decodeJSON(string(answer))
	if err != nil {
		return nil, err
	}
	lookups := maps.Clone(in.lookups)
	if lookups == nil {
		lookups = make(map[string]any, 1)
	}
	lookups[name] = value
	return &Input{in.decoded, lookups}, nil
}

// The variables.
const (
	varEvent  = "event"
	varBefore = "before"
	varAfter  = "after"
	varKey    = "key"
	varOp     = "op"
	varLookup = "lookup" // where the observer has some
)

// ResolveName gives a variable to CEL.
func (in *Input) ResolveName(name string) (any, bool) {
	switch name {
	case varAfter, varBefore, varKey:
		return in.image(name), true
	case varOp:
		return types.String(in.fields.Op), true
	case varEvent:
		return in.envelope(), true
	case varSchema:
		return types.String(in.fields.Schema), true
	case varTable:
		return types.String(in.fields.Table), true
	case varLookup:
		return in.lookups, in.lookups != nil
	default:
		return nil, false
	}
}

// Parent is nil: an input stands alone.
func (in *Input) Parent() cel.Activation { return nil }

// ResolveFunction gives CEL the functions that read the event without naming it.
func (in *Input) ResolveFunction(name string) (cel.LateBoundFunction, bool) {
	switch name {
	case fnChanged:
		return func(_ string, args ...ref.Val) ref.Val { return in.changed(args[0]) }, true
	case fnChangedTo:
		return func(_ string, args ...ref.Val) ref.Val { return in.changedBeside(varAfter, args[0], args[1]) }, true
	case fnChangedFrom:
		return func(_ string, args ...ref.Val) ref.Val { return in.changedBeside(varBefore, args[0], args[1]) }, true
	default:
		return nil, false
	}
}

func (in *Input) decodeData() (any, error) {
	in.dataOnce.Do(func() {
		if len(in.fields.Data) > 0 {
			in.data, in.dataErr = decodeJSON(string(in.fields.Data))
		}
	})
	return in.data, in.dataErr
}

// envelope gives the whole event, of which data is not decoded twice.
func (in *Input) envelope() any {
	in.eventOnce.Do(func() {
		data, err := in.decodeData()
		if err != nil {
			in.event = types.WrapErr(err)
			return
		}
		d := decoder{text: string(in.fields.Envelope)}
		if data != nil {
			d.replace, d.replacement = "data", data
		}
		event, err := d.document()
		if err != nil {
			in.event = types.WrapErr(err)
			return
		}
		in.event = event
	})
	return in.event
}

// row gives data where it describes a change; ok is false where there is none.
func (in *Input) row() (row map[string]any, ok bool, err error) {
	if !in.fields.Row {
		return nil, false, nil
	}
	data, err := in.decodeData()
	if err != nil {
		return nil, false, err
	}
	row, ok = data.(map[string]any)
	return row, ok, nil
}

// image gives before, after or key; null where the event has none: null has no field for has(), and equals null.
func (in *Input) image(name string) any {
	row, _, err := in.row()
	if err != nil {
		return types.WrapErr(err)
	}
	if value, ok := row[name]; ok {
		return value
	}
	return types.NullValue
}

// missing gives the first of names that the event has no image of; empty where it has them all.
func (in *Input) missing(names []string) string {
	for _, name := range names {
		if in.image(name) == types.NullValue {
			return name
		}
	}
	return ""
}
