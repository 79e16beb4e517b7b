package slack_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/actions/actionstest"
	"github.com/tributary-dev/tributary/pkg/actions/egress"
	"github.com/tributary-dev/tributary/pkg/actions/secret"
	"github.com/tributary-dev/tributary/pkg/actions/slack"
	"github.com/tributary-dev/tributary/pkg/retry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newSlack starts what answers like Slack, and gives the action, its URL and the keys that came.
func newSlack(t *testing.T, answer http.HandlerFunc, allow ...netip.Prefix) (*slack.Slack, string, func() []string) {
	t.Helper()
	keys := make(chan string, 100)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || !json.Valid(body) || r.Method != http.MethodPost || !strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
			t.Errorf("%s of %s with %s, %v", r.Method, r.Header.Get("Content-Type"), body, err)
		}
		keys <- r.Header.Get("Idempotency-Key")
		answer(w, r)
	}))
	t.Cleanup(server.Close)
	transport := egress.NewTransport(egress.Options{AllowPrivate: allow})
	t.Cleanup(transport.CloseIdleConnections)
	return slack.New(transport, new(secret.Resolver)), server.URL, func() []string {
		var all []string
		for len(keys) > 0 {
			all = append(all, <-keys)
		}
		return all
	}
}

var loopback = netip.MustParsePrefix("127.0.0.0/8")

func TestConformance(t *testing.T) {
	actionstest.Run(t, func(t *testing.T) actionstest.Fixture {
		release := make(chan struct{})
		action, url, keys := newSlack(t, func(w http.ResponseWriter, r *http.Request) {
			switch {
			case strings.HasSuffix(r.URL.Path, "/hangs"):
				<-release
			case strings.HasSuffix(r.URL.Path, "/fails"):
				w.WriteHeader(http.StatusInternalServerError)
			case strings.HasSuffix(r.URL.Path, "/refuses"):
				w.WriteHeader(http.StatusNotFound)
			}
			_, _ = w.Write([]byte(actionstest.Payload))
		}, loopback)
		t.Cleanup(func() { close(release) })
		to := func(name string) actions.Request {
			t.Setenv("SLACK_"+name, url+"/services/"+actionstest.Secret+"/"+name)
			return actions.Request{Type: slack.Type, URL: "env:SLACK_" + name, Body: []byte(`{"text":"` + actionstest.Payload + `"}`)}
		}
		at := func(name string) func(*testing.T) actions.Request {
			return func(*testing.T) actions.Request { return to(name) }
		}
		return actionstest.Fixture{
			Action: action, Request: to("ok"), Keys: keys,
			Faults: map[actionstest.Fault]func(*testing.T) actions.Request{
				actionstest.Refuses: at("refuses"), actionstest.Fails: at("fails"), actionstest.Hangs: at("hangs"),
			},
		}
	})
}

func TestDoJudgesTheAnswer(t *testing.T) {
	tests := map[string]struct {
		status      int
		body, after string
		failed      bool
		permanent   bool
		delay       time.Duration
		shown       string
	}{
		"posted":                         {status: 200, body: "ok"},
		"a channel that is gone":         {status: 410, body: "channel_is_archived", failed: true, permanent: true, shown: "channel_is_archived"},
		"a message that can't be read":   {status: 400, body: "invalid_payload", failed: true, permanent: true, shown: "invalid_payload"},
		"too many messages":              {status: 429, body: "rate_limited", after: "30", failed: true, delay: 30 * time.Second, shown: "rate_limited"},
		"a fault of Slack":               {status: 500, body: "rollup_error", failed: true, shown: "rollup_error"},
		"a redirect":                     {status: 302, failed: true},
		"an answer that quotes the text": {status: 400, body: "invalid_payload: order 42", failed: true, permanent: true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			action, url, _ := newSlack(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Retry-After", test.after)
				w.Header().Set("Location", "http://127.0.0.1:1/")
				w.WriteHeader(test.status)
				_, _ = w.Write([]byte(test.body))
			}, loopback)
			t.Setenv("SLACK_URL", url+"/services/T0/B0/x")
			outcome, err := action.Do(t.Context(), actions.Effect{Key: "k"}, actions.Request{URL: "env:SLACK_URL", Body: []byte(`{}`)})
			if (err != nil) != test.failed || retry.IsPermanent(err) != test.permanent || retry.DelayOf(err) != test.delay {
				t.Errorf("the attempt gave %v", err)
			}
			if outcome.Status != test.status || outcome.Detail != test.shown {
				t.Errorf("the outcome is %+v", outcome)
			}
			if err != nil && (strings.Contains(err.Error(), "services") || strings.Contains(err.Error(), "order 42")) {
				t.Errorf("the error shows too much: %v", err)
			}
		})
	}
}

func TestDoLeavesTheDeploymentAlone(t *testing.T) {
	action, url, keys := newSlack(t, func(http.ResponseWriter, *http.Request) {})
	t.Setenv("SLACK_URL", url)
	_, err := action.Do(t.Context(), actions.Effect{Key: "k"}, actions.Request{URL: "env:SLACK_URL", Body: []byte(`{}`)})
	if !retry.IsPermanent(err) || len(keys()) > 0 {
		t.Errorf("a private address gave %v", err)
	}
}

func TestDoWaitsForASecretThatCanBeUsed(t *testing.T) {
	action, _, _ := newSlack(t, func(http.ResponseWriter, *http.Request) {}, loopback)
	for name, value := range map[string]string{"none": "", "no URL": actionstest.Secret, "bytes": "http://[" + actionstest.Secret} {
		t.Setenv("SLACK_URL", value)
		_, err := action.Do(t.Context(), actions.Effect{Key: "k"}, actions.Request{URL: "env:SLACK_URL", Body: []byte(`{}`)})
		if err == nil || retry.IsPermanent(err) || strings.Contains(err.Error(), actionstest.Secret) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
