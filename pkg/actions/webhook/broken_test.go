package webhook_test

import (
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/actions/actionstest"
	"github.com/tributary-dev/tributary/pkg/actions/webhook"
	"github.com/tributary-dev/tributary/pkg/retry"
)

// rawReceiver answers each request with bytes of its own, and counts them. What is not fine closes the connection.
func rawReceiver(t *testing.T, answers ...string) (url string, count func() int) {
	t.Helper()
	url, count, _ = actionstest.Raw(t, false, func(n int, conn net.Conn, _ *http.Request) {
		answer := answers[min(n, len(answers)-1)]
		if _, err := io.WriteString(conn, answer); err != nil || !strings.HasPrefix(answer, "HTTP/1.1 200 OK\r\nContent-Length: 0") {
			_ = conn.Close()
		}
	})
	return url, count
}

const fine = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

// Attempts are counted, so a connection that breaks must not make net/http try again by itself.
func TestDoSendsOnceWhereAReusedConnectionBreaks(t *testing.T) {
	url, count := rawReceiver(t, fine, "", fine)
	action := newAction(t, webhook.Options{})
	request := actions.Request{URL: url, Body: []byte("{}")}
	if _, err := action.Do(t.Context(), effect, request); err != nil {
		t.Fatal(err)
	}
	if _, err := action.Do(t.Context(), effect, request); err == nil || retry.IsPermanent(err) {
		t.Errorf("error is %v, want one that may be tried again", err)
	}
	if n := count(); n != 2 {
		t.Errorf("two attempts sent %d requests", n)
	}
}

func TestDoQuotesNothingOfABrokenAnswer(t *testing.T) {
	cases := map[string]string{
		"no answer":                "",
		"no HTTP":                  "hunter2 hunter2 hunter2\r\n\r\n",
		"no status":                "HTTP/1.1 hunter2\r\n\r\n",
		"a header that is none":    "HTTP/1.1 200 OK\r\nhunter2\r\n\r\n",
		"a length that is none":    "HTTP/1.1 200 OK\r\nContent-Length: hunter2\r\n\r\n",
		"an encoding that is none": "HTTP/1.1 200 OK\r\nTransfer-Encoding: hunter2\r\n\r\n",
		"endless headers":          "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: hunter2\r\n", 10_000) + "\r\n",
		"cut off":                  "HTTP/1.1 200",
	}
	for name, answer := range cases {
		t.Run(name, func(t *testing.T) {
			url, _ := rawReceiver(t, answer)
			_, err := newAction(t, webhook.Options{}).Do(t.Context(), effect, actions.Request{URL: url + "/hunter2?token=hunter2", Body: []byte("hunter2")})
			if err == nil || retry.IsPermanent(err) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("error is %v, want one that may be tried again and quotes nothing", err)
			}
		})
	}
}

func TestDoIsDoneByTheStatusWhateverFollows(t *testing.T) {
	url, _ := rawReceiver(t, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\ncut off")
	outcome, err := newAction(t, webhook.Options{}).Do(t.Context(), effect, actions.Request{URL: url})
	if err != nil || outcome.Status != http.StatusOK {
		t.Errorf("outcome is %+v, %v", outcome, err)
	}
}

func TestDoTriesConnectionErrorsAgain(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := "http://" + listener.Addr().String()
	_ = listener.Close()
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	cases := map[string]struct{ url, says string }{
		"nobody listens":            {nobody, "connection refused"},
		"the certificate is unsafe": {secure.URL, "certificate"},
		"the receiver speaks none":  {strings.Replace(plain.URL, "http:", "https:", 1), "does not look like a TLS handshake"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := newAction(t, webhook.Options{}).Do(t.Context(), effect, actions.Request{URL: c.url + "/path?token=hunter2"})
			if err == nil || retry.IsPermanent(err) || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "path") {
				t.Errorf("error is %v, want one that may be tried again and says %q", err, c.says)
			}
		})
	}
}
