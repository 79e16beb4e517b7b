//go:build unix

package natsserver

import (
	"errors"
	"os"
	"syscall"
)

// lockFile takes the lock that ends with the file's closing, and so with the process too, however it dies. NATS itself
// does not guard a store: two servers on one directory corrupt it.
func lockFile(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = ErrStoreInUse
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}
