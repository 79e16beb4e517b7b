package app_test

import (
	"strings"
	"testing"

	"github.com/tributary-dev/tributary/internal/app"
	"github.com/tributary-dev/tributary/internal/natstest"
	"github.com/tributary-dev/tributary/internal/pgtest"
)

func TestSourceThatCannotGoOnDoesNotEndTheOthers(t *testing.T) {
	server := natstest.Start(t)
	ingest := run(t, "ingest", app.Ingest, `
nats: {url: "`+server.URL()+`"}
sources:
  - {name: bad, postgres: env:SHOP_URL, tables: [public.nothing]}
  - {name: shop, postgres: env:SHOP_URL, tables: [public.*]}
http: {listen: 127.0.0.1:0}
`, "SHOP_URL="+pgtest.Database(t))
	ingest.waitFor("bad", false, "no table of")
	ingest.waitFor("shop", true, "leads")
	ingest.waitFor("bad", false, "no table of")
}

// waitFor waits until a source is well, or is not, and says so in these words.
func (r running) waitFor(source string, ok bool, why string) {
	r.t.Helper()
	waitFor(r.t, "source "+source+": "+why, func() bool {
		for _, c := range r.readiness().Conditions {
			if c.Name == "source "+source && c.OK == ok && strings.Contains(c.Why, why) {
				return true
			}
		}
		return false
	})
}
