package sql

import (
	"crypto/tls"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// secure lets TLS go by the rules of its host. Where one says by whom the server is trusted, the connection is never in the
// open, whatever sslmode the URL has.
func (p *pools) secure(config *pgx.ConnConfig) {
	fallbacks := make([]*pgconn.FallbackConfig, 0, len(config.Fallbacks))
	for _, f := range config.Fallbacks {
		secured, skip := p.secured(f.TLSConfig, f.Host, f.Port)
		if !skip {
			fallbacks = append(fallbacks, &pgconn.FallbackConfig{Host: f.Host, Port: f.Port, TLSConfig: secured})
		}
	}
	if secured, skip := p.secured(config.TLSConfig, config.Host, config.Port); !skip || len(fallbacks) == 0 {
		config.TLSConfig = secured
	} else {
		first := fallbacks[0] // sslmode=allow has the one without TLS first
		config.Host, config.Port, config.TLSConfig, fallbacks = first.Host, first.Port, first.TLSConfig, fallbacks[1:]
	}
	config.Fallbacks = fallbacks
}

// secured gives what TLS to a server goes by; skip says that it is not to be tried without.
func (p *pools) secured(given *tls.Config, host string, port uint16) (config *tls.Config, skip bool) {
	text := strconv.Itoa(int(port))
	if !p.tls.Custom(host, text) {
		if given != nil {
			given = given.Clone()
			given.MinVersion = max(given.MinVersion, tls.VersionTLS12)
		}
		return given, false
	}
	rule := p.tls.Config(host, text)
	switch {
	case given == nil && rule.RootCAs == nil:
		return nil, false
	case given == nil:
		return rule, true
	}
	config = given.Clone()
	config.MinVersion = max(config.MinVersion, tls.VersionTLS12)
	if rule.RootCAs != nil {
		config.RootCAs, config.ServerName = rule.RootCAs, host
		config.InsecureSkipVerify, config.VerifyPeerCertificate = false, nil
	}
	if len(rule.Certificates) > 0 {
		config.Certificates = rule.Certificates
	}
	return config, false
}
