package app

import (
	"fmt"

	"github.com/tributary-dev/tributary/internal/config"
	"github.com/tributary-dev/tributary/pkg/actions"
	actioncache "github.com/tributary-dev/tributary/pkg/actions/cache"
	"github.com/tributary-dev/tributary/pkg/actions/cached"
	"github.com/tributary-dev/tributary/pkg/actions/egress"
	"github.com/tributary-dev/tributary/pkg/actions/email"
	actionlog "github.com/tributary-dev/tributary/pkg/actions/log"
	actionnats "github.com/tributary-dev/tributary/pkg/actions/nats"
	"github.com/tributary-dev/tributary/pkg/actions/search"
	"github.com/tributary-dev/tributary/pkg/actions/secret"
	"github.com/tributary-dev/tributary/pkg/actions/slack"
	"github.com/tributary-dev/tributary/pkg/actions/sql"
	"github.com/tributary-dev/tributary/pkg/actions/webhook"
	"github.com/tributary-dev/tributary/pkg/cachekv"
	"github.com/tributary-dev/tributary/pkg/lookup"
	"github.com/tributary-dev/tributary/pkg/observers"
)

// newEffects makes the actions of every type and the lookups, for at most so many at the same time. The caller calls end when
// none runs, and keeps the cache meanwhile.
func newEffects(env *environment, road *road, concurrency int) (*effects, error) {
	rules, err := loadTLS(env.config)
	if err != nil {
		return nil, err
	}
	allow := env.config.Actions.AllowPrivate
	transport := egress.NewTransport(egress.Options{AllowPrivate: allow, Concurrency: concurrency, TLS: rules})
	secrets := new(secret.Resolver)
	dialer := egress.NewDialer(allow)
	databases, readers := sql.New(dialer, secrets, sql.Options{TLS: rules}), sql.NewReader(dialer, secrets, sql.Options{TLS: rules})
	cache := cachekv.New(road.js, cachekv.Options{})
	metrics := env.effects()
	metrics.cache.Add(cache)
	registry := actions.Registry{
		actioncache.Type: actioncache.New(cache),
		email.Type:       email.New(dialer, secrets, email.Options{TLS: rules}),
		actionlog.Type:   actionlog.New(env.log),
		actionnats.Type:  actionnats.New(road.js),
		search.Type:      search.New(transport, secrets),
		slack.Type:       slack.New(transport, secrets),
		sql.Type:         databases,
		webhook.Type:     webhook.New(transport, secrets, webhook.Options{Version: Version}),
	}
	return &effects{
		actions: cached.New(registry, cache, metrics.cached), cache: cache, js: road.js,
		lookups: lookup.New(transport, secrets, readers, lookup.Options{Cache: cache, Version: Version, Metrics: metrics.lookup}),
		end: func() {
			databases.Close()
			readers.Close()
			transport.CloseIdleConnections()
		},
	}, nil
}

// askLookups gives what asks lookups once, without a cache.
func askLookups(cfg config.Config) (fetch observers.Fetch, end func(), err error) {
	rules, err := loadTLS(cfg)
	if err != nil {
		return nil, nil, err
	}
	secrets := new(secret.Resolver)
	transport := egress.NewTransport(egress.Options{AllowPrivate: cfg.Actions.AllowPrivate, TLS: rules})
	readers := sql.NewReader(egress.NewDialer(cfg.Actions.AllowPrivate), secrets, sql.Options{TLS: rules})
	return lookup.New(transport, secrets, readers, lookup.Options{Version: Version}).Fetch, func() {
		readers.Close()
		transport.CloseIdleConnections()
	}, nil
}

// loadTLS reads the certificates that the configuration names: what is wrong with them is told before anything is
// connected to.
func loadTLS(cfg config.Config) (*egress.TLS, error) {
	var rules []egress.TLSRule
	for _, r := range cfg.Actions.TLS {
		rules = append(rules, egress.TLSRule{Host: r.Host, CA: r.CA, Cert: r.Cert, Key: r.Key})
	}
	loaded, err := egress.NewTLS(rules)
	if err != nil {
		return nil, fmt.Errorf("actions.tls%w", err)
	}
	return loaded, nil
}
