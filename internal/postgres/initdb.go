package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// initialize makes the data directory where there is none, and checks one that is there.
func (s *Server) initialize(ctx context.Context) error {
	dir := s.options.Dir
	version, err := os.ReadFile(filepath.Join(dir, "PG_VERSION"))
	if err == nil {
		if made := strings.TrimSpace(string(version)); made != strconv.Itoa(s.binaries.Major) {
			return fmt.Errorf("start PostgreSQL in %s: its data was made by version %s, and %s holds %s; set PGBIN to the binaries of version %s",
				dir, made, s.binaries.Dir, s.binaries.Version, made)
		}
		return nil
	}
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fmt.Errorf("start PostgreSQL: %w", err)
	case len(entries) > 0:
		return fmt.Errorf("start PostgreSQL: %s holds files, and none of them is PG_VERSION: it is no data directory, and not empty either", dir)
	}
	if err := s.initdb(ctx); err != nil {
		return fmt.Errorf("make the data directory %s: %w", dir, err)
	}
	return nil
}

// initdb works beside the data directory and renames at the end, so that one that was cut off leaves nothing half made.
func (s *Server) initdb(ctx context.Context) error {
	dir := s.options.Dir
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	fresh := dir + ".initdb"
	// Not every system has the locale C.UTF-8; C differs from it in nothing that matters here.
	for _, locale := range []string{"C.UTF-8", "C"} {
		if err := os.RemoveAll(fresh); err != nil {
			return err
		}
		args := []string{"-D", fresh, "-U", User, "-A", "trust", "-E", "UTF8", "--locale=" + locale}
		if s.options.NoSync {
			args = append(args, "--no-sync")
		}
		err := runToEnd(ctx, s.binaries.path("initdb"), args)
		if err == nil {
			break
		}
		if locale == "C" || ctx.Err() != nil {
			return errors.Join(err, os.RemoveAll(fresh))
		}
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Rename(fresh, dir)
}

func runToEnd(ctx context.Context, path string, args []string) error {
	p, err := spawn(path, args, nil)
	if err != nil {
		return err
	}
	select {
	case <-p.ended:
		if p.err != nil {
			return p.failure()
		}
		return nil
	case <-ctx.Done():
		return errors.Join(context.Cause(ctx), p.end(ctx, immediate))
	}
}
