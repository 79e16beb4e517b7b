package webhook_test

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"go.uber.org/goleak"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/actions/egress"
	"github.com/tributary-dev/tributary/pkg/actions/secret"
	"github.com/tributary-dev/tributary/pkg/actions/webhook"
	"github.com/tributary-dev/tributary/pkg/retry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var effect = actions.Effect{
	Key: "shop-1-0000000016B37488-771-3~order-shipped~tell-carrier", EventID: "shop-1-0000000016B37488-771-3",
	Sequence: "0000000016B37488.0000000003", Observer: "order-shipped", Action: "tell-carrier",
}

// received is one request as a receiver saw it.
type received struct {
	method, path, query, host string
	header                    http.Header
	body                      []byte
}

// newReceiver starts a receiver that answers by answer, and tells what it got.
func newReceiver(t *testing.T, answer http.HandlerFunc) (string, func() []received) {
	t.Helper()
	requests := make(chan received, 100)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		requests <- received{r.Method, r.URL.Path, r.URL.RawQuery, r.Host, r.Header, body}
		answer(w, r)
	}))
	t.Cleanup(server.Close)
	return server.URL, func() []received {
		var all []received
		for len(requests) > 0 {
			all = append(all, <-requests)
		}
		return all
	}
}

func newAction(t *testing.T, o webhook.Options) *webhook.Webhook {
	transport := egress.NewTransport(egress.Options{AllowPrivate: loopback})
	t.Cleanup(transport.CloseIdleConnections)
	return webhook.New(transport, new(secret.Resolver), o)
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

func TestDoSendsWhatWasRendered(t *testing.T) {
	t.Setenv("TOKEN", "s3cret")
	url, got := newReceiver(t, status(http.StatusAccepted))
	outcome, err := newAction(t, webhook.Options{Version: "1.2.3"}).Do(t.Context(), effect, actions.Request{
		Method: http.MethodPut, URL: url + "/hooks/eu%2Fwest?x=1", Body: []byte(`{"order":42}`),
		Header: []actions.Header{
			{Name: "x-region", Value: "eu"}, {Name: "X-Region", Value: "west"}, {Name: "Content-Type", Value: "application/vnd.x+json"},
			{Name: "Authorization", Value: "Bearer " + secret.Mark("env:TOKEN")},
		},
	})
	if err != nil || outcome.Status != http.StatusAccepted {
		t.Fatalf("outcome is %+v, %v", outcome, err)
	}
	r := got()[0]
	if r.method != http.MethodPut || r.path != "/hooks/eu/west" || r.query != "x=1" || string(r.body) != `{"order":42}` {
		t.Errorf("received %s %s?%s %s", r.method, r.path, r.query, r.body)
	}
	want := map[string][]string{
		"X-Region": {"eu", "west"}, "Content-Type": {"application/vnd.x+json"}, "Authorization": {"Bearer s3cret"},
		"Webhook-Id": {effect.Key}, "Idempotency-Key": {effect.Key}, "Tributary-Sequence": {effect.Sequence},
		"User-Agent": {"Tributary/1.2.3"}, "Webhook-Signature": nil, "Accept-Encoding": nil,
	}
	for name, values := range want {
		if !slices.Equal(r.header[name], values) {
			t.Errorf("header %s is %q, want %q", name, r.header[name], values)
		}
	}
}

func TestDoKeepsItsOwnHeaders(t *testing.T) {
	url, got := newReceiver(t, status(http.StatusOK))
	forged := []actions.Header{{Name: "Host", Value: "virtual.example"}}
	names := []string{"webhook-id", "Webhook-Timestamp", "webhook-signature", "Idempotency-Key", "Tributary-Sequence", "User-Agent", "Content-Length", "Transfer-Encoding"}
	for _, name := range names {
		forged = append(forged, actions.Header{Name: name, Value: "forged"})
	}
	if _, err := newAction(t, webhook.Options{}).Do(t.Context(), effect, actions.Request{URL: url, Header: forged, Body: []byte("{}")}); err != nil {
		t.Fatal(err)
	}
	r := got()[0]
	for name, values := range r.header {
		if slices.Contains(values, "forged") {
			t.Errorf("a rendered header replaced %s", name)
		}
	}
	if r.host != "virtual.example" || r.method != http.MethodPost || r.header.Get("Content-Type") != "application/json" {
		t.Errorf("received %s to host %s of %s", r.method, r.host, r.header.Get("Content-Type"))
	}
}

func TestDoSignsAsStandardWebhooks(t *testing.T) {
	whsec := "whsec_" + base64.StdEncoding.EncodeToString([]byte("a key of thirty-two bytes, ends."))
	t.Setenv("NEW", whsec)
	t.Setenv("OLD", "plain words, not base64")
	t.Setenv("OTHER", "whsec_"+base64.StdEncoding.EncodeToString([]byte("another")))
	url, got := newReceiver(t, status(http.StatusOK))
	body := []byte(`{"order":42,"text":"ünïcode ☃"}`)
	action := newAction(t, webhook.Options{})
	if _, err := action.Do(t.Context(), effect, actions.Request{URL: url, Body: body, Secrets: []string{"env:NEW", "env:OLD"}}); err != nil {
		t.Fatal(err)
	}
	r := got()[0]
	verifier := func(wh *standardwebhooks.Webhook, err error) *standardwebhooks.Webhook {
		if err != nil {
			t.Fatal(err)
		}
		return wh
	}
	for name, known := range map[string]*standardwebhooks.Webhook{
		"the new secret": verifier(standardwebhooks.NewWebhook(whsec)),
		"the old secret": verifier(standardwebhooks.NewWebhookRaw([]byte("plain words, not base64"))),
	} {
		if err := known.Verify(r.body, r.header); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := len(strings.Fields(r.header.Get("Webhook-Signature"))); n != 2 {
		t.Errorf("there are %d signatures for 2 secrets", n)
	}
	if err := verifier(standardwebhooks.NewWebhook(os.Getenv("OTHER"))).Verify(r.body, r.header); err == nil {
		t.Error("a secret that did not sign verifies")
	}
	r.body[0] = '['
	if err := verifier(standardwebhooks.NewWebhook(whsec)).Verify(r.body, r.header); err == nil {
		t.Error("a changed body verifies")
	}
}

func TestDoSignsEachSendingAnew(t *testing.T) {
	t.Setenv("SECRET", "whsec_c2VjcmV0")
	now := time.Unix(1795423553, 0)
	url, got := newReceiver(t, status(http.StatusInternalServerError))
	action := newAction(t, webhook.Options{Now: func() time.Time { return now }})
	request := actions.Request{URL: url, Body: []byte("{}"), Secrets: []string{"env:SECRET"}}
	for range 2 {
		if _, err := action.Do(t.Context(), effect, request); err == nil {
			t.Fatal("status 500 is no error")
		}
		now = now.Add(time.Hour)
	}
	requests := got()
	first, second := requests[0].header, requests[1].header
	if first.Get("Webhook-Timestamp") != "1795423553" || second.Get("Webhook-Timestamp") != "1795427153" {
		t.Errorf("timestamps are %s and %s", first.Get("Webhook-Timestamp"), second.Get("Webhook-Timestamp"))
	}
	if first.Get("Webhook-Signature") == second.Get("Webhook-Signature") {
		t.Error("both sendings have the same signature")
	}
	if first.Get("Webhook-Id") != second.Get("Webhook-Id") {
		t.Error("the sendings have different ids")
	}
}

func TestDoNeverSendsUnsignedWhereASecretIsMissing(t *testing.T) {
	t.Setenv("NO_BASE64", "whsec_!!!")
	url, got := newReceiver(t, status(http.StatusOK))
	for _, request := range []actions.Request{
		{URL: url, Secrets: []string{"env:NOT_THERE"}},
		{URL: url, Secrets: []string{"env:NO_BASE64"}},
		{URL: url, Header: []actions.Header{{Name: "Authorization", Value: secret.Mark("env:NOT_THERE")}}},
	} {
		_, err := newAction(t, webhook.Options{}).Do(t.Context(), effect, request)
		if err == nil || retry.IsPermanent(err) {
			t.Errorf("error is %v, want one that may be tried again", err)
		}
	}
	if n := len(got()); n > 0 {
		t.Errorf("%d requests were sent", n)
	}
}

func TestDoJudgesByStatus(t *testing.T) {
	cases := map[string]struct {
		status                  int
		retryAfter              string
		done, permanent, follow bool
		delay                   time.Duration
	}{
		"200 is done":                           {status: 200, done: true},
		"204 is done":                           {status: 204, done: true},
		"299 is done":                           {status: 299, done: true},
		"a listed status is permanent":          {status: 410, permanent: true},
		"a listed one asks for no delay":        {status: 410, permanent: true, retryAfter: "30"},
		"another 4xx is tried again":            {status: 404},
		"401 is tried again":                    {status: 401},
		"500 is tried again":                    {status: 500},
		"429 without a delay":                   {status: 429},
		"429 with seconds":                      {status: 429, retryAfter: "30", delay: 30 * time.Second},
		"503 with a date":                       {status: 503, retryAfter: "Mon, 23 Nov 2026 08:46:53 GMT", delay: time.Minute},
		"a date that has passed":                {status: 503, retryAfter: "Mon, 23 Nov 2026 08:44:53 GMT"},
		"a date of the far future is capped":    {status: 503, retryAfter: "Mon, 23 Nov 2099 08:44:53 GMT", delay: 24 * time.Hour},
		"many seconds are capped":               {status: 503, retryAfter: "31536000", delay: 24 * time.Hour},
		"seconds beyond 64 bits are capped":     {status: 503, retryAfter: "99999999999999999999999", delay: 24 * time.Hour},
		"negative seconds say nothing":          {status: 503, retryAfter: "-5"},
		"nonsense says nothing":                 {status: 503, retryAfter: "soon"},
		"any other failure may ask for a delay": {status: 500, retryAfter: "7", delay: 7 * time.Second},
		"a redirect is not followed":            {status: 302, follow: true},
		"nor a permanent one":                   {status: 308, follow: true},
		"304 is no success":                     {status: 304, follow: true},
		"a status of no standard":               {status: 799},
	}
	now := time.Date(2026, 11, 23, 8, 45, 53, 0, time.UTC)
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			url, got := newReceiver(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", "/elsewhere?token=hunter2")
				if c.retryAfter != "" {
					w.Header().Set("Retry-After", c.retryAfter)
				}
				w.WriteHeader(c.status)
			})
			outcome, err := newAction(t, webhook.Options{Now: func() time.Time { return now }}).Do(t.Context(), effect,
				actions.Request{URL: url, Permanent: []int{400, 410, 422}})
			if outcome.Status != c.status {
				t.Errorf("the outcome's status is %d, want %d", outcome.Status, c.status)
			}
			if c.done != (err == nil) || c.permanent != retry.IsPermanent(err) || c.delay != retry.DelayOf(err) {
				t.Errorf("error is %v, permanent %v, delay %s", err, retry.IsPermanent(err), retry.DelayOf(err))
			}
			if c.follow && !strings.Contains(err.Error(), "redirects are not followed") {
				t.Errorf("error is %q and does not speak of the redirect", err)
			}
			if n := len(got()); n != 1 {
				t.Errorf("%d requests were sent", n)
			}
		})
	}
}

