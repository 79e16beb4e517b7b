//go:build unix

package pgtest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// dirPattern names the folders of shared servers. Each is locked by the test binary that made it, for as long as that lives.
const dirPattern = "tributary-pgtest-"

// claimDir makes the folder of this binary's server. The lock's file stays open until this process ends.
func claimDir() (string, error) {
	for {
		dir, err := os.MkdirTemp("", dirPattern)
		if err != nil {
			return "", err
		}
		_, err = lock(dir)
		if err == nil {
			return dir, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return "", fmt.Errorf("lock %s: %w", dir, err)
		}
		// Another binary has swept the folder between the making and the locking of its lock.
	}
}

// sweep removes the folders of test binaries that were killed.
func sweep() {
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), dirPattern+"*"))
	for _, dir := range dirs {
		// Only a folder that was locked once is judged: in another one the owner is about to.
		if _, err := os.Stat(filepath.Join(dir, "lock")); err != nil {
			continue
		}
		if held, err := lock(dir); err == nil {
			_ = os.RemoveAll(dir)
			_ = syscall.Close(held)
		}
	}
}

// lock takes the lock of a folder, if it is free. The descriptor is a bare one, which no finalizer closes.
func lock(dir string) (int, error) {
	fd, err := syscall.Open(filepath.Join(dir, "lock"), syscall.O_CREAT|syscall.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return -1, err
	}
	if err := syscall.Flock(fd, syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = syscall.Close(fd)
		return -1, err
	}
	return fd, nil
}
