package pgcdc

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	connectTimeout = 15 * time.Second // of all of them
	hostTimeout    = 5 * time.Second  // of one of several, unless the connection string has connect_timeout
	queryTimeout   = 30 * time.Second // of a look into the catalog, which no application's lock holds up
	closeTimeout   = time.Second

	// senderTimeout is the wal_sender_timeout of our own connections, unless the connection string has one. Status goes
	// out each second, so it can be short: a reader whose machine died leaves its slot to the next one after it.
	senderTimeout = "10s"

	receiveTimeout  = 20 * time.Second // where Options.ReceiveTimeout is 0
	shortestTimeout = 3 * time.Second  // status goes out each second
)

// SQLSTATEs that decide something here (PostgreSQL, appendix A).
const (
	codeBadPassword      = "28P01"
	codeNotAuthorized    = "28000"
	codeNoDatabase       = "3D000"
	codeNoPrivilege      = "42501"
	codeReadOnly         = "25006"
	codeObjectInUse      = "55006"
	codeUndefinedObject  = "42704"
	codeDuplicateObject  = "42710"
	codeUndefinedTable   = "42P01"
	codeNoSchema         = "3F000"
	codeTooManyOfThem    = "53400"
	codeFeatureMissing   = "0A000"
	codeObjectNotInState = "55000"
	codeCanceled         = "57014"
)

// connector makes connections of both kinds, with the session settings that values rely on.
type connector struct {
	config *pgx.ConnConfig
}

// newConnector reads connString. A connection whose other end does not answer TCP any more, nor takes what was sent, ends
// after silence.
func newConnector(source, connString string, silence time.Duration) (*connector, error) {
	config, err := pgx.ParseConfig(connString)
	if err != nil {
		return nil, err
	}
	config.DialFunc = dialer(silence).DialContext
	if config.ConnectTimeout == 0 && len(config.Fallbacks) > 0 {
		config.ConnectTimeout = hostTimeout // the next is tried, although this one says nothing
	}
	params := config.RuntimeParams
	maps.Copy(params, SessionSettings())
	params["application_name"] = applicationName(source)
	// A snapshot may take hours, and a slot waits for every transaction that is open when it is made.
	for _, name := range []string{"statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"} {
		params[name] = "0"
	}
	// The little that we write is waited for in the stream, which brings it when it is flushed: at once, but for no standby.
	for name, value := range map[string]string{"wal_sender_timeout": senderTimeout, "synchronous_commit": "local", "jit": "off"} {
		if _, given := params[name]; !given {
			params[name] = value
		}
	}
	return &connector{config: config}, nil
}

func (c *connector) open(ctx context.Context) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	return pgx.ConnectConfig(ctx, c.config.Copy())
}

func (c *connector) openReplication(ctx context.Context) (*pgconn.PgConn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	config := c.config.Config.Copy()
	config.RuntimeParams["replication"] = "database"
	return pgconn.ConnectConfig(ctx, config)
}

// place names the database in errors, without the password; all hosts where there are several.
func (c *connector) place() string {
	hosts := []string{fmt.Sprintf("%s:%d", c.config.Host, c.config.Port)}
	for _, f := range c.config.Fallbacks {
		if host := fmt.Sprintf("%s:%d", f.Host, f.Port); !slices.Contains(hosts, host) {
			hosts = append(hosts, host)
		}
	}
	return strings.Join(hosts, ",") + "/" + c.config.Database
}

func (s *Source) openQuery(ctx context.Context) (*pgx.Conn, error) {
	conn, err := s.connector.open(ctx)
	if err != nil {
		return nil, s.explainConnect(err)
	}
	s.contacted.Store(true)
	return conn, nil
}

