// Package secret resolves references to secrets, env:NAME and file:PATH, at each sending, so that no secret is ever
// kept beside a request, and a rotated one is used at once.
package secret

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	envPrefix  = "env:"
	filePrefix = "file:"
	maxFile    = 64 << 10

	// settled is the age from which a file's time tells one content from the next: a younger file may be written once
	// more within the same tick of the file system's clock.
	settled = time.Second
)

// Resolver reads secrets. It is safe for concurrent use; its zero value works.
type Resolver struct {
	mu    sync.Mutex
	files map[string]file // by path; guarded by mu
}

type file struct {
	modified time.Time
	size     int64
	text     string
}

// IsReference tells whether text has the form of a reference.
func IsReference(text string) bool {
	return len(text) > len(envPrefix) && strings.HasPrefix(text, envPrefix) ||
		len(text) > len(filePrefix) && strings.HasPrefix(text, filePrefix)
}

// Resolve gives what reference names: a variable of the environment, or a file's text without the line end behind it.
// A secret that is missing or empty is an error that names the reference.
func (r *Resolver) Resolve(reference string) (string, error) {
	var text string
	var err error
	switch name, isEnv := strings.CutPrefix(reference, envPrefix); {
	case !IsReference(reference):
		return "", errors.New("secret is neither env:NAME nor file:PATH") // it may be the secret itself: not shown
	case isEnv:
		text = os.Getenv(name)
	default:
		text, err = r.read(strings.TrimPrefix(reference, filePrefix))
	}
	if err != nil {
		return "", fmt.Errorf("read secret %s: %w", reference, err)
	}
	if text == "" {
		return "", fmt.Errorf("secret %s is empty or missing", reference)
	}
	return text, nil
}

// read gives a file's text, from memory where the file was not touched since.
func (r *Resolver) read(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if info.Size() > maxFile {
		return "", fmt.Errorf("the file has %d bytes, more than %d", info.Size(), maxFile)
	}
	r.mu.Lock()
	known, ok := r.files[path]
	r.mu.Unlock()
	if ok && known.modified.Equal(info.ModTime()) && known.size == info.Size() {
		return known.text, nil
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	text := strings.TrimSuffix(strings.TrimSuffix(string(content), "\n"), "\r")
	if time.Since(info.ModTime()) < settled {
		return text, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.files == nil {
		r.files = make(map[string]file)
	}
	r.files[path] = file{modified: info.ModTime(), size: info.Size(), text: text}
	return text, nil
}

// mark encloses a reference within a header's value. It is a control character, which no value that is rendered from
// data may hold: so data can't name a secret of the deployment and have it sent.
const mark = "\x01"

// Mark gives the text that stands in a rendered header for the secret that reference names.
func Mark(reference string) string { return mark + reference + mark }

// Expand replaces what Mark gave, wherever it stands in value, by the secrets themselves.
func (r *Resolver) Expand(value string) (string, error) {
	before, rest, marked := strings.Cut(value, mark)
	if !marked {
		return value, nil
	}
	var expanded strings.Builder
	for marked {
		expanded.WriteString(before)
		reference, behind, closed := strings.Cut(rest, mark)
		if !closed {
			return "", errors.New("a marked secret has no end")
		}
		text, err := r.Resolve(reference)
		if err != nil {
			return "", err
		}
		expanded.WriteString(text)
		before, rest, marked = strings.Cut(behind, mark)
	}
	expanded.WriteString(before)
	return expanded.String(), nil
}
