// Command ingest is one of Tributary's services: see docs/architecture.md, or ingest --help.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/tributary-dev/tributary/internal/app"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := app.Ingest(ctx, app.Program{Args: os.Args[1:], Environ: os.Environ(), Stdout: os.Stdout, Stderr: os.Stderr})
	stop()
	os.Exit(status)
}
