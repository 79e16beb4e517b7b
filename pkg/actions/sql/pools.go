package sql

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tributary-dev/tributary/pkg/actions/egress"
	"github.com/tributary-dev/tributary/pkg/actions/secret"
	"github.com/tributary-dev/tributary/pkg/retry"
)

const connectTimeout = 10 * time.Second

// Options of an SQL. The zero value works.
type Options struct {
	TLS *egress.TLS // nil for what the URLs say alone
}

// New makes the action; dialer is egress.NewDialer's. A URL may say pool_max_conns; else a pool has as many connections as
// the machine has processors, and at least 4.
func New(dialer *egress.Dialer, secrets *secret.Resolver, o Options) *SQL {
	return &SQL{&pools{dialer: dialer, secrets: secrets, tls: o.TLS, byReference: make(map[string]*pool)}}
}

// NewReader makes what only reads: each of its transactions is read-only, and values have the text that events have.
func NewReader(dialer *egress.Dialer, secrets *secret.Resolver, o Options) *SQL {
	s := New(dialer, secrets, o)
	s.pools.settings = map[string]string{
		"default_transaction_read_only": "on", "timezone": "UTC", "datestyle": "ISO", "intervalstyle": "postgres",
		"bytea_output": "hex", "extra_float_digits": "1",
	}
	return s
}

// pools are the connections, by reference to a URL.
type pools struct {
	settings map[string]string // of the server, for each connection

	dialer  *egress.Dialer
	secrets *secret.Resolver
	tls     *egress.TLS

	mu          sync.Mutex
	byReference map[string]*pool // guarded by mu
	closed      bool             // guarded by mu
	retiring    sync.WaitGroup   // pools of secrets that were replaced
}

type pool struct {
	url  string // the secret as it was when the pool was made
	pool *pgxpool.Pool
}

var errClosed = errors.New("the action was closed")

// with lends a connection for as long as do takes.
func (p *pools) with(ctx context.Context, reference string, do func(*pgconn.PgConn) error) error {
	connections, err := p.of(reference)
	if err != nil {
		return err
	}
	conn, err := connections.Acquire(ctx)
	if err != nil {
		return unreached(err)
	}
	defer conn.Release()
	return do(conn.Conn().PgConn())
}

// unreached says why there is no connection. Only a refused address is permanent.
func unreached(err error) error {
	if refused, ok := errors.AsType[*egress.RefusedError](err); ok && retry.IsPermanent(err) {
		return retry.Permanent(refused)
	}
	if said, ok := errors.AsType[*pgconn.PgError](err); ok {
		return fmt.Errorf("connect: %w", describe(said))
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return fmt.Errorf("connect: %w", op)
	}
	return errors.New("connect: no connection")
}

// of gives the pool of a reference. Where the secret was replaced a new pool takes over, and the old one ends when the last of
// its connections is given back.
func (p *pools) of(reference string) (*pgxpool.Pool, error) {
	url, err := p.secrets.Resolve(reference)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errClosed
	}
	known := p.byReference[reference]
	if known != nil && known.url == url {
		return known.pool, nil
	}
	fresh, err := p.open(reference, url)
	if err != nil {
		return nil, err
	}
	if known != nil {
		p.retiring.Go(known.pool.Close)
	}
	p.byReference[reference] = &pool{url: url, pool: fresh}
	return fresh, nil
}

// open makes a pool; it connects when a connection is asked for.
func (p *pools) open(reference, url string) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(strings.TrimSpace(url))
	if err != nil {
		return nil, fmt.Errorf("secret %s is no URL of a PostgreSQL database", reference) // pgx's error may quote it
	}
	config.MinConns, config.MinIdleConns = 0, 0
	config.ConnConfig.ConnectTimeout = connectTimeout
	config.ConnConfig.DialFunc = p.dial
	config.ConnConfig.RuntimeParams["application_name"] = "tributary"
	config.BeforeConnect = func(_ context.Context, config *pgx.ConnConfig) error {
		p.secure(config) // each time: files of certificates may have been replaced
		return nil
	}
	maps.Copy(config.ConnConfig.RuntimeParams, p.settings)
	// Without a lifetime for its work: the pool's is ended by Close.
	fresh, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		return nil, fmt.Errorf("open connections of %s: the settings can't be used", reference)
	}
	return fresh, nil
}

// dial connects where the deployment's rules allow it. A socket of the file system has no address to be judged by.
func (p *pools) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if !strings.HasPrefix(network, "tcp") {
		return nil, errors.New("a database is reached by TCP, not by a socket in the file system")
	}
	return p.dialer.DialContext(ctx, network, address)
}

func (p *pools) close() {
	p.mu.Lock()
	p.closed = true
	for reference, known := range p.byReference {
		p.retiring.Go(known.pool.Close)
		delete(p.byReference, reference)
	}
	p.mu.Unlock()
	p.retiring.Wait()
}
