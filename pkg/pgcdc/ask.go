package pgcdc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tributary-dev/tributary/pkg/events"
)

// Ask wants the rows of a table to be read once more, as snapshot events among its changes.
type Ask struct {
	ID     string `json:"id"`              // asked twice, it is done once
	Table  string `json:"table"`           // schema.table, or the table alone where one schema has it
	Where  string `json:"where,omitempty"` // an SQL condition on its columns; empty for all rows
	Who    string `json:"who,omitempty"`
	DryRun bool   `json:"dry_run,omitempty"`
	Cancel bool   `json:"cancel,omitempty"` // end the reading of this ID instead; the rest but Who is not heeded
}

// Answer is what will be read.
type Answer struct {
	ID    string     `json:"id"`
	Table string     `json:"table"`         // schema.table
	Rows  int64      `json:"rows"`          // by PostgreSQL's estimate
	Bytes int64      `json:"bytes"`         // of the whole table
	LSN   events.LSN `json:"lsn,omitempty"` // in the ids of the events; 0 in a dry run
}

// ErrUnfit is the error of an Ask that can't be done, whoever is asked.
var ErrUnfit = errors.New("unfit")

type unfitError struct{ error }

func (unfitError) Is(target error) bool { return target == ErrUnfit }

// Unfit gives an error that says why, and is ErrUnfit.
func Unfit(format string, args ...any) error { return unfitError{fmt.Errorf(format, args...)} }

const (
	judgeTimeout = 5 * time.Second // of PostgreSQL's look at a condition
	askMost      = 16              // that wait
)

