package app

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/tributary-dev/tributary/internal/terminal"
)

// board is some lines of figures on a terminal, written over and over in the same place. Where the output is no terminal,
// they are written anew, and not as often.
type board struct {
	terminal bool

	mu      sync.Mutex
	out     io.Writer
	lines   int // that stand there now
	written time.Time
}

// What terminals understand (ECMA-48, and DEC's private mode 7). A line that is too long is cut, for one that wraps would
// be two.
const (
	up         = "\x1b[%dA"
	eraseBelow = "\x1b[J"
	noWrap     = "\x1b[?7l"
	wrap       = "\x1b[?7h"
)

// betweenBlocks is how often figures are written to what is no terminal.
const betweenBlocks = 5 * time.Second

func newBoard(out io.Writer) *board {
	return &board{out: out, terminal: terminal.Is(out) && os.Getenv("TERM") != "dumb"}
}

// say writes a line that stays, above the figures.
func (b *board) say(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.clear()
	fmt.Fprintf(b.out, format+"\n", args...)
}

// show writes the figures.
func (b *board) show(now time.Time, lines []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.terminal && now.Sub(b.written) < betweenBlocks {
		return
	}
	b.written = now
	b.clear()
	text := strings.Join(lines, "\n")
	if !b.terminal {
		fmt.Fprintln(b.out, text+"\n")
		return
	}
	fmt.Fprintln(b.out, noWrap+text+wrap)
	b.lines = len(lines)
}

// log gives a writer of log lines to another output, which may be the same terminal.
func (b *board) log(to io.Writer) io.Writer { return logAbove{b, to} }

type logAbove struct {
	*board
	to io.Writer
}

func (l logAbove) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clear()
	return l.to.Write(line)
}

// clear takes the figures away. The lock is held.
func (b *board) clear() {
	if b.lines == 0 {
		return
	}
	fmt.Fprintf(b.out, up+eraseBelow, b.lines)
	b.lines = 0
}
