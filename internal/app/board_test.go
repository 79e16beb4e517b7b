package app_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/internal/app"
)

func TestFiguresAreWrittenInTheSamePlace(t *testing.T) {
	var out bytes.Buffer
	b := app.NewTerminal(&out)
	app.Say(b, "begun")
	app.Show(b, time.Now(), []string{"one 1", "two 2"})
	app.Show(b, time.Now(), []string{"one 3", "two 4"})
	fmt.Fprintln(app.Log(b, &out), "a log line")
	app.Show(b, time.Now(), []string{"one 5", "two 6"})
	if got, want := screen(out.String()), "begun\na log line\none 5\ntwo 6\n"; got != want {
		t.Errorf("the screen shows %q, want %q", got, want)
	}
}

func TestFiguresAreWrittenNowAndThenWhereThereIsNoTerminal(t *testing.T) {
	var out bytes.Buffer
	b := app.NewBoard(&out)
	start := time.Now()
	for second := range 11 {
		app.Show(b, start.Add(time.Duration(second)*time.Second), []string{fmt.Sprint("second ", second)})
	}
	if got, want := out.String(), "second 0\n\nsecond 5\n\nsecond 10\n\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// screen is what stands on a terminal after some output: lines, cursor up, and erase below.
func screen(output string) string {
	output = strings.NewReplacer("\x1b[?7l", "", "\x1b[?7h", "").Replace(output)
	var lines []string
	for line := range strings.Lines(output) {
		var up int
		if _, err := fmt.Sscanf(line, "\x1b[%dA", &up); err == nil {
			_, line, _ = strings.Cut(line, "\x1b[J")
			lines = lines[:len(lines)-up]
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "")
}
