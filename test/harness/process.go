package harness

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/internal/freeport"
)

// Process is one running program.
type Process struct {
	Name string
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it ended; err is set then
	err  error
}

// Run starts one of the project's programs by itself, outside of a System: in a folder of its own, which also has its log.
// It is killed at the end of the test, if it runs then.
func Run(t testing.TB, program string, environ []string, args ...string) *Process {
	t.Helper()
	p := start(t, t.TempDir(), program, Binary(t, program), environ, args...)
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("--- the last lines of %s:\n%s", program, p.Tail(40))
		}
	})
	return p
}

func start(t testing.TB, dir, name, binary string, env []string, args ...string) *Process {
	t.Helper()
	p := &Process{Name: name, log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	p.cmd = exec.Command(binary, args...)
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.Dir = dir
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		_ = out.Close()
		close(p.done)
	}()
	return p
}

// Running tells whether the program has not ended.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Kill ends the program with SIGKILL, and returns when it is gone.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// Stop ends the program with SIGTERM, and gives what its exit status says. After 30 s it is killed.
func (p *Process) Stop() error {
	_ = p.cmd.Process.Signal(terminate)
	return p.Wait(30 * time.Second)
}

// Signal sends a signal.
func (p *Process) Signal(sig os.Signal) { _ = p.cmd.Process.Signal(sig) }

const terminate = syscall.SIGTERM

// Freeze stops the program's clock (SIGSTOP), Thaw lets it go on.
func (p *Process) Freeze() { p.Signal(syscall.SIGSTOP) }

// Thaw undoes Freeze.
func (p *Process) Thaw() { p.Signal(syscall.SIGCONT) }

// Wait waits for the program's end, and gives what its exit status says. After most it is killed.
func (p *Process) Wait(most time.Duration) error {
	select {
	case <-p.done:
		return p.err
	case <-time.After(most):
		p.Kill()
		return fmt.Errorf("%s did not end within %v", p.Name, most)
	}
}

// ExitCode waits for the end and gives the exit status.
func (p *Process) ExitCode(most time.Duration) int {
	err := p.Wait(most)
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	default:
		return -1
	}
}

// Log is all that the program printed, over restarts under the same name.
func (p *Process) Log() string {
	data, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// Tail is the last lines of Log.
func (p *Process) Tail(n int) string {
	lines := strings.Split(strings.TrimRight(p.Log(), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// PeakBytes is the most memory that was resident, by the kernel's account.
func (p *Process) PeakBytes() int { return p.status("VmHWM:") << 10 }

// ResidentBytes is the memory that is resident now.
func (p *Process) ResidentBytes() int { return p.status("VmRSS:") << 10 }

func (p *Process) status(key string) int {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(data) {
		fields := strings.Fields(string(line))
		if len(fields) > 1 && fields[0] == key {
			n, _ := strconv.Atoi(fields[1])
			return n
		}
	}
	return 0
}

// CPU is the processor time that the program used so far.
func (p *Process) CPU() time.Duration { return cpuOf(fmt.Sprintf("/proc/%d", p.cmd.Process.Pid)) }

func cpuOf(proc string) time.Duration {
	data, err := os.ReadFile(filepath.Join(proc, "stat"))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	fields := strings.Fields(rest)
	const user, system, hertz = 11, 12, 100 // proc(5), counted behind the name
	if len(fields) <= system {
		return 0
	}
	u, _ := strconv.Atoi(fields[user])
	sys, _ := strconv.Atoi(fields[system])
	return time.Duration(u+sys) * time.Second / hertz
}

// FreePort gives a port that nobody listens on, and that nobody is given by chance while its server is down.
func FreePort(t testing.TB) int {
	t.Helper()
	port, err := freeport.Get()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// CPU is the processor time that a service, or postgres with its backends that still run, used so far.
func (s *System) CPU(name string) time.Duration {
	s.t.Helper()
	if name != "postgres" {
		return s.Process(name).CPU()
	}
	var total time.Duration
	paths, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, path := range paths {
		comm, err := os.ReadFile(path)
		if err == nil && strings.TrimSpace(string(comm)) == "postgres" && s.ours(filepath.Dir(path)) {
			total += cpuOf(filepath.Dir(path))
		}
	}
	return total
}

// ours tells whether a process of PostgreSQL works in the data directory of this system's server.
func (s *System) ours(proc string) bool {
	dir, err := os.Readlink(filepath.Join(proc, "cwd"))
	return err == nil && dir == s.Postgres.Dir()
}
