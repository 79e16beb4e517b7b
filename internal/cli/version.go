package cli

import (
	"fmt"
	"runtime"
)

type versionCommand struct{}

// Help is shown below the flags.
func (versionCommand) Help() string {
	return `With -o json: {version, go, platform}.

Examples:
  tributary version`
}

// Run prints the version.
func (versionCommand) Run(in *Invocation) error {
	if in.wantsJSON() {
		return in.json(map[string]string{"version": in.Version, "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH})
	}
	_, err := fmt.Fprintln(in.Stdout, in.Version)
	return err
}
