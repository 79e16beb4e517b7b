// Package expr is CEL for observers: conditions, JSON bodies, and texts that hold ${expression}.
//
// Expressions are compiled at load, where syntax, types, unknown names and functions are errors with a position, and
// see one event through an Input: event (the whole envelope), before, after, key (absent ones equal null) and op, with
// the functions changed, changed_to and changed_from beside CEL's own. An evaluation is bounded in cost and in the size
// of its result, and two of the same event give the same bytes.
//
// Numbers are exact. JSON integers of 64 bits are CEL's int and uint; every other number, of an event or written in an
// expression, is a Decimal, CEL's double in name alone. Comparisons and arithmetic go across kinds of numbers; see Decimal
// for what they keep. Two integers divide as integers: after.count / 2.0 for a fraction.
//
// It does not read YAML: its errors carry an offset into the text that was compiled.
package expr

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	celast "cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

const (
	costLimit    = 1_000_000 // of one evaluation, in CEL's units, about one for each step
	maxText      = 32 << 10  // of one expression, in characters
	regexLimit   = 1000      // instructions of one compiled regular expression
	optionalsVer = 2
)

// Error is a text that does not compile.
type Error struct {
	Offset  int // in bytes, into the text
	Message string
	Hint    string // what to do; may be empty
	Secret  bool   // what stands at the offset may hold a secret, and is not to be shown
}

func (e *Error) Error() string { return e.Message }

// Env compiles expressions. It is safe for concurrent use.
type Env struct {
	cel     *cel.Env
	lookups []string // names of lookups that expressions may read; nil where there are none
}

// NewEnv makes the environment that all observers share.
func NewEnv() (*Env, error) {
	options := append(changedFunctions(), exactFunctions()...)
	options = append(options,
		mrkdwnFunction(),
		cel.Variable(varEvent, cel.MapType(cel.StringType, cel.DynType)),
		cel.Variable(varBefore, cel.DynType),
		cel.Variable(varAfter, cel.DynType),
		cel.Variable(varKey, cel.DynType),
		cel.Variable(varOp, cel.StringType),
		cel.CrossTypeNumericComparisons(true),
		cel.DefaultUTCTimeZone(true),
		cel.OptionalTypes(cel.OptionalTypesVersion(optionalsVer)),
		cel.ParserExpressionSizeLimit(maxText),
		cel.RegexProgramSizeLimit(regexLimit),
		cel.ASTValidators(cel.ValidateRegexLiterals(), cel.ValidateTimestampLiterals(), cel.ValidateDurationLiterals()),
	)
	env, err := cel.NewEnv(options...)
	if err != nil {
		return nil, fmt.Errorf("make expression environment: %w", err)
	}
	return &Env{cel: env}, nil
}

// WithLookups gives an environment whose expressions may read lookup.<name>.
func (e *Env) WithLookups(names []string) (*Env, error) {
	if len(names) == 0 {
		return e, nil
	}
	extended := e.cel
	if e.lookups == nil {
		var err error
		if extended, err = e.cel.Extend(cel.Variable(varLookup, cel.MapType(cel.StringType, cel.DynType))); err != nil {
			return nil, fmt.Errorf("make expression environment: %w", err)
		}
	}
	return &Env{extended, names}, nil
}

// program is one compiled expression and the type it was found to have.
type program struct {
	cel      cel.Program
	text     string
	kind     cel.Kind
	computed bool     // by an operator of numbers or texts: whatever it is, it is not true or false
	name     string   // of the type, in CEL's words
	images   []string // which of before, after and key it reads
	asks     bool     // it calls changed, changed_to or changed_from
	looks    bool     // it reads lookup
}

func (e *Env) compile(text string) (*program, error) {
	if strings.TrimSpace(text) == "" {
		return nil, &Error{Message: "the expression is empty"}
	}
	ast, issues := e.cel.Compile(text)
	if issues.Err() != nil {
		return nil, firstIssue(text, issues)
	}
	kind, name := ast.OutputType().Kind(), cel.FormatCELType(ast.OutputType())
	computed := computes(ast.NativeRep().Expr())
	if err := makeExact(text, ast); err != nil {
		return nil, err
	}
	compiled, err := e.cel.Program(ast, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(costLimit), cel.CostTracking(prices{}))
	if err != nil {
		return nil, &Error{Message: err.Error()}
	}
	p := &program{cel: compiled, text: text, kind: kind, name: name, computed: computed}
	var unknown *Error
	celast.PostOrderVisit(ast.NativeRep().Expr(), celast.NewExprVisitor(func(x celast.Expr) {
		switch x.Kind() {
		case celast.IdentKind:
			p.reads(x.AsIdent())
		case celast.SelectKind:
			unknown = cmp.Or(unknown, e.unknownLookup(text, ast, x))
		case celast.CallKind:
			p.asks = p.asks || asksForChange(x.AsCall().FunctionName())
		}
	}))
	if unknown != nil {
		return nil, unknown
	}
	return p, nil
}

// computes tells whether an expression is a sum, a product and the like.
func computes(x celast.Expr) bool {
	if x.Kind() != celast.CallKind {
		return false
	}
	switch x.AsCall().FunctionName() {
	case operators.Add, operators.Subtract, operators.Multiply, operators.Divide, operators.Modulo, operators.Negate:
		return true
	default:
		return false
	}
}

