package postgres

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// The signals by which a server is ended.
const (
	fast      = syscall.SIGINT  // rolls back, writes a checkpoint
	immediate = syscall.SIGQUIT // as a crash
)

// graceAfterQuit bounds an immediate shutdown: the server itself kills backends that do not go after 5 s.
const graceAfterQuit = 8 * time.Second

// process is a child that ends with us.
type process struct {
	name   string
	pid    int
	signal func(os.Signal) error
	output *tail
	ended  chan struct{} // closed when the child has been waited for
	err    error         // how it ended; written before ended is closed
}

// spawn starts a program. On Linux the child is sent SIGQUIT when the thread that forked it ends, so one goroutine keeps that
// thread for as long as the child lives.
func spawn(path string, args []string, log io.Writer) (*process, error) {
	attributes, err := childAttributes()
	if err != nil {
		return nil, err
	}
	p := &process{name: filepath.Base(path), output: &tail{log: log}, ended: make(chan struct{})}
	command := exec.Command(path, args...)
	command.Env = serverEnvironment(os.Environ())
	command.Dir = string(filepath.Separator)
	command.Stdout, command.Stderr = p.output, p.output
	command.SysProcAttr = attributes
	command.WaitDelay = graceAfterQuit
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := command.Start()
		if err == nil {
			p.pid, p.signal = command.Process.Pid, command.Process.Signal
		}
		started <- err
		if err != nil {
			return
		}
		p.err = command.Wait()
		close(p.ended)
	}()
	if err := <-started; err != nil {
		return nil, explainSpawn(path, err)
	}
	return p, nil
}

// running tells whether the child lives. A nil process is one that was never started.
func (p *process) running() bool {
	if p == nil {
		return false
	}
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// end signals the child and waits until it is gone, with more force when ctx ends first.
func (p *process) end(ctx context.Context, how syscall.Signal) error {
	if !p.running() {
		return nil
	}
	// An error of signal says that the child has ended: so do the waits.
	_ = p.signal(how)
	select {
	case <-p.ended:
		return nil
	case <-ctx.Done():
	}
	_ = p.signal(immediate)
	timer := time.NewTimer(graceAfterQuit)
	defer timer.Stop()
	select {
	case <-p.ended:
		return nil
	case <-timer.C:
	}
	if err := p.signal(os.Kill); err != nil {
		return fmt.Errorf("kill %s: %w", p.name, err)
	}
	<-p.ended
	return nil
}

// failure says how a child ended that should not have; for use after ended was closed.
func (p *process) failure() error {
	if p.err == nil {
		return fmt.Errorf("%s ended%s", p.name, p.output.quote())
	}
	return fmt.Errorf("%s: %w%s", p.name, p.err, p.output.quote())
}

// serverEnvironment leaves out PostgreSQL's own variables: a PGPORT or PGDATA of the caller means another server.
func serverEnvironment(environment []string) []string {
	kept := make([]string, 0, len(environment))
	for _, variable := range environment {
		if !strings.HasPrefix(variable, "PG") && !strings.HasPrefix(variable, "LC_") && !strings.HasPrefix(variable, "DATABASE_URL=") {
			kept = append(kept, variable)
		}
	}
	return kept
}

// tail passes on what a child writes and keeps the end of it, for errors.
type tail struct {
	log io.Writer

	mu   sync.Mutex
	last []byte // guarded by mu
}

const tailBytes = 2048

func (t *tail) Write(text []byte) (int, error) {
	t.mu.Lock()
	t.last = append(t.last, text...)
	if extra := len(t.last) - tailBytes; extra > 0 {
		t.last = append(t.last[:0], t.last[extra:]...)
	}
	t.mu.Unlock()
	if t.log != nil {
		// A log that can't be written must not stop the server.
		_, _ = t.log.Write(text)
	}
	return len(text), nil
}

// quote gives the kept output for the end of an error.
func (t *tail) quote() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if text := strings.TrimSpace(string(t.last)); text != "" {
		return "; its last output:\n" + text
	}
	return ""
}
