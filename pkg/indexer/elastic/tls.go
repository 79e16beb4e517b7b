package elastic

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
)

// ErrNoCertificate says that Options.CACert holds none.
var ErrNoCertificate = errors.New("there is no certificate in PEM in it")

// trust makes a configuration that trusts these certificates alone.
func trust(pem []byte) (*tls.Config, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, ErrNoCertificate
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, nil
}
