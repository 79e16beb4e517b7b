// Package query is the language in which the index is asked, a common part of what search engines know as query_string:
//
//	shipped "two words"                    words of rows and data; several must all be there
//	entity:public.orders op:update         a field is exactly this
//	after.status:shipped after:shipped     a column of a row, or any of its columns; so before., key., data.
//	a OR b, NOT c, -c, (a OR b) c          AND binds what stands side by side
//	type:tributary.row.*, after.city:New*  * for anything, ? for one character; of columns, * at the end alone
//	time:[2026-11-01 TO now-1h] tx.id:>700 ranges; { } leave the bound itself out, * is no bound
//	after.email:*                          the field is there
//
// Values are compared as they are written, words of text without regard to case. A backslash takes its meaning from the
// character behind it, quotes from all within.
//
// It promises that every index understands a query alike, or that Parse refuses it: what is parsed is a tree of a few
// kinds of nodes that each index translates. It knows the fields that documents have, and no index.
package query

import "fmt"

// Kind says how the values of a field are indexed.
type Kind int

// The kinds of fields.
const (
	Keyword Kind = iota // texts that are equal or not
	Text                // words, in lower case
	Time
	Number // whole numbers
	Bool
	Object // what it holds has names of its own: Name+"."+path is a field of the kind Value
	Value  // within an object; all are compared as texts
)

// Field is a field of documents.
type Field struct {
	Name string
	Kind Kind
}

// Fields lists the fields that every document may have, in the order of documents.
func Fields() []Field {
	return []Field{
		{"id", Keyword}, {"effect_id", Keyword}, {"source", Keyword}, {"ce_source", Keyword}, {"type", Keyword},
		{"subject", Keyword}, {"time", Time}, {"stored", Time}, {"partition", Number}, {"partitionkey", Keyword},
		{"sequence", Keyword}, {"stream_sequence", Number}, {"traceparent", Keyword}, {"op", Keyword},
		{"schema", Keyword}, {"table", Keyword}, {"entity", Keyword}, {"key_text", Keyword}, {"changed", Keyword},
		{"unchanged", Keyword}, {"oversize", Bool},
		{"tx.id", Number}, {"tx.commit_lsn", Keyword}, {"tx.index", Number}, {"tx.last", Bool},
		{"key", Object}, {"before", Object}, {"after", Object}, {"data", Object}, {"text", Text},
	}
}

// inAll are the fields in which a word without a field is looked for.
var inAll = []Field{{"text", Text}, {"id", Keyword}, {"effect_id", Keyword}, {"partitionkey", Keyword}, {"entity", Keyword}}

// Node is a part of a query: All, And, Or, Not, Term, Prefix, Wildcard, Exists, TextRange, IntRange or TimeRange.
type Node interface{ isNode() }

// All matches every document.
type All struct{}

// And matches where all of its parts do, Or where one does; neither is empty.
type (
	And struct{ Parts []Node }
	Or  struct{ Parts []Node }
)

// Not matches where its part does not.
type Not struct{ Part Node }

// Term matches where the field, of any kind but Time and Number, is the text; a Text where it has the words of it in
// this order, one behind the other.
type Term struct {
	Field Field
	Text  string
}

// Prefix matches where the field, of the kind Keyword, Text, Object or Value, begins with the text; a Text where one of
// its words does, and the text is in lower case then.
type Prefix struct {
	Field Field
	Text  string
}

// Wildcard matches where the field, of the kind Keyword, Text or Object, has the form of the pattern: * stands for any
// characters, ? for one, a backslash before either or before another for the character itself. Of a Text it is a word,
// and the pattern is in lower case.
type Wildcard struct {
	Field   Field
	Pattern string
}

// Exists matches where the document has the field, of any kind.
type Exists struct{ Field Field }

// TextRange matches where the field, of the kind Keyword, Object or Value, lies between two texts, by their bytes.
type TextRange struct {
	Field     Field
	Low, High *Bound // nil where there is none; one is there
}

// Bound is an end of a TextRange.
type Bound struct {
	Text      string
	Inclusive bool
}

// IntRange matches where the field, of the kind Number, lies between two numbers or is one of them.
type IntRange struct {
	Field     Field
	Low, High int64
}

// TimeRange matches where the field, of the kind Time, is From or later, and before To; in milliseconds since 1970,
// which is as fine as an index knows times.
type TimeRange struct {
	Field    Field
	From, To int64
}

func (All) isNode()       {}
func (And) isNode()       {}
func (Or) isNode()        {}
func (Not) isNode()       {}
func (Term) isNode()      {}
func (Prefix) isNode()    {}
func (Wildcard) isNode()  {}
func (Exists) isNode()    {}
func (TextRange) isNode() {}
func (IntRange) isNode()  {}
func (TimeRange) isNode() {}

// Error says what is wrong with a query.
type Error struct {
	Position int // in characters, from 1
	Message  string
}

func (e *Error) Error() string {
	return fmt.Sprintf("query, at character %d: %s", e.Position, e.Message)
}
