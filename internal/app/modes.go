package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tributary-dev/tributary/internal/config"
	"github.com/tributary-dev/tributary/internal/telemetry"
)

// What a service can be asked for instead of a run.
const (
	modeCheck = "--check" // is the configuration right?
	modeReady = "--ready" // is the service that runs with it ready? The health check of containers, which hold no other program
)

// check reads what the configuration names, and says ok, or gives what is wrong.
func (s service) check(cfg config.Config, out, stderr io.Writer) error {
	env, err := newEnvironment(s.name, cfg, stderr)
	if err != nil {
		return err
	}
	if s.load != nil {
		if err := s.load(env); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintln(out, "ok")
	return err
}

// askReady asks the running service, and gives the conditions that do not hold as an error.
func (s service) askReady(ctx context.Context, cfg config.Config, out io.Writer) error {
	file := filepath.Join(cfg.StateDir, s.name+".addr")
	address, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("no %s runs with this configuration: there is no %s", s.name, file)
	}
	if err != nil {
		return fmt.Errorf("read the address of %s: %w", s.name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	readiness, err := telemetry.AskReady(ctx, http.DefaultClient, strings.TrimSpace(string(address)))
	if err != nil {
		return fmt.Errorf("%s does not answer: %w", s.name, err)
	}
	if readiness.Ready {
		_, err := fmt.Fprintln(out, "ready")
		return err
	}
	var missing []string
	for _, c := range readiness.Conditions {
		if !c.OK {
			missing = append(missing, c.Name+": "+c.Why)
		}
	}
	return fmt.Errorf("not ready: %s", strings.Join(missing, "; "))
}
