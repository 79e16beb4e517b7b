// Package sql is the action that calls a function of a PostgreSQL database: SELECT schema.function($1, …).
//
// Values of an event are bound as parameters, never written into a statement. The function can be handed the effect key,
// by which it tells an effect that it has seen: a call whose answer was lost comes again. What it returns is not looked
// at. Connections are pooled, one pool for each URL, and connect to what the deployment's egress rules allow. No error
// holds a value, or more of the URL than the reference to it.
package sql

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/retry"
)

// Type is the type of requests that this package does.
const Type = "sql"

// call is the body of a request.
type call struct {
	Function  string            `json:"function"`             // schema.name
	Args      []json.RawMessage `json:"args"`                 // null where the effect key goes
	EffectKey []int             `json:"effect_key,omitempty"` // which arguments are the effect key, from 1
}

// SQL is the action. It is safe for concurrent use. Whoever made it calls Close.
type SQL struct{ pools *pools }

// Do calls the function that the body names, in the database whose URL the reference in request.URL names. What
// PostgreSQL refuses for good is permanent; a database that can't be reached, that ends, is short of something or is read-only for
// now (SQLSTATE classes 08, 40, 53, 55, 57, and 25006) may be tried again, and so may a URL or a login that is wrong.
func (s *SQL) Do(ctx context.Context, effect actions.Effect, request actions.Request) (actions.Outcome, error) {
	var c call
	if err := json.Unmarshal(request.Body, &c); err != nil {
		return actions.Outcome{}, retry.Permanent(errors.New("the request holds no call"))
	}
	schema, name, ok := strings.Cut(c.Function, ".")
	if !ok {
		return actions.Outcome{}, retry.Permanent(fmt.Errorf("function %q is not schema.name", c.Function))
	}
	err := s.pools.with(ctx, request.URL, func(conn *pgconn.PgConn) error {
		return c.run(ctx, conn, pgx.Identifier{schema, name}.Sanitize(), effect.Key)
	})
	switch {
	case err == nil:
		return actions.Outcome{}, nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		err = fmt.Errorf("not done within %s: %w", request.Timeout, context.DeadlineExceeded)
	case ctx.Err() != nil:
		err = fmt.Errorf("interrupted: %w", context.Cause(ctx))
	}
	return actions.Outcome{}, fmt.Errorf("call %s in %s: %w", c.Function, request.URL, err)
}

// Close ends all connections, when no attempt runs any more.
func (s *SQL) Close() { s.pools.close() }

// run asks for the types of the parameters, and calls the function with what they take. The statement has no name: nothing
// of it is left behind when the function is replaced by one of other types.
func (c *call) run(ctx context.Context, conn *pgconn.PgConn, function, key string) error {
	statement, err := conn.Prepare(ctx, "", c.statement(function), nil)
	if err != nil {
		return judge(err)
	}
	values := make([][]byte, len(c.Args))
	for i, arg := range c.Args {
		if slices.Contains(c.EffectKey, i+1) {
			arg, _ = json.Marshal(key) // a string always has JSON
		}
		if values[i], err = bind(arg, statement.ParamOIDs[i]); err != nil {
			return retry.Permanent(fmt.Errorf("argument %d: %w", i+1, err))
		}
	}
	result := conn.ExecPrepared(ctx, "", values, nil, nil)
	for result.NextRow() { // read and dropped, however many
	}
	_, err = result.Close()
	return judge(err)
}

func (c *call) statement(function string) string {
	var b strings.Builder
	b.WriteString("SELECT " + function + "(")
	for i := range c.Args {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "$%d", i+1)
	}
	b.WriteString(")")
	return b.String()
}

// bind gives the text of a parameter: JSON for a parameter of json or jsonb, the string itself for every other, nil for
// NULL.
func bind(arg json.RawMessage, oid uint32) ([]byte, error) {
	if len(arg) == 0 || string(arg) == "null" {
		return nil, nil
	}
	if oid == pgtype.JSONOID || oid == pgtype.JSONBOID {
		return arg, nil
	}
	switch arg[0] {
	case '"':
		var text string
		if err := json.Unmarshal(arg, &text); err != nil {
			return nil, errors.New("it is no JSON")
		}
		return []byte(text), nil
	case '{', '[':
		if oid != pgtype.TextOID && oid != pgtype.VarcharOID {
			return nil, errors.New("an object or a list goes to a parameter of json, jsonb or text")
		}
	}
	return arg, nil
}

// again are the classes of SQLSTATE that say nothing about the call itself
// (https://www.postgresql.org/docs/current/errcodes-appendix.html).
var again = []string{
	"08", // connection
	"40", // rolled back: a deadlock, a serialization failure
	"53", // out of connections, memory or space
	"55", // a lock that is not available
	"57", // cancelled, or the server goes down or comes up
}

const readOnly = "25006" // a standby: the primary is elsewhere for now

// judge says in words of ours why a statement failed: those of PostgreSQL quote values.
func judge(err error) error {
	if err == nil {
		return nil
	}
	refused, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return errBroken
	}
	said := describe(refused)
	if refused.Code == readOnly || len(refused.Code) == 5 && slices.Contains(again, refused.Code[:2]) {
		return said
	}
	return retry.Permanent(said)
}

var errBroken = errors.New("the connection broke")

func describe(e *pgconn.PgError) error {
	if e.ConstraintName != "" {
		return fmt.Errorf("SQLSTATE %s, constraint %s", e.Code, e.ConstraintName)
	}
	return fmt.Errorf("SQLSTATE %s", e.Code)
}
