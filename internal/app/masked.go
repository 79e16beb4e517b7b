package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/tributary-dev/tributary/internal/natskv"
)

// masked keeps in KV `leases` for which tables the masks of a source held. It implements pgcdc.Memory.
type masked struct {
	bucket *natskv.Bucket
	source string
}

// maskedTables is its record.
type maskedTables struct {
	Database string              `json:"database"`
	Held     map[string][]uint32 `json:"held"` // the OIDs of tables, by rule
}

func (m masked) key() string { return "masked." + m.source }

// Recall implements pgcdc.Memory.
func (m masked) Recall(ctx context.Context, database string) (map[string][]uint32, error) {
	tables, _, err := m.read(ctx, database)
	return tables.Held, err
}

// Keep implements pgcdc.Memory.
func (m masked) Keep(ctx context.Context, database string, held map[string][]uint32) error {
	for {
		tables, revision, err := m.read(ctx, database)
		if err != nil {
			return err
		}
		for rule, oids := range held {
			all := append(tables.Held[rule], oids...)
			slices.Sort(all)
			tables.Held[rule] = slices.Compact(all)
		}
		value, err := json.Marshal(tables)
		if err != nil {
			return fmt.Errorf("encode %s: %w", m.key(), err)
		}
		if _, err = m.bucket.Swap(ctx, m.key(), value, revision, 0); !errors.Is(err, natskv.ErrConflict) {
			return err
		}
	}
}

// read gives what is kept of a database: nothing where it is of another one.
func (m masked) read(ctx context.Context, database string) (maskedTables, uint64, error) {
	none := maskedTables{Database: database, Held: map[string][]uint32{}}
	entry, err := m.bucket.Get(ctx, m.key())
	if errors.Is(err, natskv.ErrNotFound) {
		return none, 0, nil
	}
	if err != nil {
		return none, 0, err
	}
	var tables maskedTables
	if err := json.Unmarshal(entry.Value, &tables); err != nil {
		return none, 0, fmt.Errorf("key %s can't be read (%w): delete it, and name partitions that were detached in sources[].mask", m.key(), err)
	}
	if tables.Database != database || tables.Held == nil {
		return none, entry.Revision, nil
	}
	return tables, entry.Revision, nil
}
