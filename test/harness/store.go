package harness

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// streamsDir is where the only NATS server has a folder for each stream.
func (s *System) streamsDir() string {
	return filepath.Join(s.Dir, "jetstream", "nats", "jetstream", "$G", "streams")
}

// CopyStore copies the files of NATS as they are now, while it may write to them, and gives the copy's folder.
func (s *System) CopyStore() string {
	s.t.Helper()
	to := s.t.TempDir()
	if err := copyFiles(s.streamsDir(), to); err != nil {
		s.t.Fatalf("copy the files of NATS: %v", err)
	}
	return to
}

// copyFiles copies a folder whose files come and go.
func copyFiles(from, to string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		place := filepath.Join(to, strings.TrimPrefix(path, from))
		if entry.IsDir() {
			return os.MkdirAll(place, 0o700)
		}
		in, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		defer func() { _ = in.Close() }()
		out, err := os.OpenFile(place, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(out, in)
		return errors.Join(err, out.Close())
	})
}

// PowerCut ends NATS, and starts it again with the files of an earlier copy: those of the named streams, of all where none is
// named. What was written since is gone, as if it had never left the page cache.
func (s *System) PowerCut(earlier string, streams ...string) {
	s.t.Helper()
	s.Kill("nats")
	if len(streams) == 0 {
		streams = []string{"."}
	}
	for _, stream := range streams {
		place := filepath.Join(s.streamsDir(), stream)
		err := errors.Join(os.RemoveAll(place), os.MkdirAll(place, 0o700), copyFiles(filepath.Join(earlier, stream), place))
		if err != nil {
			s.t.Fatalf("put back the files of NATS: %v", err)
		}
	}
	s.Start("nats")
}

// Tear ends NATS, cuts the last bytes of a stream's newest block off, and starts NATS again: a write that reached the disk in
// part.
func (s *System) Tear(stream string, bytes int64) {
	s.t.Helper()
	s.Kill("nats")
	path := s.newestBlock(filepath.Join(s.streamsDir(), stream, "msgs"))
	info, err := os.Stat(path)
	if err == nil {
		err = os.Truncate(path, max(info.Size()-bytes, 0))
	}
	if err != nil {
		s.t.Fatalf("tear the file of a stream: %v", err)
	}
	s.Start("nats")
}

func (s *System) newestBlock(dir string) string {
	s.t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.blk"))
	if err != nil || len(paths) == 0 {
		s.t.Fatalf("find the blocks in %s: %v", dir, err)
	}
	number := func(path string) (n int) {
		_, _ = fmt.Sscanf(filepath.Base(path), "%d.blk", &n)
		return n
	}
	return slices.MaxFunc(paths, func(a, b string) int { return number(a) - number(b) })
}
