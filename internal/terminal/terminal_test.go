package terminal_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/tributary-dev/tributary/internal/terminal"
)

func TestWhatIsNoTerminal(t *testing.T) {
	dir := t.TempDir()
	file, err := os.Create(filepath.Join(dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	stdin := filepath.Join(dir, "stdin") // a name tells nothing: that of standard input is its own
	if err := os.Symlink(os.DevNull, stdin); err != nil {
		t.Fatal(err)
	}
	null, err := os.Open(stdin)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for what, stream := range map[string]any{"a buffer": &bytes.Buffer{}, "nothing": nil, "a file": file, "the null device": null} {
		if terminal.Is(stream) {
			t.Errorf("%s counts as a terminal", what)
		}
	}
}

func TestATerminalIsOne(t *testing.T) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip("no terminal can be made here: ", err)
	}
	defer master.Close()
	if !terminal.Is(master) {
		t.Error("it does not count as one")
	}
}