// unknownLookup gives the error of reading a lookup that the observer does not have.
func (e *Env) unknownLookup(text string, ast *cel.Ast, x celast.Expr) *Error {
	of := x.AsSelect().Operand()
	name := x.AsSelect().FieldName()
	if e.lookups == nil || of.Kind() != celast.IdentKind || of.AsIdent() != varLookup || slices.Contains(e.lookups, name) {
		return nil
	}
	err := &Error{Message: fmt.Sprintf("there is no lookup %q before this", name), Hint: "lookups: " + strings.Join(e.lookups, ", ")}
	if place, ok := ast.NativeRep().SourceInfo().GetOffsetRange(of.ID()); ok {
		err.Offset = len(string([]rune(text)[:place.Start]))
	}
	return err
}

func (p *program) reads(name string) {
	switch name {
	case varBefore, varAfter, varKey:
		if !slices.Contains(p.images, name) {
			p.images = append(p.images, name)
		}
	case varLookup:
		p.looks = true
	}
}

func (p *program) eval(in *Input) (ref.Val, error) {
	value, _, err := p.cel.Eval(in)
	if err == nil {
		return value, nil
	}
	err = conceal(p.text, err)
	if name := in.missing(p.images); name != "" {
		return nil, fmt.Errorf("%w: this event (%s) has no %s", err, in.fields.Op, name)
	}
	return nil, err
}

// firstIssue gives the issue that stands first in the text: later ones are often its consequences.
func firstIssue(text string, issues *cel.Issues) *Error {
	var first *cel.Error
	for _, issue := range issues.Errors() {
		if first == nil || before(issue, first) {
			first = issue
		}
	}
	if first == nil {
		return &Error{Message: issues.Err().Error()}
	}
	return &Error{
		Offset:  offsetOf(text, first.Location.Line(), first.Location.Column()),
		Message: plainMessage(first.Message),
		Hint: "variables: event, before, after, key, op; functions: changed(f), changed_to(f, v), changed_from(f, v), " +
			"has(after.f), and those of CEL",
	}
}

func before(a, b *cel.Error) bool {
	if a.Location.Line() != b.Location.Line() {
		return a.Location.Line() < b.Location.Line()
	}
	return a.Location.Column() < b.Location.Column()
}

// plainMessage leaves out the parser's lists of tokens, and the container that observers do not have.
func plainMessage(message string) string {
	message, _, _ = strings.Cut(message, " expecting {")
	message = strings.TrimSuffix(message, " (in container '')")
	if rest, ok := strings.CutPrefix(message, "Syntax error: "); ok {
		return "syntax error: " + rest
	}
	return message
}

// offsetOf finds the byte at line, from 1, and column, in characters from 0.
func offsetOf(text string, line, column int) int {
	offset := 0
	for ; line > 1; line-- {
		end := strings.IndexByte(text[offset:], '\n')
		if end < 0 {
			return len(text)
		}
		offset += end + 1
	}
	for i := range text[offset:] {
		if column <= 0 {
			return offset + i
		}
		column--
	}
	return len(text)
}

// Condition is an expression that is true or false.
type Condition struct{ program *program }

// CompileCondition compiles a condition; it errors with *Error.
func (e *Env) CompileCondition(text string) (*Condition, error) {
	p, err := e.compile(text)
	if err != nil {
		return nil, err
	}
	if p.kind != cel.BoolKind && p.kind != cel.DynKind || p.computed {
		return nil, &Error{
			Message: fmt.Sprintf("a condition is true or false, this is of type %s", p.name),
			Hint:    `compare it, as in after.status == "shipped"`,
		}
	}
	return &Condition{p}, nil
}

// Eval evaluates the condition. An error is a failed evaluation: a field that is missing, say.
func (c *Condition) Eval(in *Input) (bool, error) {
	value, err := c.program.eval(in)
	if err != nil {
		return false, err
	}
	result, ok := value.(types.Bool)
	if !ok {
		return false, fmt.Errorf("a condition is true or false, this event gave a %s", value.Type().TypeName())
	}
	return bool(result), nil
}

// ReadsLookups tells whether the condition needs what lookups answer.
func (c *Condition) ReadsLookups() bool { return c.program.looks }

// JSON is an expression whose value becomes JSON.
type JSON struct{ program *program }

// CompileJSON compiles an expression of any type that JSON has; it errors with *Error.
func (e *Env) CompileJSON(text string) (*JSON, error) {
	p, err := e.compile(text)
	if err != nil {
		return nil, err
	}
	if p.kind == cel.TypeKind {
		return nil, &Error{Message: "a type has no JSON", Hint: "wrap it in string()"}
	}
	return &JSON{p}, nil
}

// Append appends the JSON of the expression's value: keys sorted, without white space, the same bytes for the same
// event. It errors where the evaluation fails, the value has no JSON, or with ErrTooLarge.
func (j *JSON) Append(dst []byte, in *Input) ([]byte, error) {
	value, err := j.program.eval(in)
	if err != nil {
		return dst, err
	}
	return appendJSON(dst, value)
}
