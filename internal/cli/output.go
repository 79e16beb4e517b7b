package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// width is that of the terminal that text is made for.
const width = 80

const gap = "  "

// printer writes text. The first error stays, and ends the writing.
type printer struct {
	out  io.Writer
	now  time.Time
	wide bool
	err  error
}

func (in *Invocation) text() *printer {
	return &printer{out: in.Stdout, now: in.Now(), wide: in.Options.Wide}
}

func (p *printer) line(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.out, format+"\n", args...)
	}
}

// field writes a labelled value, and what does not fit below it; nothing where it is empty.
func (p *printer) field(label, value string) {
	const indent = 13
	p.hang(fmt.Sprintf("%-*s", indent, label), strings.Repeat(" ", indent), value)
}

// rest says below a list that it is not all, and how to see more.
func (p *printer) rest(more bool) {
	if more {
		p.line("There are more; --limit says how many are shown.")
	}
}

// block writes text of several lines, indented.
func (p *printer) block(text string) {
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		p.line("  %s", clean(line))
	}
}

// column is one of a table.
type column struct {
	title string
	right bool // numbers
	cut   bool // may lose its end to make the table fit; the widest of those is cut first
	tail  bool // loses its beginning instead: what went wrong stands at the end of errors
}

// table writes rows below titles. It does not write one without rows.
func (p *printer) table(columns []column, rows [][]string) {
	if len(rows) == 0 {
		return
	}
	widths := make([]int, len(columns))
	for i, c := range columns {
		widths[i] = utf8.RuneCountInString(c.title)
		for _, row := range rows {
			row[i] = clean(row[i])
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i]))
		}
	}
	if !p.wide {
		fit(columns, widths)
	}
	titles := make([]string, len(columns))
	for i, c := range columns {
		titles[i] = c.title
	}
	for _, row := range append([][]string{titles}, rows...) {
		var b strings.Builder
		for i, c := range columns {
			if i > 0 {
				b.WriteString(gap)
			}
			text := shorten(row[i], widths[i], c.tail)
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(text))
			if c.right {
				b.WriteString(pad + text)
			} else {
				b.WriteString(text + pad)
			}
		}
		p.line("%s", strings.TrimRight(b.String(), " "))
	}
}

// fit narrows columns until the table fits, always the widest of those that may be.
func fit(columns []column, widths []int) {
	const least = 6
	over := len(gap)*(len(columns)-1) - width
	for _, w := range widths {
		over += w
	}
	for ; over > 0; over-- {
		widest := -1
		for i, c := range columns {
			narrow := widths[i] <= max(least, utf8.RuneCountInString(c.title))
			if c.cut && !narrow && (widest < 0 || widths[i] >= widths[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			return
		}
		widths[widest]--
	}
}

// shorten cuts text to so many characters, with a sign where something was cut.
func shorten(text string, most int, tail bool) string {
	runes := []rune(text)
	switch {
	case len(runes) <= most:
		return text
	case tail:
		return "…" + string(runes[len(runes)-max(most-1, 0):])
	default:
		return string(runes[:max(most-1, 0)]) + "…"
	}
}

// clean takes from data what a terminal would obey.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t' || r == '\n':
			return ' '
		case !unicode.IsPrint(r):
			return '·'
		default:
			return r
		}
	}, strings.ToValidUTF8(text, "·"))
}

// when gives a time and how long ago it is, or will be; empty for none.
func (p *printer) when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(stampFormat) + " (" + p.ago(t) + ")"
}

const stampFormat = "2006-01-02 15:04:05Z"

func stamp(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(stampFormat)
}

func (p *printer) ago(t time.Time) string {
	if age := p.now.Sub(t); age >= 0 {
		return duration(age) + " ago"
	}
	return "in " + duration(t.Sub(p.now))
}

// age is for tables: how long ago a time is, or with a plus, how long it is still to come.
func (p *printer) age(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	age, sign := p.now.Sub(t), ""
	if age < 0 {
		age, sign = -age, "+"
	}
	const day = 24 * time.Hour
	switch {
	case age < time.Minute:
		return fmt.Sprintf("%s%ds", sign, age/time.Second)
	case age < time.Hour:
		return fmt.Sprintf("%s%dm", sign, age/time.Minute)
	case age < 2*day:
		return fmt.Sprintf("%s%dh", sign, age/time.Hour)
	default:
		return fmt.Sprintf("%s%dd", sign, age/day)
	}
}

// duration gives the two largest units.
func duration(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < 0:
		return "0s"
	case d < time.Second:
		return strconv.FormatInt(d.Milliseconds(), 10) + "ms"
	case d < time.Minute:
		return strconv.FormatInt(int64(d/time.Second), 10) + "s"
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	case d < day:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	default:
		return fmt.Sprintf("%dd%02dh", d/day, d%day/time.Hour)
	}
}

func size(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	value, unit := float64(n), 0
	for value >= 1024 && unit < len(units)-1 {
		value /= 1024
		unit++
	}
	if unit == 0 || value >= 100 {
		return fmt.Sprintf("%.0f %s", value, units[unit])
	}
	return fmt.Sprintf("%.1f %s", value, units[unit])
}

// count gives a number with its noun.
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}

// ranges gives ascending numbers shortly: 0-3,7.
func ranges(numbers []int) string {
	if len(numbers) == 0 {
		return "-"
	}
	numbers = slices.Sorted(slices.Values(numbers))
	var parts []string
	for i := 0; i < len(numbers); {
		j := i
		for j+1 < len(numbers) && numbers[j+1] == numbers[j]+1 {
			j++
		}
		if text := strconv.Itoa(numbers[i]); i == j {
			parts = append(parts, text)
		} else {
			parts = append(parts, text+"-"+strconv.Itoa(numbers[j]))
		}
		i = j + 1
	}
	return strings.Join(parts, ",")
}

// json writes a value for scripts.
func (in *Invocation) json(value any) error {
	encoder := json.NewEncoder(in.Stdout)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}

func (in *Invocation) wantsJSON() bool { return in.Options.Output == "json" }

// raw writes text of several lines as it is, but for what a terminal would obey.
func (p *printer) raw(text string) {
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		p.line("%s", clean(line))
	}
}

// paragraph writes words in lines that fit, the first indented as given, the others two more.
func (p *printer) paragraph(indent, text string) { p.hang(indent, indent+"  ", text) }

// hang writes words in lines that fit, the first behind one text, the others behind another.
func (p *printer) hang(first, rest, text string) {
	line, fresh := first, true
	for word := range strings.FieldsSeq(clean(text)) {
		if !fresh && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width {
			p.line("%s", line)
			line, fresh = rest, true
		}
		if !fresh {
			line += " "
		}
		line, fresh = line+word, false
	}
	if !fresh {
		p.line("%s", line)
	}
}
