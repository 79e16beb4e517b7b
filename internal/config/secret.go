package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Secret is a reference to a value that stands elsewhere: env:NAME or file:PATH; or, for the address of a database, the value
// itself. Whatever prints a Secret shows no password.
type Secret struct {
	reference string
	lookup    func(string) (string, bool) // of environment variables; nil asks the process's own
}

// NewSecret makes a Secret that is not of a file: env:NAME, file:PATH or postgres://….
func NewSecret(reference string) Secret { return Secret{reference: reference} }

// Empty tells whether nothing was configured.
func (s Secret) Empty() bool { return s.reference == "" }

// Resolve gives the value. The error completes "<key> …", and tells what is missing. A file's last line end is not part of it.
func (s Secret) Resolve() (string, error) {
	kind, rest, _ := strings.Cut(s.reference, ":")
	switch kind {
	case "env":
		lookup := s.lookup
		if lookup == nil {
			lookup = os.LookupEnv
		}
		value, ok := lookup(rest)
		if !ok || value == "" {
			return "", fmt.Errorf("needs the environment variable %s, which is not set", rest)
		}
		return value, nil
	case "file":
		text, err := os.ReadFile(rest)
		if err != nil {
			return "", fmt.Errorf("needs its file: %w", err)
		}
		value := strings.TrimRight(string(text), "\r\n")
		if value == "" {
			return "", fmt.Errorf("needs the file %s, which is empty", rest)
		}
		return value, nil
	case "postgres", "postgresql":
		return s.reference, nil
	default:
		return "", errors.New("must be env:NAME, file:PATH or postgres://user@host/database")
	}
}

// check judges the form of the reference. The error completes "<key> must be …", and shows nothing of what it judges, since a
// reference that is none may be the secret itself.
func (s Secret) check() error {
	kind, rest, _ := strings.Cut(s.reference, ":")
	switch kind {
	case "env", "file":
		if strings.TrimSpace(rest) != "" {
			return nil
		}
	case "postgres", "postgresql":
		if _, err := url.Parse(s.reference); err == nil && strings.HasPrefix(rest, "//") {
			return nil
		}
		return errors.New("an address such as postgres://user@host/database, with special characters of a password percent-encoded")
	}
	return errors.New("env:NAME, file:PATH or postgres://user@host/database (the value is not shown)")
}

// elsewhere tells whether the reference is to a value that stands elsewhere.
func (s Secret) elsewhere() bool {
	kind, rest, _ := strings.Cut(s.reference, ":")
	return (kind == "env" || kind == "file") && strings.TrimSpace(rest) != ""
}

// from gives the secret with its file's path taken from dir, and variables asked of lookup.
func (s Secret) from(dir string, lookup func(string) (string, bool)) Secret {
	s.lookup = lookup
	if path, ok := strings.CutPrefix(s.reference, "file:"); ok && !filepath.IsAbs(path) {
		s.reference = "file:" + filepath.Join(dir, path)
	}
	return s
}

// String gives the reference; of a value that stands in the file itself, what is not secret.
func (s Secret) String() string {
	if s.reference == "" || strings.HasPrefix(s.reference, "env:") || strings.HasPrefix(s.reference, "file:") {
		return s.reference
	}
	if u, err := url.Parse(s.reference); err == nil && u.Host != "" {
		u.RawQuery = ""
		return u.Redacted()
	}
	return "(secret)"
}

// GoString keeps %#v from printing fields.
func (s Secret) GoString() string { return fmt.Sprintf("config.Secret(%q)", s.String()) }

// MarshalText keeps encoders from printing fields.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue keeps loggers from printing fields.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

var passwords = regexp.MustCompile(`(://[^:/@\s]*:)([^/\s,]*)@|((?i:password|passwd|pwd|secret|token)\s*[=:]\s*)([^\s&,}]+)`)

// redact puts stars in place of passwords in a text that goes into an error; its length stays.
func redact(text string) string {
	return passwords.ReplaceAllStringFunc(text, func(found string) string {
		m := passwords.FindStringSubmatch(found)
		if m[3] != "" {
			return m[3] + strings.Repeat("*", len(m[4]))
		}
		return m[1] + strings.Repeat("*", len(m[2])) + "@"
	})
}
