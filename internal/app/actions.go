package app

import (
	"fmt"

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
func newActions(env *environment, road *road, concurrency int) (registry actions.Registry, end func(), err error) {
	rules, err := loadTLS(env)
	if err != nil {
		return nil, nil, err
	}
	allow := env.config.Actions.AllowPrivate
	transport := egress.NewTransport(egress.Options{AllowPrivate: allow, Concurrency: concurrency, TLS: rules})
	secrets := new(secret.Resolver)
	dialer := egress.NewDialer(allow)
	databases := sql.New(dialer, secrets, sql.Options{TLS: rules})
	registry = actions.Registry{
		actioncache.Type: actioncache.New(cachekv.New(road.js, cachekv.Options{})),
		email.Type:       email.New(dialer, secrets, email.Options{TLS: rules}),
		actionlog.Type:   actionlog.New(env.log),
		actionnats.Type:  actionnats.New(road.js),
		slack.Type:       slack.New(transport, secrets),
		sql.Type:         databases,
		webhook.Type:     webhook.New(transport, secrets, webhook.Options{Version: Version}),
	}
	return registry, func() {
		databases.Close()
		transport.CloseIdleConnections()
	}, nil
}

// loadTLS reads the certificates that the configuration names: what is wrong with them is told before anything is
// connected to.
func loadTLS(env *environment) (*egress.TLS, error) {
	var rules []egress.TLSRule
	for _, r := range env.config.Actions.TLS {
		rules = append(rules, egress.TLSRule{Host: r.Host, CA: r.CA, Cert: r.Cert, Key: r.Key})
	}
	loaded, err := egress.NewTLS(rules)
	if err != nil {
		return nil, fmt.Errorf("actions.tls%w", err)
	}
	return loaded, nil
}
