package app

import "io"

// NewTerminal is a board whose output counts as a terminal.
func NewTerminal(out io.Writer) *board {
	b := newBoard(out)
	b.terminal = true
	return b
}

// NewBoard is a board on any output.
var NewBoard = newBoard

// Say, Show and Log are its methods.
var (
	Say  = (*board).say
	Show = (*board).show
	Log  = (*board).log
)
