package app

import (
	"context"

	"github.com/nats-io/nats.go"

	"github.com/tributary-dev/tributary/internal/ask"
	"github.com/tributary-dev/tributary/pkg/pgcdc"
)

// serveAsks answers who asks for rows of a source, while this process reads its changes.
func serveAsks(env *environment, nc *nats.Conn, source string) func(context.Context, func(context.Context, pgcdc.Ask) (pgcdc.Answer, error)) error {
	return func(ctx context.Context, answer func(context.Context, pgcdc.Ask) (pgcdc.Answer, error)) error {
		return ask.Serve(ctx, nc, source, env.log, answer)
	}
}
