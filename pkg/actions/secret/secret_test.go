package secret_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/pkg/actions/secret"
)

func TestResolve(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Setenv("TOKEN", "s3cret")
	t.Setenv("EMPTY", "")
	cases := map[string]struct{ reference, want, fault string }{
		"a variable":                 {reference: "env:TOKEN", want: "s3cret"},
		"a file without a line end":  {reference: "file:" + write("plain", "s3cret"), want: "s3cret"},
		"a file with one":            {reference: "file:" + write("line", "s3cret\n"), want: "s3cret"},
		"a file of Windows":          {reference: "file:" + write("windows", "s3cret\r\n"), want: "s3cret"},
		"spaces belong to a secret":  {reference: "file:" + write("spaces", " s3 cret \n"), want: " s3 cret "},
		"an empty variable":          {reference: "env:EMPTY", fault: "secret env:EMPTY is empty or missing"},
		"a missing variable":         {reference: "env:NOT_THERE", fault: "secret env:NOT_THERE is empty or missing"},
		"an empty file":              {reference: "file:" + write("empty", "\n"), fault: "is empty or missing"},
		"a missing file":             {reference: "file:" + dir + "/none", fault: "no such file"},
		"a file that is no secret":   {reference: "file:" + write("big", strings.Repeat("x", 65<<10)), fault: "more than 65536"},
		"a reference without a name": {reference: "env:", fault: "neither env:NAME nor file:PATH"},
		"no reference":               {reference: "hunter2", fault: "neither env:NAME nor file:PATH"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := new(secret.Resolver).Resolve(c.reference)
			if c.fault == "" && (err != nil || got != c.want) {
				t.Errorf("got %q, %v; want %q", got, err, c.want)
			}
			if c.fault != "" && (err == nil || !strings.Contains(err.Error(), c.fault) || strings.Contains(err.Error(), "hunter2")) {
				t.Errorf("error is %v, want %q", err, c.fault)
			}
		})
	}
}

func TestResolveSeesARotatedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	modified := time.Now().Add(-time.Hour)
	resolver := new(secret.Resolver)
	for _, content := range []string{"first", "later", "longer than before"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		modified = modified.Add(time.Second)
		if err := os.Chtimes(path, modified, modified); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if got, err := resolver.Resolve("file:" + path); err != nil || got != content {
				t.Fatalf("got %q, %v; want %q", got, err, content)
			}
		}
	}
}

func TestExpand(t *testing.T) {
	t.Setenv("TOKEN", "s3cret")
	t.Setenv("NESTED", secret.Mark("env:TOKEN"))
	token := secret.Mark("env:TOKEN")
	cases := map[string]struct {
		value, want string
		fails       bool
	}{
		"no secret":                             {value: "plain", want: "plain"},
		"nothing":                               {},
		"a secret alone":                        {value: token, want: "s3cret"},
		"a secret behind a word":                {value: "Bearer " + token, want: "Bearer s3cret"},
		"two secrets":                           {value: token + ":" + token + "!", want: "s3cret:s3cret!"},
		"what only looks like a reference":      {value: "env:TOKEN", want: "env:TOKEN"},
		"a secret's own marks are not expanded": {value: secret.Mark("env:NESTED"), want: token},
		"a missing secret":                      {value: secret.Mark("env:NOT_THERE"), fails: true},
		"a mark without an end":                 {value: strings.TrimSuffix(token, "\x01"), fails: true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := new(secret.Resolver).Expand(c.value)
			if got != c.want || c.fails != (err != nil) {
				t.Errorf("got %q, %v; want %q", got, err, c.want)
			}
		})
	}
}

// The clock of a file system may not move between two writings.
func TestResolveSeesAFileThatChangesTwiceInATick(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	now := time.Now()
	resolver := new(secret.Resolver)
	for _, content := range []string{"first", "later"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, now, now); err != nil {
			t.Fatal(err)
		}
		if got, err := resolver.Resolve("file:" + path); err != nil || got != content {
			t.Fatalf("got %q, %v; want %q", got, err, content)
		}
	}
}

func BenchmarkResolveFile(b *testing.B) {
	path := filepath.Join(b.TempDir(), "token")
	if err := os.WriteFile(path, []byte("s3cret"), 0o600); err != nil {
		b.Fatal(err)
	}
	hourAgo := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, hourAgo, hourAgo); err != nil {
		b.Fatal(err)
	}
	resolver := new(secret.Resolver)
	for b.Loop() {
		if _, err := resolver.Resolve("file:" + path); err != nil {
			b.Fatal(err)
		}
	}
}
