package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// oldest is the first major version of PostgreSQL that Tributary works with.
const oldest = 14

// Binaries are PostgreSQL's programs in one folder.
type Binaries struct {
	Dir     string
	Version string // 15.18
	Major   int    // 15
}

func (b Binaries) path(program string) string { return filepath.Join(b.Dir, program) }

// folders are where packages and installers put PostgreSQL, besides what pg_config and PATH tell.
var folders = []string{
	"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin", "/usr/libexec/postgresql*",
	"/opt/homebrew/opt/postgresql@*/bin", "/usr/local/opt/postgresql@*/bin",
}

// Locate finds the programs initdb and postgres, of version 14 or newer. The first hit wins: the folder that the variable PGBIN
// names; that of pg_config; PATH; the newest in the usual folders; and last those that Fetch has fetched, or now fetches.
// PGBIN=fetch:16.9.0 asks for fetched ones of that version. A PGBIN that holds none is an error; otherwise the error says all
// that was tried.
func Locate(ctx context.Context) (Binaries, error) {
	if named := os.Getenv("PGBIN"); named != "" {
		if version, ok := strings.CutPrefix(named, "fetch:"); ok {
			return Fetch(ctx, version)
		}
		b, err := inspect(ctx, named)
		if err != nil {
			return Binaries{}, fmt.Errorf("find PostgreSQL: PGBIN=%s: %w", named, err)
		}
		return b, nil
	}
	tried := []error{errors.New("PGBIN: not set")}
	for _, way := range []struct {
		name string
		look func(context.Context) ([]string, error)
	}{
		{"pg_config", askPgConfig}, {"PATH", searchPath}, {strings.Join(folders, ", "), searchFolders},
	} {
		dirs, err := way.look(ctx)
		if err != nil {
			tried = append(tried, fmt.Errorf("%s: %w", way.name, err))
		}
		for _, dir := range dirs {
			b, err := inspect(ctx, dir)
			if err == nil {
				return b, nil
			}
			tried = append(tried, fmt.Errorf("%s: %w", way.name, err))
		}
	}
	b, err := Fetch(ctx, DefaultVersion)
	if err != nil {
		tried = append(tried, err)
		return Binaries{}, fmt.Errorf("find PostgreSQL: install version %d or newer, or set PGBIN to the folder of initdb and postgres; tried:\n%w",
			oldest, errors.Join(tried...))
	}
	return b, nil
}

func askPgConfig(ctx context.Context) ([]string, error) {
	out, err := exec.CommandContext(ctx, "pg_config", "--bindir").Output()
	if err != nil {
		return nil, err
	}
	return []string{strings.TrimSpace(string(out))}, nil
}

func searchPath(context.Context) ([]string, error) {
	path, err := exec.LookPath("postgres")
	if err != nil {
		return nil, err
	}
	// Only the folder of the real file holds all the programs, and the libraries beside them.
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return nil, err
	}
	return []string{filepath.Dir(path)}, nil
}

func searchFolders(context.Context) ([]string, error) {
	var found []string
	for _, pattern := range folders {
		dirs, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		found = append(found, dirs...)
	}
	if len(found) == 0 {
		return nil, errors.New("no such folder")
	}
	slices.SortStableFunc(found, func(a, b string) int { return cmp.Compare(numberIn(b), numberIn(a)) })
	return found, nil
}

var digits = regexp.MustCompile(`\d+`)

func numberIn(dir string) int {
	n, _ := strconv.Atoi(digits.FindString(dir))
	return n
}

var versionText = regexp.MustCompile(`PostgreSQL\) ((\d+)[0-9.a-z]*)`)

// inspect tells which version a folder holds; it errors where the folder lacks a program, or holds too old a version.
func inspect(ctx context.Context, dir string) (Binaries, error) {
	for _, program := range []string{"initdb", "postgres"} {
		if _, err := exec.LookPath(filepath.Join(dir, program)); err != nil {
			return Binaries{}, fmt.Errorf("%s holds no program %s", dir, program)
		}
	}
	out, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version").Output()
	if err != nil {
		return Binaries{}, fmt.Errorf("ask %s for its version: %w", filepath.Join(dir, "postgres"), err)
	}
	match := versionText.FindSubmatch(out)
	if match == nil {
		return Binaries{}, fmt.Errorf("%s says %q for its version", filepath.Join(dir, "postgres"), out)
	}
	b := Binaries{Dir: dir, Version: string(match[1])}
	if b.Major, err = strconv.Atoi(string(match[2])); err != nil || b.Major < oldest {
		return Binaries{}, fmt.Errorf("%s holds version %s, older than %d", dir, b.Version, oldest)
	}
	return b, nil
}
