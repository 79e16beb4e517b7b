package app

import (
	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/actions/egress"
	actionlog "github.com/tributary-dev/tributary/pkg/actions/log"
	"github.com/tributary-dev/tributary/pkg/actions/secret"
	"github.com/tributary-dev/tributary/pkg/actions/webhook"
)

// newActions makes the actions of every type, for at most so many at the same time.
func newActions(env *environment, concurrency int) actions.Registry {
	transport := egress.NewTransport(egress.Options{AllowPrivate: env.config.Actions.AllowPrivate, Concurrency: concurrency})
	return actions.Registry{
		webhook.Type:   webhook.New(transport, new(secret.Resolver), webhook.Options{Version: Version}),
		actionlog.Type: actionlog.New(env.log),
	}
}
