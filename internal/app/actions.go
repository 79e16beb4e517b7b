package app

import (
	"github.com/tributary-dev/tributary/pkg/actions"
	actioncache "github.com/tributary-dev/tributary/pkg/actions/cache"
	"github.com/tributary-dev/tributary/pkg/actions/egress"
	"github.com/tributary-dev/tributary/pkg/actions/email"
	actionlog "github.com/tributary-dev/tributary/pkg/actions/log"
	actionnats "github.com/tributary-dev/tributary/pkg/actions/nats"
	"github.com/tributary-dev/tributary/pkg/actions/secret"
	"github.com/tributary-dev/tributary/pkg/actions/slack"
	"github.com/tributary-dev/tributary/pkg/actions/sql"
	"github.com/tributary-dev/tributary/pkg/actions/webhook"
	"github.com/tributary-dev/tributary/pkg/cachekv"
)

// newActions makes the actions of every type, for at most so many at the same time. The caller calls end when none runs.
func newActions(env *environment, road *road, concurrency int) (registry actions.Registry, end func()) {
	allow := env.config.Actions.AllowPrivate
	transport := egress.NewTransport(egress.Options{AllowPrivate: allow, Concurrency: concurrency})
	secrets := new(secret.Resolver)
	dialer := egress.NewDialer(allow)
	databases := sql.New(dialer, secrets)
	registry = actions.Registry{
		actioncache.Type: actioncache.New(cachekv.New(road.js, cachekv.Options{})),
		email.Type:       email.New(dialer, secrets, email.Options{}),
		actionlog.Type:   actionlog.New(env.log),
		actionnats.Type:  actionnats.New(road.js),
		slack.Type:       slack.New(transport, secrets),
		sql.Type:         databases,
		webhook.Type:     webhook.New(transport, secrets, webhook.Options{Version: Version}),
	}
	return registry, func() {
		databases.Close()
		transport.CloseIdleConnections()
	}
}
