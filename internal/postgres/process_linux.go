package postgres

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// childAttributes puts the child into a process group of its own, lest Ctrl-C in a terminal reach it before us, has it end with
// us, and gives it a user whom PostgreSQL accepts.
func childAttributes() (*syscall.SysProcAttr, error) {
	attributes := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: immediate}
	if !needsNamespace() {
		return attributes, nil
	}
	inside := namedUser()
	attributes.Cloneflags = syscall.CLONE_NEWUSER
	attributes.UidMappings = []syscall.SysProcIDMap{{ContainerID: inside, HostID: os.Getuid(), Size: 1}}
	attributes.GidMappings = []syscall.SysProcIDMap{{ContainerID: inside, HostID: os.Getgid(), Size: 1}}
	return attributes, nil
}

// needsNamespace: PostgreSQL refuses root, and initdb a user without a name.
func needsNamespace() bool {
	if os.Geteuid() == 0 {
		return true
	}
	_, err := user.LookupId(strconv.Itoa(os.Geteuid()))
	return err != nil
}

// namedUser gives the id of some user that has a name here: a person's, daemon's, or nobody's.
func namedUser() int {
	for _, id := range []int{1000, 1, 65534} {
		if _, err := user.LookupId(strconv.Itoa(id)); err == nil {
			return id
		}
	}
	return 1000
}

// explainSpawn names the way out where user namespaces are forbidden.
func explainSpawn(path string, err error) error {
	if needsNamespace() && (errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EINVAL)) {
		return fmt.Errorf("start %s: %w; PostgreSQL does not run as root, and a user namespace, in which it would, is refused here: "+
			"run as another user, allow user namespaces, or name a running server in DATABASE_URL", path, err)
	}
	return fmt.Errorf("start %s: %w", path, err)
}
