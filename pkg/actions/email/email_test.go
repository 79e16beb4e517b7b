package email_test

import (
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/actions/actionstest"
	"github.com/tributary-dev/tributary/pkg/actions/egress"
	"github.com/tributary-dev/tributary/pkg/actions/email"
	"github.com/tributary-dev/tributary/pkg/actions/secret"
	"github.com/tributary-dev/tributary/pkg/retry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newEmail(o email.Options) *email.Email {
	return email.New(egress.NewDialer([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}), new(secret.Resolver), o)
}

func letter(to, subject string) actions.Request {
	body, err := json.Marshal(map[string]any{"from": "Shop <shop@a.example>", "to": []string{to}, "subject": subject, "text": "order " + actionstest.Payload + "\n.\nend"})
	if err != nil {
		panic(err)
	}
	return actions.Request{Type: email.Type, URL: "env:SMTP_URL", Body: body, Timeout: 10 * time.Second}
}

func TestConformance(t *testing.T) {
	actionstest.Run(t, func(t *testing.T) actionstest.Fixture {
		server := startSMTP(t, nil)
		t.Setenv("SMTP_URL", "smtp+plain://"+server.address)
		at := func(to string) func(*testing.T) actions.Request {
			return func(*testing.T) actions.Request { return letter(to, actionstest.Payload) }
		}
		return actionstest.Fixture{
			Action: newEmail(email.Options{}), Request: letter("me@b.example", actionstest.Payload),
			Keys: func() (keys []string) {
				mails, _, _ := server.got()
				for _, m := range mails {
					keys = append(keys, m.Header.Get("Tributary-Effect"))
				}
				return keys
			},
			Faults: map[actionstest.Fault]func(*testing.T) actions.Request{
				actionstest.Refuses: at("refuses@b.example"), actionstest.Fails: at("fails@b.example"), actionstest.Hangs: at("hangs@b.example"),
			},
		}
	})
}

func TestDoSendsTheSameMailAgain(t *testing.T) {
	server := startSMTP(t, nil)
	t.Setenv("SMTP_URL", "smtp+plain://"+server.address)
	for _, key := range []string{"a", "a", "b"} {
		outcome, err := newEmail(email.Options{}).Do(t.Context(), actions.Effect{Key: key}, letter("Me <me@b.example>", "Grüße: 5 < 6"))
		if err != nil || outcome.Status != 250 {
			t.Fatalf("the attempt gave %+v, %v", outcome, err)
		}
	}
	mails, _, _ := server.got()
	ids := []string{mails[0].Header.Get("Message-Id"), mails[1].Header.Get("Message-Id"), mails[2].Header.Get("Message-Id")}
	if ids[0] != ids[1] || ids[0] == ids[2] || !strings.HasSuffix(ids[0], "@a.example>") {
		t.Errorf("the ids are %q", ids)
	}
	body, err := io.ReadAll(mails[0].Body)
	if err != nil || !strings.Contains(string(body), "order "+actionstest.Payload) || mails[0].Header.Get("To") == "" {
		t.Errorf("the mail is %v %s, %v", mails[0].Header, body, err)
	}
}

func TestDoDemandsTLS(t *testing.T) {
	certified := httptest.NewUnstartedServer(http.NotFoundHandler())
	certified.StartTLS()
	t.Cleanup(certified.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certified.Certificate().Raw})
	if err := os.WriteFile(ca, text, 0o600); err != nil {
		t.Fatal(err)
	}
	rules, err := egress.NewTLS([]egress.TLSRule{{Host: "127.0.0.1", CA: ca}})
	if err != nil {
		t.Fatal(err)
	}
	secured := startSMTP(t, &tls.Config{Certificates: certified.TLS.Certificates})
	plain := startSMTP(t, nil)
	login := "smtp://me:" + actionstest.Secret + "@"
	tests := map[string]struct {
		url string
		o   email.Options
		ok  bool
	}{
		"a server that offers it":         {login + secured.address, email.Options{TLS: rules}, true},
		"a certificate of nobody we know": {login + secured.address, email.Options{}, false},
		"a server that does not offer it": {login + plain.address, email.Options{TLS: rules}, false},
		"a server that never heard of it": {"smtps://" + plain.address, email.Options{TLS: rules}, false},
		"a password in the open":          {"smtp+plain://me:" + actionstest.Secret + "@" + plain.address, email.Options{}, false},
		"a URL that is none":              {actionstest.Secret, email.Options{}, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Setenv("SMTP_URL", test.url)
			_, err := newEmail(test.o).Do(t.Context(), actions.Effect{Key: "k"}, letter("me@b.example", "s"))
			if (err == nil) != test.ok || retry.IsPermanent(err) || err != nil && strings.Contains(err.Error(), actionstest.Secret) {
				t.Errorf("the attempt gave %v", err)
			}
		})
	}
	if _, _, auth := plain.got(); len(auth) > 0 {
		t.Errorf("a login was sent without TLS: %q", auth)
	}
	if _, _, auth := secured.got(); len(auth) != 1 {
		t.Errorf("the logins over TLS are %q, want one", auth)
	}
}

func TestDoLetsNoValueOutOfItsHeader(t *testing.T) {
	server := startSMTP(t, nil)
	t.Setenv("SMTP_URL", "smtp+plain://"+server.address)
	for name, request := range map[string]actions.Request{
		"a subject of two lines": letter("me@b.example", "a\r\nBcc: evil@c.example"),
		"two receivers in one":   letter("me@b.example, evil@c.example", "s"),
		"a receiver of lines":    letter("me@b.example\r\nRCPT TO:<evil@c.example>", "s"),
		"no receiver":            letter("", "s"),
	} {
		if _, err := newEmail(email.Options{}).Do(t.Context(), actions.Effect{Key: "k"}, request); !retry.IsPermanent(err) {
			t.Errorf("%s: %v, want a permanent error", name, err)
		}
	}
	if _, raw, _ := server.got(); len(raw) > 0 {
		t.Errorf("sent were %q", raw)
	}
}

func TestDoLeavesTheDeploymentAlone(t *testing.T) {
	server := startSMTP(t, nil)
	t.Setenv("SMTP_URL", "smtp+plain://"+server.address)
	action := email.New(egress.NewDialer(nil), new(secret.Resolver), email.Options{})
	if _, err := action.Do(t.Context(), actions.Effect{Key: "k"}, letter("me@b.example", "s")); !retry.IsPermanent(err) {
		t.Errorf("a private address gave %v", err)
	}
}
