// Package e2e drives the built programs against real PostgreSQL and NATS.
package e2e

import (
	"os"
	"testing"

	"github.com/tributary-dev/tributary/test/harness"
)

func TestMain(m *testing.M) {
	code := m.Run()
	harness.Cleanup()
	os.Exit(code)
}
