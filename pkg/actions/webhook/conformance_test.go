package webhook_test

import (
	"net/http"
	"testing"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/actions/actionstest"
	"github.com/tributary-dev/tributary/pkg/actions/secret"
	"github.com/tributary-dev/tributary/pkg/actions/webhook"
)

func TestConformance(t *testing.T) {
	t.Setenv("CONFORMANCE_SECRET", actionstest.Secret)
	actionstest.Run(t, func(t *testing.T) actionstest.Fixture {
		release := make(chan struct{})
		var answer http.HandlerFunc = func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/hangs":
				<-release
			case "/fails":
				w.WriteHeader(http.StatusServiceUnavailable)
			case "/refuses":
				w.WriteHeader(http.StatusGone)
			}
			_, _ = w.Write([]byte(actionstest.Payload))
		}
		url, got := newReceiver(t, answer)
		t.Cleanup(func() { close(release) })
		to := func(path string) actions.Request {
			return actions.Request{
				Type: webhook.Type, URL: url + path + "?token=" + actionstest.Payload, Body: []byte(`{"a":"` + actionstest.Payload + `"}`),
				Header:  []actions.Header{{Name: "Authorization", Value: secret.Mark("env:CONFORMANCE_SECRET")}},
				Secrets: []string{"env:CONFORMANCE_SECRET"}, Permanent: []int{http.StatusGone},
			}
		}
		at := func(path string) func(*testing.T) actions.Request {
			return func(*testing.T) actions.Request { return to(path) }
		}
		return actionstest.Fixture{
			Action: newAction(t, webhook.Options{}), Request: to("/ok"),
			Keys: func() (keys []string) {
				for _, r := range got() {
					keys = append(keys, r.header.Get("Idempotency-Key"))
				}
				return keys
			},
			Faults: map[actionstest.Fault]func(*testing.T) actions.Request{
				actionstest.Refuses: at("/refuses"), actionstest.Fails: at("/fails"), actionstest.Hangs: at("/hangs"),
			},
		}
	})
}
