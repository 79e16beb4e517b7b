package search_test

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/actions/actionstest"
	"github.com/tributary-dev/tributary/pkg/actions/egress"
	"github.com/tributary-dev/tributary/pkg/actions/search"
	"github.com/tributary-dev/tributary/pkg/actions/secret"
	"github.com/tributary-dev/tributary/pkg/retry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newAction(t *testing.T) *search.Search {
	t.Helper()
	transport := egress.NewTransport(egress.Options{AllowPrivate: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	t.Cleanup(transport.CloseIdleConnections)
	return search.New(transport, new(secret.Resolver))
}

func TestConformance(t *testing.T) {
	t.Setenv("CONFORMANCE_SECRET", actionstest.Secret)
	actionstest.Run(t, func(t *testing.T) actionstest.Fixture {
		var mu sync.Mutex
		var keys []string
		release := make(chan struct{})
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/orders/_doc/hangs":
				<-release
			case "/orders/_doc/fails":
				w.WriteHeader(http.StatusTooManyRequests)
			case "/orders/_doc/refuses":
				w.WriteHeader(http.StatusBadRequest)
			default:
				mu.Lock()
				defer mu.Unlock()
				keys = append(keys, r.Header.Get("X-Opaque-Id"))
			}
			_, _ = w.Write([]byte(actionstest.Payload))
		}))
		t.Cleanup(server.Close)
		t.Cleanup(func() { close(release) })
		to := func(id string) actions.Request {
			return actions.Request{
				Type: search.Type, Method: http.MethodPut, URL: server.URL + "/orders/_doc/" + id + "?version=1&x=" + actionstest.Payload,
				Body: []byte(`{"a":"` + actionstest.Payload + `"}`), Timeout: 5 * time.Second,
				Header: []actions.Header{{Name: "Authorization", Value: secret.Mark("env:CONFORMANCE_SECRET")}},
			}
		}
		at := func(id string) func(*testing.T) actions.Request {
			return func(*testing.T) actions.Request { return to(id) }
		}
		return actionstest.Fixture{
			Action: newAction(t), Request: to("ok"),
			Keys: func() []string {
				mu.Lock()
				defer mu.Unlock()
				return append([]string(nil), keys...)
			},
			Faults: map[actionstest.Fault]func(*testing.T) actions.Request{
				actionstest.Refuses: at("refuses"), actionstest.Fails: at("fails"), actionstest.Hangs: at("hangs"),
			},
		}
	})
}

func TestStatuses(t *testing.T) {
	tests := map[string]struct {
		method    string
		status    int
		ok        bool
		permanent bool
	}{
		"a document that is made":               {"PUT", 201, true, false},
		"a newer one that is there":             {"PUT", 409, true, false},
		"a newer one that is not to be deleted": {"DELETE", 409, true, false},
		"nothing that is to be deleted":         {"DELETE", 404, true, false},
		"no such place":                         {"PUT", 404, false, false},
		"a document that the mapping refuses":   {"PUT", 400, false, true},
		"one that is too large":                 {"PUT", 413, false, true},
		"a login that is wrong, to be mended":   {"PUT", 401, false, false},
		"too many requests":                     {"PUT", 429, false, false},
		"a node that is away":                   {"PUT", 503, false, false},
		"a redirect, which is not followed":     {"PUT", 302, false, false},
		"what is neither indexed nor deleted":   {"POST", 200, false, true},
		"deleted":                               {"DELETE", 200, true, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(test.status) }))
			defer server.Close()
			outcome, err := newAction(t).Do(t.Context(), actions.Effect{Key: "k"}, actions.Request{Method: test.method, URL: server.URL + "/orders/_doc/1", Timeout: time.Second})
			if (err == nil) != test.ok || retry.IsPermanent(err) != test.permanent {
				t.Errorf("%+v, %v", outcome, err)
			}
		})
	}
}
