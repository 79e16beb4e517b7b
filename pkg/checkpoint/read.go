package checkpoint

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tributary-dev/tributary/pkg/events"
)

// savedRow is a row of the table.
type savedRow struct {
	Saved
	version int64
}

const readSQL = `
SELECT source, version, epoch, incarnation, system_id, timeline, slot, phase, commit_lsn::text, change_index, end_lsn::text, leader, saved_at
  FROM tributary.checkpoints WHERE source = ANY($1) OR $1 IS NULL ORDER BY source`

// read gives the rows of sources; of all where sources is nil.
func (s *Store) read(ctx context.Context, sources []string) ([]savedRow, error) {
	rows, err := s.pool.Query(ctx, readSQL, sources)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(r pgx.CollectableRow) (saved savedRow, err error) {
		var commit, end string
		err = r.Scan(&saved.Source, &saved.version, &saved.Epoch, &saved.Incarnation, &saved.SystemID, &saved.Timeline, &saved.Slot, &saved.Phase,
			&commit, &saved.Index, &end, &saved.Leader, &saved.At)
		if err != nil {
			return saved, err
		}
		if saved.Commit, err = events.ParseLSN(commit); err != nil {
			return saved, err
		}
		saved.End, err = events.ParseLSN(end)
		return saved, err
	})
}

// Get gives the checkpoint of a source, or ErrNotFound.
func (s *Store) Get(ctx context.Context, source string) (Saved, error) {
	rows, err := s.read(ctx, []string{source})
	if err != nil {
		return Saved{}, fmt.Errorf("read the checkpoint of %s: %w", source, explain(err))
	}
	if len(rows) == 0 {
		return Saved{}, fmt.Errorf("%w of %s", ErrNotFound, source)
	}
	return rows[0].Saved, nil
}

// List gives all checkpoints of the database, by source.
func (s *Store) List(ctx context.Context) ([]Saved, error) {
	rows, err := s.read(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("read the checkpoints: %w", explain(err))
	}
	list := make([]Saved, len(rows))
	for i := range rows {
		list[i] = rows[i].Saved
	}
	return list, nil
}

// Change is a line of the history.
type Change struct {
	ID     int64       `json:"id"`
	Source string      `json:"source"`
	At     time.Time   `json:"at"`
	Who    string      `json:"who"`
	Why    string      `json:"why"`
	From   *Checkpoint `json:"from"` // null for the first
	To     Checkpoint  `json:"to"`
}

// History gives the last n changes of a source, the newest first.
func (s *Store) History(ctx context.Context, source string, n int) ([]Change, error) {
	const question = `SELECT id, source, saved_at, who, why, earlier, later FROM tributary.checkpoint_history WHERE source = $1 ORDER BY id DESC LIMIT $2`
	rows, err := s.pool.Query(ctx, question, source, n)
	if err != nil {
		return nil, fmt.Errorf("read the history of %s: %w", source, explain(err))
	}
	changes, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (c Change, err error) {
		var from, to []byte
		if err := r.Scan(&c.ID, &c.Source, &c.At, &c.Who, &c.Why, &from, &to); err != nil {
			return c, err
		}
		if from != nil {
			if err := json.Unmarshal(from, &c.From); err != nil {
				return c, err
			}
		}
		return c, json.Unmarshal(to, &c.To)
	})
	if err != nil {
		return nil, fmt.Errorf("read the history of %s: %w", source, explain(err))
	}
	return changes, nil
}

// Keep says what stays of each source's history: what is younger than Age, and of that the last Count lines.
type Keep struct {
	Age   time.Duration // 90 days if 0
	Count int           // 1,000 if 0
}

func (k Keep) orDefault() Keep {
	if k.Age == 0 {
		k.Age = 90 * 24 * time.Hour
	}
	if k.Count == 0 {
		k.Count = 1000
	}
	return k
}

// Prune deletes what need not stay of the history. The last line of a source always stays.
func (s *Store) Prune(ctx context.Context, keep Keep) error {
	const prune = `
DELETE FROM tributary.checkpoint_history h
 USING (SELECT id, row_number() OVER (PARTITION BY source ORDER BY id DESC) AS place FROM tributary.checkpoint_history) AS ranked
 WHERE h.id = ranked.id AND ranked.place > 1 AND (ranked.place > $1 OR h.saved_at < clock_timestamp() - $2::interval)`
	keep = keep.orDefault()
	if _, err := s.pool.Exec(ctx, prune, keep.Count, keep.Age); err != nil {
		return fmt.Errorf("prune the history: %w", explain(err))
	}
	return nil
}
