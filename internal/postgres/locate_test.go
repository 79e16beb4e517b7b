package postgres_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tributary-dev/tributary/internal/postgres"
)

// program writes an executable shell script.
func program(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
}

func folderOf(t *testing.T, version string) string {
	t.Helper()
	dir := t.TempDir()
	program(t, dir, "initdb", "exit 1")
	program(t, dir, "postgres", "echo 'postgres (PostgreSQL) "+version+" (Some Linux)'")
	return dir
}

func TestLocateTakesTheFirstHit(t *testing.T) {
	named, configured := folderOf(t, "16.4"), folderOf(t, "17beta2")
	path := t.TempDir()
	program(t, path, "pg_config", "echo "+configured)
	t.Setenv("PATH", path+":/usr/bin:/bin")

	t.Setenv("PGBIN", named)
	if b, err := postgres.Locate(t.Context()); err != nil || b != (postgres.Binaries{Dir: named, Version: "16.4", Major: 16}) {
		t.Errorf("with PGBIN: got %+v, %v", b, err)
	}
	t.Setenv("PGBIN", "")
	if b, err := postgres.Locate(t.Context()); err != nil || b != (postgres.Binaries{Dir: configured, Version: "17beta2", Major: 17}) {
		t.Errorf("with pg_config: got %+v, %v", b, err)
	}
}

func TestLocateRefusesAWrongPGBIN(t *testing.T) {
	for name, c := range map[string]struct{ dir, want string }{
		"an empty folder":     {t.TempDir(), "holds no program initdb"},
		"too old a version":   {folderOf(t, "13.21"), "older than 14"},
		"a program of others": {folderOf(t, ") ("), "for its version"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("PGBIN", c.dir)
			_, err := postgres.Locate(t.Context())
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "PGBIN="+c.dir) {
				t.Errorf("got %v, want PGBIN and %q in it", err, c.want)
			}
		})
	}
}
