package log_test

import (
	"io"
	"log/slog"
	"testing"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/actions/actionstest"
	"github.com/tributary-dev/tributary/pkg/actions/log"
)

func TestConformance(t *testing.T) {
	const always = "a line in the log always succeeds, at once"
	actionstest.Run(t, func(*testing.T) actionstest.Fixture {
		return actionstest.Fixture{
			Action:  log.New(slog.New(slog.NewJSONHandler(io.Discard, nil))),
			Request: actions.Request{Type: log.Type, Body: []byte(`"` + actionstest.Payload + `"`)},
			Lacks: map[string]string{
				"keys": "a log is read by people", "context": always,
				string(actionstest.Refuses): always, string(actionstest.Fails): always, string(actionstest.Hangs): always,
			},
		}
	})
}
