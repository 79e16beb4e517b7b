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
	Slot   string   `json:"slot"`
	Added  []uint32 `json:"added,omitempty"`  // OIDs of the tables that this transaction adds
	Asked  *asked   `json:"asked,omitempty"`  // what somebody asked for
	Cancel *asked   `json:"cancel,omitempty"` // what somebody asked for is not wanted any more: its ID, and who says so
	Read   string   `json:"read,omitempty"`   // the token of a chunk, whose place this transaction is
}

// asked is what somebody wants to have read.
type asked struct {
	ID    string `json:"id"`
	OID   uint32 `json:"oid"`
	Table string `json:"table"`
	Where string `json:"where,omitempty"`
	Who   string `json:"who,omitempty"`
}

// reading is some tables whose rows are read while their changes come: those that were added to the publication in one
// transaction, those of a snapshot that was cut off, or one that was asked for; and how far they were read. It is stored
// in the position's cursor, in one step with the rows that it covers.
type reading struct {
	tally
	LSN    events.LSN `json:"lsn"`              // names the reading in ids: of the commit that began it, or of a snapshot's slot
	Time   time.Time  `json:"time"`             // of that commit, and of the rows' events
	Tables []uint32   `json:"tables"`           // as they are published; a partitioned one that is not stands for its partitions
	Table  uint32     `json:"table"`            // those with lower OIDs are done
	After  [][]byte   `json:"after,omitempty"`  // PostgreSQL's texts of the last row's key columns, or of its ctid; none at the table's begin
	File   uint32     `json:"file,omitempty"`   // of a table without a key, whose rows are known by their places in it
	Seen   string     `json:"seen,omitempty"`   // with it: what changed since this view of the database comes as changes
	Expect float64    `json:"expect,omitempty"` // rows in all, by estimate

	Rest     bool    `json:"rest,omitempty"`     // of a snapshot that was cut off
	Snapshot string  `json:"snapshot,omitempty"` // of that: its view of the database
	Left     []piece `json:"left,omitempty"`     // of that: the tables that were begun; of others all rows are left

	Asked *asked `json:"asked,omitempty"`

	Again []again `json:"again,omitempty"` // rows of Table that are to be read by their keys
	Since uint32  `json:"since,omitempty"` // there are more: what this transaction or a later one wrote is read in another pass
	Pass  uint32  `json:"pass,omitempty"`  // that pass: what this transaction or a later one wrote is read
	Drain bool    `json:"drain,omitempty"` // the end of Table was reached, and Again is left
}

func (r *reading) kind() string {
	switch {
	case r.Asked != nil:
		return ReadAsked
	case r.Rest:
		return ReadSnapshot
	default:
		return ReadAdded
	}
}

// begun gives the pieces of a table that was begun when the snapshot was cut off; none where all of it is left.
func (r *reading) begun(table uint32) (pieces []piece) {
	for i := range r.Left {
		if r.Left[i].As == table {
			pieces = append(pieces, r.Left[i])
		}
	}
	return pieces
}

// readingsCursor is the cursor of a position in the phase of streaming.
type readingsCursor struct {
	Readings []reading `json:"additions,omitempty"`
	Ended    []Ended   `json:"ended,omitempty"` // the last ones that were asked for
}

func parseReadings(cursor json.RawMessage) (readingsCursor, error) {
	var c readingsCursor
	if len(cursor) == 0 {
		return c, nil
	}
	err := json.Unmarshal(cursor, &c)
	return c, err
}

func (c readingsCursor) encode() (json.RawMessage, error) {
	if len(c.Readings) == 0 && len(c.Ended) == 0 {
		return nil, nil
	}
	encoded, err := json.Marshal(c)
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
