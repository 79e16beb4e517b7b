//go:build bench

package bench

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/test/harness"
)

// profiles tells whether BENCH_PROFILE names a folder for CPU profiles.
func profiles() bool { return os.Getenv("BENCH_PROFILE") != "" }

// profile takes CPU profiles of two seconds of programs once ready says so, and what they have allocated by then, if
// BENCH_PROFILE names a folder for them. Who calls it waits for their end by what it gives.
func profile(t *testing.T, s *harness.System, name string, ready func() bool, programs ...string) (wait func()) {
	if !profiles() {
		return func() {}
	}
	var all sync.WaitGroup
	for _, program := range programs {
		all.Go(func() {
			for !ready() && t.Context().Err() == nil {
				time.Sleep(10 * time.Millisecond)
			}
			err := saveProfile(s.ProfileURL(program)+"/profile?seconds=2", name+" "+program)
			if err == nil {
				err = saveProfile(s.ProfileURL(program)+"/allocs", name+" "+program+" allocations")
			}
			if err != nil {
				t.Log(err)
			}
		})
	}
	return all.Wait
}

func saveProfile(url, name string) error {
	answer, err := http.Get(url)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	data, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	path := filepath.Join(os.Getenv("BENCH_PROFILE"), strings.ReplaceAll(name, " ", "-")+".pprof")
	return os.WriteFile(path, data, 0o600)
}
