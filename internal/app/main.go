package app

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// Main is the body of a main function: it runs a program until it ends, or a signal ends it, and exits with its status.
func Main(program func(ctx context.Context, p Program) int) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := program(ctx, Program{Args: os.Args[1:], Environ: os.Environ(), Stdout: os.Stdout, Stderr: os.Stderr})
	stop()
	os.Exit(status)
}
