package egress

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// TLSRule says what TLS to some hosts goes by. Files are in PEM.
type TLSRule struct {
	Host string // api.example, api.example:8443, *.corp.example (any depth), or * for every host
	CA   string // a file of certificates that these hosts are trusted by, instead of the system's; empty for the system's
	Cert string // a file of the certificate that they are shown, with those between it and its root; empty for none
	Key  string // the file of Cert's private key
}

// TLS is what TLS to each host goes by: the first rule that names the host. Files that are replaced are read again; while
// one of them can't be, what was read before stays. It is safe for concurrent use. nil goes by the system's roots, and
// shows no certificate.
type TLS struct {
	rules []*tlsRule
}

type tlsRule struct {
	TLSRule
	host, port string // port is empty for any

	mu     sync.Mutex
	seen   []os.FileInfo // the files as they were read; nil for one that is not there; guarded by mu
	config *tls.Config   // never changed, only replaced; guarded by mu
}

// NewTLS reads the files of all rules. Its error names the rule by its number, and the setting.
func NewTLS(rules []TLSRule) (*TLS, error) {
	t := new(TLS)
	for i, rule := range rules {
		r := &tlsRule{TLSRule: rule}
		r.host, r.port = splitHost(rule.Host)
		if r.host == "" || strings.Contains(strings.TrimPrefix(r.host, "*"), "*") || strings.HasPrefix(r.host, "*") && len(r.host) > 1 && r.host[1] != '.' {
			return nil, fmt.Errorf("[%d].host must be a host, host:port, *.domain or *, got %q", i, rule.Host)
		}
		if rule.CA == "" && rule.Cert == "" && rule.Key == "" {
			return nil, fmt.Errorf("[%d] must name ca, or cert and key", i)
		}
		if err := r.read(); err != nil {
			return nil, fmt.Errorf("[%d].%w", i, err)
		}
		r.seen = r.look()
		t.rules = append(t.rules, r)
	}
	return t, nil
}

// splitHost takes a port off, where there is one.
func splitHost(text string) (host, port string) {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		host, port = strings.Trim(text, "[]"), ""
	}
	return canonical(host), port
}

func canonical(host string) string { return strings.ToLower(strings.TrimSuffix(host, ".")) }

// Custom tells whether a rule names the host.
func (t *TLS) Custom(host, port string) bool { return t.rule(host, port) != nil }

// Config gives what TLS to a host goes by. It belongs to the caller.
func (t *TLS) Config(host, port string) *tls.Config {
	rule := t.rule(host, port)
	if rule == nil {
		return &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host}
	}
	config := rule.current().Clone()
	config.ServerName = host
	return config
}

func (t *TLS) rule(host, port string) *tlsRule {
	if t == nil {
		return nil
	}
	host = canonical(host)
	for _, r := range t.rules {
		suffix, any := strings.CutPrefix(r.host, "*")
		if (r.host == host || any && strings.HasSuffix(host, suffix)) && (r.port == "" || r.port == port) {
			return r
		}
	}
	return nil
}

// current gives the configuration, read again where a file is another than it was.
func (r *tlsRule) current() *tls.Config {
	now := r.look()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.EqualFunc(now, r.seen, sameFile) {
		if r.read() == nil { // else they are being replaced, and are whole the next time
			r.seen = now
		}
	}
	return r.config
}

// look gives the files as they are now.
func (r *tlsRule) look() []os.FileInfo {
	var now []os.FileInfo
	for _, file := range []string{r.CA, r.Cert, r.Key} {
		info, err := os.Stat(file)
		if err != nil {
			info = nil
		}
		now = append(now, info)
	}
	return now
}

// sameFile tells whether a file is the one that it was, by its inode too: one that replaces another within a tick of the
// clock may have the same time and size.
func sameFile(a, b os.FileInfo) bool {
	if a == nil || b == nil {
		return a == b
	}
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

func (r *tlsRule) read() error {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if r.CA != "" {
		text, err := os.ReadFile(r.CA)
		if err != nil {
			return fmt.Errorf("ca: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return fmt.Errorf("ca: there is no certificate in PEM in %s", r.CA)
		}
	}
	switch {
	case r.Cert == "" && r.Key == "":
	case r.Key == "":
		return errors.New("key must be set beside cert")
	case r.Cert == "":
		return errors.New("cert must be set beside key")
	default:
		pair, err := tls.LoadX509KeyPair(r.Cert, r.Key)
		if err != nil {
			return fmt.Errorf("cert: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	r.config = config
	return nil
}

// dialTLS connects and shakes hands, by the rules of the host.
func (d *Dialer) dialTLS(t *TLS) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		conn, err := d.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		ctx, cancel := context.WithTimeout(ctx, connectTimeout)
		defer cancel()
		secured := tls.Client(conn, t.Config(host, port))
		if err := secured.HandshakeContext(ctx); err != nil {
			_ = conn.Close() // it was never used
			return nil, err
		}
		_ = conn.SetDeadline(time.Time{})
		return secured, nil
	}
}