// serve lets others ask, until ctx ends.
func (a *readings) serve(ctx context.Context) error {
	if a.opts.Serve == nil {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	return a.opts.Serve(ctx, a.ask)
}

// ask checks what is asked for, writes it to the log, and returns when it is stored that it is to be read.
func (a *readings) ask(ctx context.Context, ask Ask) (Answer, error) {
	var answer Answer
	if ask.Cancel {
		return a.askCancel(ctx, ask)
	}
	if a.ops != nil && !a.ops[events.OpSnapshot] {
		return answer, Unfit("source %s publishes no snapshot events: add snapshot to sources[].ops", a.opts.Name)
	}
	conn, err := a.connector.open(ctx)
	if err != nil {
		return answer, fmt.Errorf("connect to look at %s: %w", ask.Table, err)
	}
	defer closeConn(ctx, conn)
	t, oid, err := a.askedTable(ctx, conn, ask.Table)
	if err != nil {
		return answer, err
	}
	answer = Answer{ID: ask.ID, Table: t.relation.String()}
	if err := a.judgeWhere(ctx, conn, t, ask.Where, &answer); err != nil {
		return answer, err
	}
	if ask.DryRun {
		return answer, nil
	}
	if a.waitingAsks(ask.ID) >= askMost {
		return answer, Unfit("%d readings wait already: ask again when they are done", askMost)
	}
	content, err := json.Marshal(additionMessage{Slot: a.opts.Slot, Asked: &asked{
		ID: ask.ID, OID: oid, Table: answer.Table, Where: ask.Where, Who: ask.Who,
	}})
	if err != nil {
		return answer, err
	}
	if _, known := a.askedLSN(ask.ID); !known {
		if _, err := conn.Exec(ctx, "SELECT pg_logical_emit_message(true, $1, $2::text)", additionPrefix, string(content)); err != nil {
			return answer, fmt.Errorf("write what is asked for to the log: %w", err)
		}
	}
	for {
		a.mu.Lock()
		arrived := a.arrived
		a.mu.Unlock()
		if lsn, known := a.askedLSN(ask.ID); known {
			answer.LSN = lsn
			return answer, nil
		}
		select {
		case <-arrived:
		case <-ctx.Done():
			return answer, fmt.Errorf("wait until it comes through the stream: %w", context.Cause(ctx))
		}
	}
}

func (a *readings) waitingAsks(except string) (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range a.pending {
		if a.pending[i].Asked != nil && a.pending[i].Asked.ID != except {
			n++
		}
	}
	return n
}

// askedLSN tells whether what was asked for under an ID came, and what its events' ids have.
func (a *readings) askedLSN(id string) (events.LSN, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range a.pending {
		if a.pending[i].Asked != nil && a.pending[i].Asked.ID == id {
			return a.pending[i].LSN, true
		}
	}
	for i := range a.ended {
		if a.ended[i].ID == id {
			return a.ended[i].LSN, true
		}
	}
	return 0, false
}

// askedTable finds a table that is published, matches sources[].tables, and may be read.
func (a *readings) askedTable(ctx context.Context, conn *pgx.Conn, name string) (*snapshotTable, uint32, error) {
	rows, err := conn.Query(ctx, publishedSQL(a.version, "true"), a.opts.Publication)
	if err != nil {
		return nil, 0, fmt.Errorf("list the published tables: %w", err)
	}
	published, err := pgx.CollectRows(rows, pgx.RowToStructByPos[publishedTable])
	if err != nil {
		return nil, 0, fmt.Errorf("list the published tables: %w", err)
	}
	matching, err := a.matching(ctx)
	if err != nil {
		return nil, 0, err
	}
	var found []*publishedTable
	for i := range published {
		p := &published[i]
		if p.Schema+"."+p.Name == name || p.Name == name && !strings.Contains(name, ".") {
			found = append(found, p)
		}
	}
	switch {
	case len(found) == 0:
		return nil, 0, Unfit("%s is not published by %s, so its changes are not read, and its rows are not either: name a table that source %s reads (%s)",
			name, a.opts.Publication, a.opts.Name, a.patterns)
	case len(found) > 1:
		return nil, 0, Unfit("several schemas have a table %s: say schema.table", name)
	}
	for i := range matching {
		t := &matching[i]
		if t.OID != found[0].OID {
			continue
		}
		if !t.Readable {
			user := quoteIdent(a.connector.config.User)
			return nil, 0, Unfit("role %s may not read %s: GRANT USAGE ON SCHEMA %s and SELECT ON %s to it (and BYPASSRLS where it has row security)",
				user, t, quoteIdent(t.Schema), t.quoted())
		}
		table, err := a.describeTable(ctx, conn, found[0])
		if err != nil {
			return nil, 0, Unfit("read %s: %w", t, err)
		}
		return table, t.OID, nil
	}
	return nil, 0, Unfit("%s does not match sources[].tables (%s)", name, a.patterns)
}

// judgeWhere has PostgreSQL parse a condition, and estimate what it finds. The condition is parsed on its own where a
// closing parenthesis would be an error, and then in the place that it is used in, so that it can't be more than a
// condition; by the extended protocol, which takes one statement; and in a transaction that reads only.
func (a *readings) judgeWhere(ctx context.Context, conn *pgx.Conn, t *snapshotTable, where string, answer *Answer) error {
	if err := a.beginSnapshot(ctx, conn, ""); err != nil {
		return fmt.Errorf("look at %s: %w", answer.Table, err)
	}
	defer func() { _, _ = conn.Exec(ctx, "ROLLBACK") }()
	if _, err := conn.Exec(ctx, fmt.Sprintf("SET LOCAL statement_timeout = %d", judgeTimeout.Milliseconds())); err != nil {
		return fmt.Errorf("look at %s: %w", answer.Table, err)
	}
	only := " FROM ONLY "
	if t.Partitioned {
		only = " FROM "
	}
	from := only + quoteIdent(t.relation.schema) + "." + quoteIdent(t.relation.table)
	query := t.query(liveQuery{limit: liveRows, where: where})
	if where != "" {
		for _, text := range []string{"SELECT CASE WHEN " + where + "\n THEN true END" + from, query} {
			if err := parseCondition(ctx, conn, text); err != nil {
				return err
			}
		}
	}
	var plan []struct {
		Plan struct {
			Rows float64 `json:"Plan Rows"`
		} `json:"Plan"`
	}
	explain := "EXPLAIN (FORMAT json) SELECT" + from
	if where != "" {
		explain += " WHERE (" + where + "\n)"
	}
	var text string
	if err := conn.QueryRow(ctx, explain).Scan(&text); err != nil {
		return explainCondition(err)
	}
	if err := json.Unmarshal([]byte(text), &plan); err != nil || len(plan) == 0 {
		return fmt.Errorf("read PostgreSQL's estimate: %w", err)
	}
	answer.Rows = int64(plan[0].Plan.Rows)
	const size = `SELECT coalesce(sum(pg_catalog.pg_table_size(o)), 0)::bigint FROM
		(SELECT $1::oid AS o UNION SELECT relid FROM pg_catalog.pg_partition_tree($1::oid::regclass) WHERE isleaf) x`
	if err := conn.QueryRow(ctx, size, t.OID).Scan(&answer.Bytes); err != nil {
		return fmt.Errorf("ask for the size of %s: %w", answer.Table, err)
	}
	return nil
}

func parseCondition(ctx context.Context, conn *pgx.Conn, text string) error {
	prepared, err := conn.PgConn().Prepare(ctx, "", text, nil)
	if err != nil {
		return explainCondition(err)
	}
	if len(prepared.ParamOIDs) > 0 {
		return Unfit("the condition has parameters ($1): write values")
	}
	return nil
}

// explainCondition makes what PostgreSQL says of a condition final.
func explainCondition(err error) error {
	var answer *pgconn.PgError
	if errors.As(err, &answer) && isOfQuery(err) {
		return Unfit("PostgreSQL refuses the condition: %s", answer.Message)
	}
	return fmt.Errorf("have PostgreSQL parse the condition: %w", err)
}
