package egress_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/pkg/actions/egress"
)

// authority signs certificates.
type authority struct {
	t    *testing.T
	dir  string
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.key = newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.write("ca.pem", "CERTIFICATE", der)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

func (a *authority) write(name, kind string, der []byte) {
	a.t.Helper()
	if err := os.WriteFile(a.file(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

// issue writes name.pem and name.key, a certificate of both uses.
func (a *authority) issue(name string, hosts ...string) tls.Certificate {
	a.t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		DNSNames: hosts, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	key := newKey(a.t)
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(name+".pem", "CERTIFICATE", der)
	a.write(name+".key", "PRIVATE KEY", secret)
	pair, err := tls.LoadX509KeyPair(a.file(name+".pem"), a.file(name+".key"))
	if err != nil {
		a.t.Fatal(err)
	}
	return pair
}

// demanding is a server that answers who shows a certificate of the authority with that one's name.
func (a *authority) demanding(demand tls.ClientAuthType) *httptest.Server {
	a.t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, shown := range r.TLS.PeerCertificates {
			w.Header().Set("Seen", shown.Subject.CommonName)
		}
	}))
	server.Config.ErrorLog = discard
	server.TLS = &tls.Config{Certificates: []tls.Certificate{a.issue("server", "carrier.example")}, ClientAuth: demand, ClientCAs: roots}
	server.StartTLS()
	a.t.Cleanup(server.Close)
	return server
}

func TestTLSGoesByTheRuleOfItsHost(t *testing.T) {
	a := newAuthority(t)
	a.issue("client")
	server := a.demanding(tls.RequireAndVerifyClientCert)
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	ca, cert, key := a.file("ca.pem"), a.file("client.pem"), a.file("client.key")
	for name, c := range map[string]struct {
		rules []egress.TLSRule
		host  string
		seen  string // empty where there is no answer
	}{
		"both are given":                      {[]egress.TLSRule{{Host: "127.0.0.1", CA: ca, Cert: cert, Key: key}}, "127.0.0.1", "client"},
		"for every host":                      {[]egress.TLSRule{{Host: "*", CA: ca, Cert: cert, Key: key}}, "127.0.0.1", "client"},
		"by name":                             {[]egress.TLSRule{{Host: "Carrier.example", CA: ca, Cert: cert, Key: key}}, "carrier.example.", "client"},
		"by domain":                           {[]egress.TLSRule{{Host: "*.example", CA: ca, Cert: cert, Key: key}}, "carrier.example.", "client"},
		"by name and port":                    {[]egress.TLSRule{{Host: "127.0.0.1:" + port, CA: ca, Cert: cert, Key: key}}, "127.0.0.1", "client"},
		"for another port":                    {[]egress.TLSRule{{Host: "127.0.0.1:1", CA: ca, Cert: cert, Key: key}}, "127.0.0.1", ""},
		"for another host":                    {[]egress.TLSRule{{Host: "carrier.example", CA: ca, Cert: cert, Key: key}}, "127.0.0.1", ""},
		"for a domain that only looks so":     {[]egress.TLSRule{{Host: "*.rrier.example", CA: ca, Cert: cert, Key: key}}, "carrier.example.", ""},
		"the first rule counts":               {[]egress.TLSRule{{Host: "127.0.0.1", CA: ca}, {Host: "*", CA: ca, Cert: cert, Key: key}}, "127.0.0.1", ""},
		"no certificate":                      {[]egress.TLSRule{{Host: "*", CA: ca}}, "127.0.0.1", ""},
		"no authority":                        {[]egress.TLSRule{{Host: "*", Cert: cert, Key: key}}, "127.0.0.1", ""},
		"no rule":                             {nil, "127.0.0.1", ""},
		"a name that the certificate has not": {[]egress.TLSRule{{Host: "*", CA: ca, Cert: cert, Key: key}}, "other.example.", ""},
	} {
		t.Run(name, func(t *testing.T) {
			rules, err := egress.NewTLS(c.rules)
			if err != nil {
				t.Fatal(err)
			}
			options := egress.Resolving(egress.Options{AllowPrivate: loopback, TLS: rules}, answering(t, "127.0.0.1"))
			transport := egress.NewTransport(options)
			defer transport.CloseIdleConnections()
			response, err := roundTrip(t, transport, "https://"+c.host+":"+port)
			if (err == nil) != (c.seen != "") {
				t.Fatalf("error is %v", err)
			}
			if err == nil && response.Header.Get("Seen") != c.seen {
				t.Errorf("the server has seen the certificate of %q, want %q", response.Header.Get("Seen"), c.seen)
			}
		})
	}
}

// A certificate that is about to end is replaced while services run.
func TestTLSReadsFilesAgainThatWereReplaced(t *testing.T) {
	a := newAuthority(t)
	a.issue("client")
	server := a.demanding(tls.RequireAndVerifyClientCert)
	rules, err := egress.NewTLS([]egress.TLSRule{{Host: "*", CA: a.file("ca.pem"), Cert: a.file("client.pem"), Key: a.file("client.key")}})
	if err != nil {
		t.Fatal(err)
	}
	seen := func() string {
		t.Helper()
		transport := egress.NewTransport(egress.Options{AllowPrivate: loopback, TLS: rules})
		defer transport.CloseIdleConnections()
		response, err := roundTrip(t, transport, server.URL)
		if err != nil {
			t.Fatal(err)
		}
		return response.Header.Get("Seen")
	}
	if got := seen(); got != "client" {
		t.Errorf("at first it is %q", got)
	}
	a.issue("renewed")
	if err := os.Rename(a.file("renewed.pem"), a.file("client.pem")); err != nil { // the key does not fit yet
		t.Fatal(err)
	}
	if got := seen(); got != "client" {
		t.Errorf("half replaced it is %q", got)
	}
	if err := os.Rename(a.file("renewed.key"), a.file("client.key")); err != nil {
		t.Fatal(err)
	}
	if got := seen(); got != "renewed" {
		t.Errorf("replaced it is %q", got)
	}
}

func TestTLSRefusesRulesThatCantBeUsed(t *testing.T) {
	a := newAuthority(t)
	a.issue("client")
	ca, cert, key := a.file("ca.pem"), a.file("client.pem"), a.file("client.key")
	for name, c := range map[string]struct {
		rule egress.TLSRule
		says string
	}{
		"nothing":                      {egress.TLSRule{Host: "a.example"}, "[1] must name ca, or cert and key"},
		"no host":                      {egress.TLSRule{CA: ca}, "[1].host must be"},
		"a star within":                {egress.TLSRule{Host: "a.*.example", CA: ca}, "[1].host must be"},
		"a star that is no whole part": {egress.TLSRule{Host: "*a.example", CA: ca}, "[1].host must be"},
		"a file that is not there":     {egress.TLSRule{Host: "*", CA: a.file("none")}, "[1].ca: open"},
		"a file that is no such":       {egress.TLSRule{Host: "*", CA: key}, "[1].ca: there is no certificate in PEM in "},
		"a certificate without a key":  {egress.TLSRule{Host: "*", Cert: cert}, "[1].key must be set beside cert"},
		"a key without a certificate":  {egress.TLSRule{Host: "*", Key: key}, "[1].cert must be set beside key"},
		"a key of another":             {egress.TLSRule{Host: "*", Cert: ca, Key: key}, "[1].cert: tls: private key"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := egress.NewTLS([]egress.TLSRule{{Host: "*", CA: ca}, c.rule})
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error is %v, want %q", err, c.says)
			}
		})
	}
}
