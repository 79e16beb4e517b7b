package observers

import (
	"fmt"
	"sort"
	"strings"
	"unicode/utf8"
)

// Error is the first thing that is wrong in a file of observers. Its text shows the line, with a caret below the
// column, and what to do.
type Error struct {
	File         string
	Line, Column int // from 1, in characters
	Message      string
	Hint         string // what to do; may be empty
	line         string
}

func (e *Error) Error() string {
	text, caret := excerpt(e.line, e.Column-1)
	margin := len(fmt.Sprint(e.Line))
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d:%d: %s\n", e.File, e.Line, e.Column, e.Message)
	fmt.Fprintf(&b, "  %d | %s\n", e.Line, text)
	fmt.Fprintf(&b, "  %*s | %s^", margin, "", caret)
	if e.Hint != "" {
		fmt.Fprintf(&b, "\n  %s", e.Hint)
	}
	return b.String()
}

// excerpt cuts a long line around a column, and gives the blanks that bring a caret below it.
func excerpt(line string, column int) (text, caret string) {
	const before, most = 60, 120
	runes := []rune(line)
	column = min(column, len(runes))
	from, to := 0, len(runes)
	head, tail := "", ""
	if len(runes) > most {
		from = max(0, min(column-before, len(runes)-most))
		to = from + most
	}
	if from > 0 {
		head = "… "
	}
	if to < len(runes) {
		tail = " …"
	}
	pad := []rune(head + string(runes[from:column]))
	for i, r := range pad {
		if r != '\t' {
			pad[i] = ' '
		}
	}
	return head + string(runes[from:to]) + tail, string(pad)
}

// source is the text of a file, by offset in bytes and by line.
type source struct {
	name  string
	text  string
	lines []int // where each begins
}

func newSource(name, text string) *source {
	s := &source{name: name, text: text, lines: []int{0}}
	for i := range len(text) {
		if text[i] == '\n' {
			s.lines = append(s.lines, i+1)
		}
	}
	return s
}

// offset finds a byte by line and column, in characters, both from 1.
func (s *source) offset(line, column int) int {
	if line < 1 || line > len(s.lines) {
		return len(s.text)
	}
	at := s.lines[line-1]
	for ; column > 1 && at < len(s.text) && s.text[at] != '\n'; column-- {
		_, size := utf8.DecodeRuneInString(s.text[at:])
		at += size
	}
	return at
}

func (s *source) position(offset int) (line, column int) {
	line = sort.Search(len(s.lines), func(i int) bool { return s.lines[i] > offset })
	return line, utf8.RuneCountInString(s.text[s.lines[line-1]:offset]) + 1
}

func (s *source) errorAt(offset int, hint, message string) *Error {
	offset = min(max(offset, 0), len(s.text))
	line, column := s.position(offset)
	text, _, _ := strings.Cut(s.text[s.lines[line-1]:], "\n")
	return &Error{File: s.name, Line: line, Column: column, Message: message, Hint: hint, line: strings.TrimSuffix(text, "\r")}
}

// scalar is a text of the file, and where it was written.
type scalar struct {
	value string
	start int  // of what was written, quotes included; of the line behind the indicator of a block
	quote byte // ' or ", or 0
}

// locate finds the byte of the file that became the byte at offset of a scalar's value. White space may have been
// folded, and quotes and escapes undone on the way; it gives the scalar's start where the two do not meet.
func (s *source) locate(of scalar, offset int) int {
	text, at := s.text, of.start
	if of.quote != 0 {
		at++
	}
	for i := 0; ; {
		if at < len(text) && blank(text[at]) && (i == 0 || i < len(of.value) && blank(of.value[i])) {
			for at < len(text) && blank(text[at]) {
				at++
			}
			for i < len(of.value) && blank(of.value[i]) {
				if i == offset {
					return at - 1
				}
				i++
			}
		}
		switch {
		case i >= offset:
			return at
		case i >= len(of.value) || at >= len(text):
			return of.start
		case of.quote == '"' && text[at] == '\\':
			at += escapeLength(text[at:])
			_, size := utf8.DecodeRuneInString(of.value[i:])
			i += size
		case of.value[i] != text[at]:
			return of.start
		case of.quote == '\'' && text[at] == '\'':
			at += 2
			i++
		default:
			at++
			i++
		}
	}
}

func blank(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

// escapeLength gives the length of the escape that begins text, in double quotes.
func escapeLength(text string) int {
	if len(text) < 2 {
		return len(text)
	}
	switch text[1] {
	case 'x':
		return 4
	case 'u':
		return 6
	case 'U':
		return 10
	default:
		return 2
	}
}
