//go:build !linux

package postgres

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

func childAttributes() (*syscall.SysProcAttr, error) {
	if os.Geteuid() == 0 {
		return nil, errors.New("PostgreSQL does not run as root: run as another user, or name a running server in DATABASE_URL")
	}
	return nil, nil
}

func explainSpawn(path string, err error) error { return fmt.Errorf("start %s: %w", path, err) }
