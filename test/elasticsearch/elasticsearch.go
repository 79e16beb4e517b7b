// Package elasticsearch gives tests a real Elasticsearch: the server that ELASTICSEARCH_URL names, else one that the
// script start beside this file fetches once and starts. What is started here ends with the test process, however that
// ends, and its data go with it. Nothing is faked: mappings, conflicts, versions, 429 and 401 are the server's own.
package elasticsearch

import (
	"bufio"
	"embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// URLVariable names the environment variable with the server that tests share; make elasticsearch starts one.
const URLVariable = "ELASTICSEARCH_URL"

//go:embed start
var scripts embed.FS

// URL gives the server that all tests of the process share: they must use names of their own, as Index gives them. It
// skips the test where Java or Maven is missing.
func URL(t testing.TB) string {
	t.Helper()
	if url := os.Getenv(URLVariable); url != "" {
		return url
	}
	s, err := shared()
	fail(t, err)
	return s.URL
}

// Start starts a server for this test alone; arguments are the script's, such as --password or --set.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	s, err := start(args...)
	fail(t, err)
	t.Cleanup(s.Stop)
	return s
}

func fail(t testing.TB, err error) {
	t.Helper()
	switch {
	case errors.Is(err, errMissing):
		t.Skipf("Elasticsearch can't be started here: %v", err)
	case err != nil:
		t.Fatal(err)
	}
}

// Server is one that runs.
type Server struct {
	URL   string
	lives io.Closer // the server stops when this is closed, by us or by our end
}

// Stop lets the server end; it does not wait for that.
func (s *Server) Stop() { _ = s.lives.Close() }

var errMissing = errors.New("tools are missing")

var shared = sync.OnceValues(func() (*Server, error) { return start() })

// statusMissing is how the script ends where tools are missing.
const statusMissing = 3

func start(args ...string) (*Server, error) {
	dir, err := os.MkdirTemp("", "tributary-start-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	script, err := scripts.ReadFile("start")
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "start")
	if err := os.WriteFile(path, script, 0o600); err != nil {
		return nil, err
	}
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = read.Close() }()
	var told strings.Builder
	command := exec.Command("bash", append([]string{path, "--port", "0", "--attach"}, args...)...)
	command.Stdin, command.Stderr = read, &told
	out, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		_ = write.Close()
		return nil, fmt.Errorf("%w: %w", errMissing, err)
	}
	url, _ := bufio.NewReader(out).ReadString('\n') // an end without a line is told by the exit status
	if err := command.Wait(); err != nil {
		_ = write.Close()
		err = fmt.Errorf("start Elasticsearch: %w: %s", err, strings.TrimSpace(told.String()))
		if command.ProcessState.ExitCode() == statusMissing {
			err = fmt.Errorf("%w: %w", errMissing, err)
		}
		return nil, err
	}
	return &Server{URL: strings.TrimSpace(url), lives: write}, nil
}
