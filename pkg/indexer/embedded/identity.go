package embedded

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Identity tells the folder's content from that of every other one: it is made with the folder, and goes with it.
func (x *Index) Identity(context.Context) (string, error) { return "embedded:" + x.id, nil }

// identify reads the folder's id, or makes it.
func (x *Index) identify() error {
	path := filepath.Join(x.dir, "id")
	text, err := os.ReadFile(path)
	if err == nil && len(strings.TrimSpace(string(text))) > 0 {
		x.id = strings.TrimSpace(string(text))
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read the folder's id: %w", err)
	}
	x.id = rand.Text()
	// Written elsewhere and moved, so that an id is whole whenever the process dies.
	if err := os.WriteFile(path+".new", []byte(x.id+"\n"), 0o600); err != nil {
		return fmt.Errorf("write the folder's id: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("write the folder's id: %w", err)
	}
	return nil
}
