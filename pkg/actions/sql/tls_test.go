package sql_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/actions/egress"
	"github.com/tributary-dev/tributary/pkg/actions/secret"
	"github.com/tributary-dev/tributary/pkg/actions/sql"
)

// doorman speaks the first words of PostgreSQL's protocol, until it knows who comes in and how.
type doorman struct {
	address string
	close   func() // waits for who came
	serving sync.WaitGroup

	mu   sync.Mutex
	came []string // guarded by mu: "open", "stranger" or "known", by whether TLS was asked for and a certificate shown
}

func startDoorman(t *testing.T, config *tls.Config) *doorman {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &doorman{address: listener.Addr().String()}
	d.close = sync.OnceFunc(func() {
		_ = listener.Close()
		d.serving.Wait()
	})
	t.Cleanup(d.close)
	d.serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			d.receive(conn, config)
			_ = conn.Close()
		}
	})
	return d
}

func (d *doorman) receive(conn net.Conn, config *tls.Config) {
	const sslRequest = 80877103
	var head [8]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return
	}
	if binary.BigEndian.Uint32(head[4:]) != sslRequest {
		d.note("open")
		return
	}
	_, _ = conn.Write([]byte("S"))
	secured := tls.Server(conn, config)
	if _, err := io.ReadFull(secured, head[:]); err != nil { // the startup message: the client is content with us
		return
	}
	if len(secured.ConnectionState().PeerCertificates) > 0 {
		d.note("known")
	} else {
		d.note("stranger")
	}
}

func (d *doorman) note(who string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.came = append(d.came, who)
}

func (d *doorman) noted() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.came
}

func TestTLSGoesByTheDeploymentsRules(t *testing.T) {
	certified := httptest.NewUnstartedServer(http.NotFoundHandler())
	certified.StartTLS()
	t.Cleanup(certified.Close)
	pair := certified.TLS.Certificates[0]
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	cert := write("cert.pem", "CERTIFICATE", pair.Certificate[0])
	secretKey, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	key := write("key.pem", "PRIVATE KEY", secretKey)
	config := &tls.Config{Certificates: certified.TLS.Certificates, ClientAuth: tls.RequestClientCert}

	trust, show := egress.TLSRule{Host: "127.0.0.1", CA: cert}, egress.TLSRule{Host: "127.0.0.1", Cert: cert, Key: key}
	both := egress.TLSRule{Host: "127.0.0.1", CA: cert, Cert: cert, Key: key}
	for name, c := range map[string]struct {
		rules []egress.TLSRule
		mode  string
		came  string // the first who came; empty for nobody
	}{
		"no rule, no TLS":                            {nil, "disable", "open"},
		"no rule, TLS by anybody":                    {nil, "require", "stranger"},
		"no rule, a server that nobody knows":        {nil, "verify-full", ""},
		"an authority":                               {[]egress.TLSRule{trust}, "verify-full", "stranger"},
		"an authority counts whatever the URL has":   {[]egress.TLSRule{trust}, "disable", "stranger"},
		"an authority leaves nothing in the open":    {[]egress.TLSRule{trust}, "allow", "stranger"},
		"an authority and a certificate":             {[]egress.TLSRule{both}, "prefer", "known"},
		"a certificate where TLS is asked for":       {[]egress.TLSRule{show}, "require", "known"},
		"a certificate asks for no TLS":              {[]egress.TLSRule{show}, "disable", "open"},
		"a rule of another host":                     {[]egress.TLSRule{{Host: "a.example", CA: cert}}, "disable", "open"},
		"another authority, for which there is none": {[]egress.TLSRule{{Host: "*", CA: otherAuthority(t, write)}}, "prefer", ""},
	} {
		t.Run(name, func(t *testing.T) {
			rules, err := egress.NewTLS(c.rules)
			if err != nil {
				t.Fatal(err)
			}
			door := startDoorman(t, config)
			t.Setenv("DB_URL", "postgres://u@"+door.address+"/db?sslmode="+c.mode)
			action := sql.New(egress.NewDialer([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}), new(secret.Resolver), sql.Options{TLS: rules})
			if _, err := action.Do(t.Context(), actions.Effect{}, calling("public.keep", nil)); err == nil {
				t.Error("the doorman has carried a call out")
			}
			action.Close()
			door.close()
			came := append(door.noted(), "")
			if came[0] != c.came {
				t.Errorf("who came is %q, want %q", came, c.came)
			}
			for _, who := range came {
				if who == "open" && c.came != "open" {
					t.Errorf("somebody came in the open: %q", came)
				}
			}
		})
	}
}

// otherAuthority writes the certificate of somebody who has signed nothing here.
func otherAuthority(t *testing.T, write func(name, kind string, der []byte) string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(7), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return write("other.pem", "CERTIFICATE", der)
}
