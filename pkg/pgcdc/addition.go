package pgcdc

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tributary-dev/tributary/pkg/events"
)

// additionPrefix is that of the messages which say, in a transaction of their own, that tables were added to the
// publication, or that rows of theirs were read.
const additionPrefix = ownPrefix + "addition"

// additionMessage is the content of one. It is for the reader of the slot that it names.
type additionMessage struct {
	Slot  string   `json:"slot"`
	Added []uint32 `json:"added,omitempty"` // OIDs of the tables that this transaction adds
	Read  string   `json:"read,omitempty"`  // the token of a chunk, whose place this transaction is
}

// addition is some tables that were added to the publication in one transaction, and how far their rows were read. It is
// stored in the position's cursor, in one step with the rows that it covers.
type addition struct {
	LSN    events.LSN `json:"lsn"`             // of that transaction's commit; names the reading
	Time   time.Time  `json:"time"`            // of that commit, and of the rows' events
	Tables []uint32   `json:"tables"`          // as they were added; a partitioned one stands for its partitions
	Table  uint32     `json:"table"`           // those with lower OIDs are done
	After  [][]byte   `json:"after,omitempty"` // PostgreSQL's texts of the last row's key columns; none at the table's begin
}

// additionCursor is the cursor of a position in the phase of streaming.
type additionCursor struct {
	Additions []addition `json:"additions"`
}

func parseAdditions(cursor json.RawMessage) ([]addition, error) {
	if len(cursor) == 0 {
		return nil, nil
	}
	var c additionCursor
	if err := json.Unmarshal(cursor, &c); err != nil {
		return nil, err
	}
	return c.Additions, nil
}

func encodeAdditions(additions []addition) (json.RawMessage, error) {
	if len(additions) == 0 {
		return nil, nil
	}
	encoded, err := json.Marshal(additionCursor{additions})
	if err != nil {
		return nil, fmt.Errorf("encode the cursor: %w", err)
	}
	return encoded, nil
}

// publish adds tables to the publication. The same transaction tells the stream's reader that their rows are to be read,
// so that this is known if and only if they were added, whoever reads.
func (r *run) publish(ctx context.Context, tables []table) error {
	statement := "ALTER PUBLICATION " + quoteIdent(r.opts.Publication) + " ADD " + tableList(tables)
	if !r.opts.Snapshot {
		return r.alter(ctx, statement)
	}
	m := additionMessage{Slot: r.opts.Slot}
	for i := range tables {
		m.Added = append(m.Added, tables[i].OID)
	}
	content, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode the addition: %w", err)
	}
	err = r.query.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, statement); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, "SELECT pg_logical_emit_message(true, $1, $2::text)", additionPrefix, string(content))
			return err
		})
	})
	if hasCode(err, codeDuplicateObject) {
		return nil // another was quicker
	}
	if err != nil {
		return explainRights(fmt.Errorf("alter publication %s: %w", r.opts.Publication, err), statement)
	}
	return nil
}