func TestDoTellsATimeoutFromAnInterruption(t *testing.T) {
	release := make(chan struct{})
	url, _ := newReceiver(t, func(http.ResponseWriter, *http.Request) { <-release })
	t.Cleanup(func() { close(release) }) // before the server's own closing
	action := newAction(t, webhook.Options{})
	request := actions.Request{Type: webhook.Type, URL: url, Timeout: 20 * time.Millisecond}

	_, err := actions.Registry{webhook.Type: action}.Do(t.Context(), effect, request)
	if !errors.Is(err, context.DeadlineExceeded) || retry.IsPermanent(err) || !strings.Contains(err.Error(), "no answer within 20ms") {
		t.Errorf("error of a timeout is %v", err)
	}

	shutdown := errors.New("shutting down")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(shutdown)
	if _, err = action.Do(ctx, effect, request); !errors.Is(err, shutdown) {
		t.Errorf("error of an interruption is %v", err)
	}
}

func TestDoRefusesPrivateAddressesForGood(t *testing.T) {
	url, got := newReceiver(t, status(http.StatusOK))
	transport := egress.NewTransport(egress.Options{})
	_, err := webhook.New(transport, new(secret.Resolver), webhook.Options{}).Do(t.Context(), effect, actions.Request{URL: url})
	if want := `address 127.0.0.1 of "127.0.0.1" is private: allow it with actions.allow_private`; !retry.IsPermanent(err) || err.Error() != want {
		t.Errorf("error is %v, want %q, permanent", err, want)
	}
	if len(got()) > 0 {
		t.Error("the receiver was reached")
	}
}

func TestDoRefusesWhatCannotBeSent(t *testing.T) {
	cases := map[string]actions.Request{
		"no URL":                         {},
		"a URL that does not parse":      {URL: "http://hunter2\x7f.example/"},
		"another scheme":                 {URL: "file:///etc/passwd"},
		"no host":                        {URL: "http:///path"},
		"a method that is none":          {URL: "http://127.0.0.1:1/", Method: "P OST"},
		"a header that would end early":  {URL: "http://127.0.0.1:1/", Header: []actions.Header{{Name: "X", Value: "a\r\nhunter2: b"}}},
		"a header's name with a newline": {URL: "http://127.0.0.1:1/", Header: []actions.Header{{Name: "X\n", Value: "a"}}},
		"a header without a name":        {URL: "http://127.0.0.1:1/", Header: []actions.Header{{Value: "a"}}},
	}
	for name, request := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := newAction(t, webhook.Options{}).Do(t.Context(), effect, request)
			if !retry.IsPermanent(err) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("error is %v, want a permanent one that quotes nothing", err)
			}
		})
	}
}
