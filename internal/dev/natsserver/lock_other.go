//go:build !unix

package natsserver

import "os"

// lockFile guards nothing where there is no flock.
func lockFile(path string) (*os.File, error) { return os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600) }
