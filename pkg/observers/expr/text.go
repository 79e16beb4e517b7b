package expr

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"

	"github.com/tributary-dev/tributary/pkg/events"
)

// Kind says where a text stands, and so how values in it are escaped.
type Kind int

// The kinds of texts. A URL is compiled by CompileURL.
const (
	Plain   Kind = iota + 1 // for people: values as they are
	Header                  // a header's value: control characters but tabs are an error
	Subject                 // of NATS: a value becomes one token, percent-encoded
	Mrkdwn                  // of Slack: a value can't mention, link, or hold an entity
)

// Text is a text that may hold ${expression}; $${ stands for ${. A value is a string, a number or a bool, and never
// read again for further placeholders.
type Text struct {
	kind  Kind
	parts []part
}

// part is a piece of literal text, or an expression.
type part struct {
	literal string // without its escapes
	offset  int    // in the source
	source  string // of the expression
	program *program
}

// CompileText compiles a text; it errors with *Error.
func (e *Env) CompileText(text string, kind Kind) (*Text, error) {
	parts, err := e.parts(text)
	if err != nil {
		return nil, err
	}
	if kind == Header {
		for _, p := range parts {
			if at := controlIn(p.literal); at >= 0 {
				return nil, &Error{Offset: p.offset, Message: fmt.Sprintf("a header can't hold the character %q", p.literal[at])}
			}
		}
	}
	return &Text{kind, parts}, nil
}

// Literal gives the text where it holds no expression.
func (t *Text) Literal() (text string, ok bool) {
	var b strings.Builder
	for _, p := range t.parts {
		if p.program != nil {
			return "", false
		}
		b.WriteString(p.literal)
	}
	return b.String(), true
}

// Fill gives the text with value in the place of each expression: what can be judged of it before there is an event.
func (t *Text) Fill(value string) string {
	var b strings.Builder
	for _, p := range t.parts {
		if p.program != nil {
			b.WriteString(value)
		} else {
			b.WriteString(p.literal)
		}
	}
	return b.String()
}

// Render gives the text for one event. It errors where an evaluation fails, a value can't stand in the text, or with
// ErrTooLarge.
func (t *Text) Render(in *Input) (string, error) {
	dst := make([]byte, 0, 128)
	var err error
	for _, p := range t.parts {
		if p.program == nil {
			dst = append(dst, p.literal...)
		} else if dst, err = t.appendValue(dst, p, in); err != nil {
			return "", err
		}
		if len(dst) > MaxResult {
			return "", ErrTooLarge
		}
	}
	return string(dst), nil
}

func (t *Text) appendValue(dst []byte, p part, in *Input) ([]byte, error) {
	value, err := p.value(in)
	if err != nil {
		return nil, err
	}
	switch t.kind {
	case Plain:
		return append(dst, value...), nil
	case Header:
		if at := controlIn(value); at >= 0 {
			return nil, fmt.Errorf("${%s}: a header can't hold the character %q", p.source, value[at])
		}
		return append(dst, value...), nil
	case Subject:
		return events.AppendToken(dst, value), nil
	case Mrkdwn:
		return append(dst, mrkdwn.Replace(value)...), nil
	default:
		panic("expr: unknown kind of text")
	}
}

// parts cuts a text at its placeholders and compiles them.
func (e *Env) parts(text string) ([]part, error) {
	parts, err := split(text)
	if err != nil {
		return nil, err
	}
	for i := range parts {
		p := &parts[i]
		if p.source == "" {
			continue
		}
		if p.program, err = e.compile(p.source); err == nil {
			err = p.checkKind()
		}
		if err != nil {
			var located *Error
			if errors.As(err, &located) {
				located.Offset += p.offset
			}
			return nil, err
		}
	}
	return parts, nil
}

func (p *part) checkKind() error {
	switch p.program.kind {
	case cel.DynKind, cel.StringKind, cel.IntKind, cel.UintKind, cel.DoubleKind, cel.BoolKind:
		return nil
	default:
		return &Error{Message: fmt.Sprintf("a text takes a string, a number or a bool, this is of type %s", p.program.name)}
	}
}

// value evaluates the expression to text.
func (p *part) value(in *Input) (string, error) {
	value, err := p.program.eval(in)
	if err == nil {
		var text string
		if text, err = textOf(value); err == nil {
			return text, nil
		}
	}
	return "", fmt.Errorf("${%s}: %w", p.source, err)
}

func textOf(value ref.Val) (string, error) {
	switch v := value.(type) {
	case types.String:
		return string(v), nil
	case types.Int:
		return strconv.FormatInt(int64(v), 10), nil
	case types.Uint:
		return strconv.FormatUint(uint64(v), 10), nil
	case types.Bool:
		return strconv.FormatBool(bool(v)), nil
	case Decimal:
		return string(v), nil
	default:
		return "", fmt.Errorf("a text takes a string, a number or a bool, this event gave a %s", value.Type().TypeName())
	}
}

// controlIn finds a character that would end a header or is not allowed in one; -1 where there is none.
func controlIn(text string) int {
	for i := range len(text) {
		if c := text[i]; c < ' ' && c != '\t' || c == 0x7F {
			return i
		}
	}
	return -1
}
