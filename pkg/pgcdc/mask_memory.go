package pgcdc

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Memory keeps for which tables the rules of a source held, so that they hold after a restart too under any name that a table
// got, and when it is a partition no more. It is safe for concurrent use.
type Memory interface {
	// Recall gives the tables, by their OIDs, for each rule. Those of another database than the one that is named are not
	// given.
	Recall(ctx context.Context, database string) (map[string][]uint32, error)

	// Keep adds tables to what is recalled, and forgets those of other databases.
	Keep(ctx context.Context, database string, held map[string][]uint32) error
}

// name is what a rule is remembered under: that it need not match is not part of it.
func (r *columnRule) name() string { return strings.TrimSuffix(r.text, "?") }

// remember tells masking which database it is about, and what its rules held for. Dropped tables are not remembered: of
// them nobody knows, and all rules hold.
func (r *run) remember(ctx context.Context, system *system, now map[uint32][]bool) error {
	m := r.masking
	if m.rules == nil {
		return nil
	}
	if r.opts.Memory != nil {
		m.memory, m.database = r.opts.Memory, system.id+"/"+r.connector.config.Database
		kept, err := m.memory.Recall(ctx, m.database)
		if err != nil {
			return fmt.Errorf("recall what is masked: %w", err)
		}
		for n := range m.rules.rules {
			for _, oid := range kept[m.rules.rules[n].name()] {
				m.hold(oid, n, false)
			}
		}
	}
	for _, oid := range slices.Sorted(maps.Keys(now)) {
		for n, holds := range now[oid] {
			if holds {
				m.hold(oid, n, true)
			}
		}
	}
	return m.keep(ctx)
}

// hold notes that a rule holds for a table.
func (m *masking) hold(oid uint32, rule int, isNew bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.note(oid, rule, isNew)
}

// note is hold under the lock.
func (m *masking) note(oid uint32, rule int, isNew bool) {
	held := m.held[oid]
	if held == nil {
		held = make([]bool, len(m.rules.rules))
		m.held[oid] = held
	}
	if held[rule] {
		return
	}
	held[rule] = true
	if isNew {
		name := m.rules.rules[rule].name()
		m.fresh[name] = append(m.fresh[name], oid)
	}
}

// keep stores what is new, before any event of these tables is made.
func (m *masking) keep(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.memory == nil || len(m.fresh) == 0 {
		clear(m.fresh)
		return nil
	}
	if err := m.memory.Keep(ctx, m.database, m.fresh); err != nil {
		return fmt.Errorf("keep what is masked: %w", err)
	}
	clear(m.fresh)
	return nil
}
