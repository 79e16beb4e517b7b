// Package checkpoint mirrors the positions of sources into PostgreSQL, with a history of who changed what, and why.
//
// It promises that a position that was saved is durable, that it is never replaced by an older leader's or by one that
// lies before it, and that each takeover, change of phase and manual change is in the history. It relies on nothing but
// PostgreSQL, and on that only while it is asked. It decides nothing: where a source goes on is for EVENTS to say. It
// explains, and helps to recover by hand.
package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tributary-dev/tributary/pkg/events"
)

// What decides what a caller does.
var (
	ErrStale     = errors.New("a later leader has saved already")
	ErrBackwards = errors.New("a later position is saved already")
	ErrNotFound  = errors.New("no checkpoint")
	ErrRights    = errors.New("rights are missing")
)

// Checkpoint is how far a source is stored, and by whom.
type Checkpoint struct {
	Source      string     `json:"source"`
	Epoch       uint64     `json:"epoch"`       // counts takeovers
	Incarnation uint64     `json:"incarnation"` // counts set-ups of the source
	SystemID    string     `json:"system_id"`   // of the database cluster
	Timeline    int32      `json:"timeline"`
	Slot        string     `json:"slot"`
	Phase       string     `json:"phase"`
	Commit      events.LSN `json:"commit_lsn"` // of the last event that is stored
	Index       uint32     `json:"index"`      // of it, within its commit
	End         events.LSN `json:"end_lsn"`    // every commit that begins before it is stored
	Leader      string     `json:"leader"`     // who saved it
}

// Saved is a checkpoint as the mirror has it.
type Saved struct {
	Checkpoint
	At time.Time `json:"saved_at"`
}

// Options tunes a Store; the zero value works.
type Options struct {
	Name    string        // of the connections, in PostgreSQL's lists; tributary/checkpoint if empty
	Timeout time.Duration // of one transaction; 10 s if 0
	Keep    Keep          // what stays of the history
}

// Store is the mirror in one database. It is safe for concurrent use.
type Store struct {
	pool    *pgxpool.Pool
	timeout time.Duration
	keep    Keep

	migrating sync.Mutex

	mu      sync.Mutex
	waiting []*request     // guarded by mu
	saving  bool           // a goroutine saves what waits; guarded by mu
	savers  sync.WaitGroup // that goroutine

	known  map[string]row // by source, as last seen; the saving goroutine's own
	pruned time.Time      // the saving goroutine's own
}

// New makes a store in the database that connString names. It does not connect. The caller closes it.
func New(connString string, o Options) (*Store, error) {
	config, err := pgxpool.ParseConfig(connString)
	if err != nil {
		return nil, fmt.Errorf("read the database's address: %w", err)
	}
	if o.Name == "" {
		o.Name = "tributary/checkpoint"
	}
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	params := config.ConnConfig.RuntimeParams
	params["application_name"] = o.Name
	params["synchronous_commit"] = "on" // a role may have it off
	params["default_transaction_isolation"] = "read committed"
	config.ConnConfig.ConnectTimeout = o.Timeout
	config.MaxConns = 4 // one saves for all, one reads, two migrate
	config.MinConns, config.MinIdleConns = 0, 0
	pool, err := pgxpool.NewWithConfig(context.Background(), config) // connects when it is asked for something
	if err != nil {
		return nil, fmt.Errorf("use the database: %w", err)
	}
	return &Store{pool: pool, timeout: o.Timeout, keep: o.Keep.orDefault(), known: map[string]row{}}, nil
}

// Close waits for what is being saved, and closes the connections.
func (s *Store) Close() {
	s.savers.Wait()
	s.pool.Close()
}

// SQLSTATEs that decide something here (PostgreSQL, appendix A).
const (
	codeNoPrivilege     = "42501"
	codeReadOnly        = "25006"
	codeUndefinedTable  = "42P01"
	codeUndefinedSchema = "3F000"
	codeSerialization   = "40001"
	codeDeadlock        = "40P01"
)

func hasCode(err error, codes ...string) bool {
	var answer *pgconn.PgError
	if !errors.As(err, &answer) {
		return false
	}
	for _, code := range codes {
		if answer.Code == code {
			return true
		}
	}
	return false
}

// explain says what PostgreSQL's answers mean here.
func explain(err error) error {
	switch {
	case hasCode(err, codeUndefinedTable, codeUndefinedSchema):
		return fmt.Errorf("%w: the database has no table tributary.checkpoints: ingest makes it at its start, unless ingest.checkpoints is false or its role may not",
			ErrNotFound)
	case hasCode(err, codeReadOnly):
		return fmt.Errorf("%w: the database is read-only, a standby perhaps: %w", ErrRights, err)
	case hasCode(err, codeNoPrivilege):
		return fmt.Errorf("%w: %w: GRANT USAGE ON SCHEMA tributary and SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA tributary to the role",
			ErrRights, err)
	default:
		return err
	}
}