func (s *Source) openReplication(ctx context.Context) (*pgconn.PgConn, error) {
	conn, err := s.connector.openReplication(ctx)
	if hasCode(err, codeNoPrivilege) {
		user := s.connector.config.User
		return nil, refused("role %s may not replicate from %s: ALTER ROLE %s REPLICATION", user, s.connector.place(), quoteIdent(user))
	}
	if err != nil {
		return nil, s.explainConnect(err)
	}
	return conn, nil
}

// explainConnect refuses what is wrong in the configuration. Later the same may pass: a password that is being changed,
// a database that is being restored.
func (s *Source) explainConnect(err error) error {
	var answer *pgconn.PgError
	if !errors.As(err, &answer) || s.contacted.Load() {
		return fmt.Errorf("connect to %s: %w", s.connector.place(), err)
	}
	switch answer.Code {
	case codeBadPassword, codeNotAuthorized:
		return refused("connect to %s: %s: check user and password of sources[].postgres, and pg_hba.conf", s.connector.place(), answer.Message)
	case codeNoDatabase:
		return refused("connect to %s: %s: check sources[].postgres", s.connector.place(), answer.Message)
	default:
		return fmt.Errorf("connect to %s: %w", s.connector.place(), err)
	}
}

// applicationName is how the server lists our connections.
func applicationName(source string) string { return "tributary/" + source }

func hasCode(err error, code string) bool {
	var answer *pgconn.PgError
	return errors.As(err, &answer) && answer.Code == code
}

// querier is the connection for all that is not replication, opened when it is needed, and again when it broke. It is
// safe for concurrent use, by one at a time.
type querier struct {
	open func(context.Context) (*pgx.Conn, error)
	busy chan struct{} // holds a token while the connection is in use
	conn *pgx.Conn     // guarded by busy
}

func newQuerier(open func(context.Context) (*pgx.Conn, error)) *querier {
	return &querier{open: open, busy: make(chan struct{}, 1)}
}

// do calls work with a connection that was alive just now.
func (q *querier) do(ctx context.Context, work func(context.Context, *pgx.Conn) error) error {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	conn, err := q.acquire(ctx)
	if err != nil {
		return err
	}
	defer q.release()
	return work(ctx, conn)
}

// query is pgx.Conn's Query. The rows hold the connection until they are closed or read to their end.
func (q *querier) query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	conn, err := q.acquire(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := conn.Query(ctx, sql, args...)
	if err != nil {
		q.release()
		return nil, err
	}
	return &heldRows{Rows: rows, release: q.release}, nil
}

func (q *querier) acquire(ctx context.Context) (*pgx.Conn, error) {
	select {
	case q.busy <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if err := q.ensure(ctx); err != nil {
		q.release()
		return nil, err
	}
	return q.conn, nil
}

func (q *querier) ensure(ctx context.Context) error {
	if q.conn != nil && q.conn.Ping(ctx) != nil {
		closeConn(ctx, q.conn)
		q.conn = nil
	}
	if q.conn != nil {
		return nil
	}
	var err error
	q.conn, err = q.open(ctx)
	return err
}

func (q *querier) release() { <-q.busy }

func (q *querier) close(ctx context.Context) {
	if q.conn != nil {
		closeConn(ctx, q.conn)
	}
}

// closeConn says goodbye, also after ctx ended, but not for long.
func closeConn(ctx context.Context, conn interface{ Close(context.Context) error }) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	_ = conn.Close(ctx) // it is not used any more, whatever it says
}

type heldRows struct {
	pgx.Rows
	release func()
}

func (r *heldRows) Next() bool {
	if r.Rows.Next() {
		return true
	}
	r.Close()
	return false
}

func (r *heldRows) Close() {
	r.Rows.Close()
	if r.release != nil {
		r.release()
		r.release = nil
	}
}

// quoteIdent makes an SQL identifier of any name.
func quoteIdent(name string) string { return pgx.Identifier{name}.Sanitize() }

// quoteLiteral makes an SQL string of any text under standard_conforming_strings, which replication commands have too.
func quoteLiteral(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }
