package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/tributary-dev/tributary/pkg/checkpoint"
	"github.com/tributary-dev/tributary/pkg/ingest"
)

// mirrors are the sources' positions in their own databases, for as long as a service runs.
func mirrors(env *environment) (byName map[string]ingest.Mirror, closeAll func(), err error) {
	byName = make(map[string]ingest.Mirror)
	var stores []*checkpoint.Store
	closeAll = func() {
		for _, s := range stores {
			s.Close()
		}
	}
	if !env.config.Ingest.Checkpoints {
		return byName, closeAll, nil
	}
	for i, source := range env.config.Sources {
		url, err := source.Postgres.Resolve()
		if err != nil {
			return nil, nil, fmt.Errorf("sources[%d].postgres %w", i, err)
		}
		store, err := checkpoint.New(url, checkpoint.Options{Name: "tributary/" + source.Name + "/checkpoints"})
		if err != nil {
			return nil, nil, fmt.Errorf("sources[%d].postgres: %w", i, err)
		}
		stores = append(stores, store)
		byName[source.Name] = &mirror{source: source.Name, store: store, log: env.log}
	}
	return byName, closeAll, nil
}

// mirror is a checkpoint.Store as ingest sees it. Where the role may not write, it is off: positions are in EVENTS all
// the same.
type mirror struct {
	source string
	store  *checkpoint.Store
	log    *slog.Logger

	mu    sync.Mutex
	ready bool // the tables are there; guarded by mu
	off   bool // guarded by mu
}

// Last implements ingest.Mirror.
func (m *mirror) Last(ctx context.Context) (ingest.Position, error) {
	if on, err := m.prepare(ctx); err != nil || !on {
		return ingest.Position{}, err
	}
	saved, err := m.store.Get(ctx, m.source)
	switch {
	case errors.Is(err, checkpoint.ErrNotFound):
		return ingest.Position{}, nil
	case errors.Is(err, checkpoint.ErrRights):
		m.turnOff(err)
		return ingest.Position{}, nil
	case err != nil:
		return ingest.Position{}, err
	}
	return mirrored(saved), nil
}

// Save implements ingest.Mirror.
func (m *mirror) Save(ctx context.Context, p ingest.Position) error {
	if on, err := m.prepare(ctx); err != nil || !on {
		return err
	}
	err := m.store.Save(ctx, checkpointOf(m.source, p))
	switch {
	case errors.Is(err, checkpoint.ErrBackwards):
		return nil // EVENTS lost its end, and comes to where it was once more
	case errors.Is(err, checkpoint.ErrRights):
		m.turnOff(err)
		return nil
	default:
		return err
	}
}

// prepare makes the tables, at the first call that can.
func (m *mirror) prepare(ctx context.Context) (on bool, err error) {
	m.mu.Lock()
	ready, off := m.ready, m.off
	m.mu.Unlock()
	if ready || off {
		return !off, nil
	}
	err = m.store.Migrate(ctx)
	if errors.Is(err, checkpoint.ErrRights) {
		m.turnOff(err)
		return false, nil
	}
	if err != nil {
		return false, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ready = true
	return true, nil
}

func (m *mirror) turnOff(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.off {
		m.log.Warn("positions are not mirrored in this source's database; set ingest.checkpoints to false, or grant what is missing and restart",
			"source", m.source, "err", err)
	}
	m.off = true
}

func checkpointOf(source string, p ingest.Position) checkpoint.Checkpoint {
	return checkpoint.Checkpoint{
		Source: source, Epoch: p.Epoch, Incarnation: p.Incarnation, SystemID: p.SystemID, Timeline: p.Timeline, Slot: p.Slot,
		Phase: string(p.Phase), Commit: p.CommitLSN, Index: p.Index, End: p.EndLSN, Leader: p.Leader,
	}
}

func mirrored(c checkpoint.Saved) ingest.Position {
	return ingest.Position{
		V: 1, Epoch: c.Epoch, Incarnation: c.Incarnation, SystemID: c.SystemID, Timeline: c.Timeline, Slot: c.Slot,
		Phase: ingest.Phase(c.Phase), CommitLSN: c.Commit, Index: c.Index, EndLSN: c.End, Leader: c.Leader, Time: c.At,
	}
}
