package app

import (
	"errors"
	"fmt"

	"github.com/tributary-dev/tributary/internal/config"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/observers/expr"
	"github.com/tributary-dev/tributary/pkg/pgcdc"
)

// sourceOptions says of each source what the configuration does: what to read, and what of it to publish.
func sourceOptions(env *environment) ([]pgcdc.Options, error) {
	var all []pgcdc.Options
	for i := range env.config.Sources {
		s := &env.config.Sources[i]
		o, err := optionsOf(s)
		if err != nil {
			return nil, fmt.Errorf("sources[%d].%w", i, err)
		}
		o.Log = env.log
		all = append(all, o)
	}
	return all, nil
}

// optionsOf errors with the key's name in front.
func optionsOf(s *config.Source) (pgcdc.Options, error) {
	url, err := s.Postgres.Resolve()
	if err != nil {
		return pgcdc.Options{}, fmt.Errorf("postgres %w", err)
	}
	o := pgcdc.Options{
		Name: s.Name, ConnString: url, Tables: s.Tables, Slot: s.Slot, Publication: s.Publication, Snapshot: s.Snapshot,
		SnapshotParallel: s.SnapshotParallel, SnapshotRate: int64(s.SnapshotRate), Heartbeat: s.Heartbeat, ReceiveTimeout: s.ReceiveTimeout, Exclude: s.Exclude, Masks: s.Mask,
	}
	for _, op := range s.Ops {
		o.Ops = append(o.Ops, events.Op(op))
	}
	if !s.MaskKey.Empty() {
		key, err := s.MaskKey.Resolve()
		if err != nil {
			return o, fmt.Errorf("mask_key %w", err)
		}
		o.MaskKey = []byte(key)
	}
	if s.Filter != "" {
		if o.Keep, err = keepWhere(s.Filter); err != nil {
			return o, fmt.Errorf("filter: %w", err)
		}
	}
	return o, nil
}

// keepWhere compiles a filter.
func keepWhere(text string) (func(*pgcdc.Candidate) (bool, error), error) {
	env, err := expr.NewFilterEnv()
	if err != nil {
		return nil, err
	}
	condition, err := env.CompileCondition(text)
	if problem := new(expr.Error); errors.As(err, &problem) {
		return nil, fmt.Errorf("%s, at %q; beside what observers have, there are schema and table", problem.Message, text[problem.Offset:])
	}
	if err != nil {
		return nil, err
	}
	return func(c *pgcdc.Candidate) (bool, error) {
		return condition.Eval(expr.NewInput(expr.Fields{
			Envelope: c.Envelope, Data: c.Data, Op: string(c.Op), Row: c.Op != events.OpMessage, Schema: c.Schema, Table: c.Table,
		}))
	}, nil
}

// loadSources reads what the configuration says of sources, without connecting to any.
func loadSources(env *environment) error {
	all, err := sourceOptions(env)
	if err != nil {
		return err
	}
	for i := range all {
		all[i].Partitions = 1 // of the stream, which is not asked
		if _, err := pgcdc.New(all[i]); err != nil {
			return err
		}
	}
	return nil
}
