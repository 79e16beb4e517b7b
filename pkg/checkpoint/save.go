package checkpoint

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// request is a call that waits for its checkpoint to be saved.
type request struct {
	checkpoint Checkpoint
	manual     string // why a person sets it, whatever came before; empty for a leader's
	done       chan error
}

// Save makes c the source's checkpoint, durably, in one transaction with all that is saved at the same time. It errs with
// ErrStale where a later epoch has saved, with ErrBackwards where a later place is saved, with ErrRights where the role
// may not write. The same again is no error, and writes nothing. After any other error, or when ctx ended, c may be saved
// or not.
func (s *Store) Save(ctx context.Context, c Checkpoint) error {
	return s.save(ctx, &request{checkpoint: c, done: make(chan error, 1)})
}

// Set is Save by a person, c.Leader, who says why: it may go backwards, and is always in the history. It errs with
// ErrStale unless c's epoch is later than that of all leaders.
func (s *Store) Set(ctx context.Context, c Checkpoint, why string) error {
	if why == "" {
		return errors.New("set a checkpoint: say why")
	}
	return s.save(ctx, &request{checkpoint: c, manual: why, done: make(chan error, 1)})
}

func (s *Store) save(ctx context.Context, r *request) error {
	s.mu.Lock()
	s.waiting = append(s.waiting, r)
	if !s.saving {
		s.saving = true
		s.savers.Go(func() { s.saveAll(context.WithoutCancel(ctx)) })
	}
	s.mu.Unlock()
	select {
	case err := <-r.done:
		if err != nil {
			return fmt.Errorf("save the checkpoint of %s: %w", r.checkpoint.Source, err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("save the checkpoint of %s: %w", r.checkpoint.Source, context.Cause(ctx))
	}
}

// saveAll saves what waits, group by group, until nothing does. What comes during one transaction is the next group.
func (s *Store) saveAll(ctx context.Context) {
	for {
		s.mu.Lock()
		group := s.waiting
		s.waiting = nil
		s.saving = len(group) > 0
		s.mu.Unlock()
		if len(group) == 0 {
			return
		}
		if s.saveGroup(ctx, group) {
			s.pruneSometimes(ctx)
		}
	}
}

// saveGroup answers every request of group, and tells whether the history grew.
func (s *Store) saveGroup(ctx context.Context, group []*request) (audited bool) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	bySource := make(map[string][]*request)
	for _, r := range group {
		bySource[r.checkpoint.Source] = append(bySource[r.checkpoint.Source], r)
	}
	var stale []string // sources whose row has to be read first
	for source := range bySource {
		if _, ok := s.known[source]; !ok {
			stale = append(stale, source)
		}
	}
	for len(bySource) > 0 {
		wrote, err := s.tryGroup(ctx, bySource, stale)
		audited = audited || wrote
		if err != nil && !hasCode(err, codeDeadlock, codeSerialization) {
			clear(s.known) // what was written is not known
			for _, requests := range bySource {
				answer(requests, func(*request) error { return explain(err) })
			}
			return audited
		}
		stale = stale[:0]
		for source := range bySource { // somebody else wrote, or nothing was to be written: look before answering
			stale = append(stale, source)
		}
	}
	return audited
}

// tryGroup reads the rows of the stale sources, judges all requests in their order, and writes what is left of each
// source where its row is still the one that it was judged by. A source whose requests are answered leaves bySource.
func (s *Store) tryGroup(ctx context.Context, bySource map[string][]*request, stale []string) (audited bool, err error) {
	fresh := make(map[string]bool, len(stale))
	for _, source := range stale {
		fresh[source] = true
	}
	if err := s.refresh(ctx, stale); err != nil {
		return false, err
	}
	var write []newRow
	plans := make(map[string]plan, len(bySource))
	for source, requests := range bySource {
		p := newPlan(s.known[source], requests)
		plans[source] = p
		if p.changed {
			write = append(write, p.row())
			audited = audited || len(p.history) > 0
		}
	}
	written, err := s.write(ctx, write)
	if err != nil {
		return false, err
	}
	for source, p := range plans {
		if p.changed && !written[source] || !p.changed && !fresh[source] {
			continue
		}
		s.known[source] = p.after
		answer(bySource[source], func(r *request) error { return p.errs[r] })
		delete(bySource, source)
	}
	return audited, nil
}

func answer(requests []*request, say func(*request) error) {
	for _, r := range requests {
		r.done <- say(r)
	}
}

// plan is what a group does to one source.
type plan struct {
	before, after row
	changed       bool
	errs          map[*request]error
	history       []newHistory
}

// newPlan judges requests one after the other, as if each were a transaction of its own.
func newPlan(now row, requests []*request) plan {
	p := plan{before: now, after: now}
	for _, r := range requests {
		why, changes, err := r.manual, true, error(nil)
		if r.manual == "" {
			changes, err = judge(p.after, r.checkpoint)
			why = reason(p.after, r.checkpoint)
		} else if p.after.version > 0 && r.checkpoint.Epoch <= p.after.Epoch {
			err = fmt.Errorf("%w: epoch %d of %s, and the new one has to be later", ErrStale, p.after.Epoch, p.after.Leader)
		}
		if err != nil {
			if p.errs == nil {
				p.errs = make(map[*request]error)
			}
			p.errs[r] = err
			continue
		}
		if !changes {
			continue
		}
		if why != "" {
			p.history = append(p.history, newHistory{Who: r.checkpoint.Leader, Why: why, Earlier: p.after.orNil(), Later: r.checkpoint})
		}
		p.after = row{Checkpoint: r.checkpoint, version: now.version + 1}
		p.changed = true
	}
	return p
}

func (r row) orNil() *Checkpoint {
	if r.version == 0 {
		return nil
	}
	return &r.Checkpoint
}

// newRow is what writeSQL takes for a source.
type newRow struct {
	Checkpoint
	Version int64        `json:"version"` // of the row that it replaces; 0 for none
	History []newHistory `json:"history"` // not null
}

type newHistory struct {
	Who     string      `json:"who"`
	Why     string      `json:"why"`
	Earlier *Checkpoint `json:"earlier"`
	Later   Checkpoint  `json:"later"`
}

func (p plan) row() newRow {
	return newRow{Checkpoint: p.after.Checkpoint, Version: p.before.version, History: append([]newHistory{}, p.history...)}
}

// writeSQL replaces rows by their versions, and makes those that are new: one transaction, one round trip. It gives the
// sources that were written; another was quicker with the rest.
const writeSQL = `
WITH new AS MATERIALIZED (
  SELECT * FROM json_to_recordset($1) AS n(source text, version bigint, epoch bigint, incarnation bigint, system_id text, timeline int,
    slot text, phase text, commit_lsn pg_lsn, index bigint, end_lsn pg_lsn, leader text, history json) ORDER BY source),
replaced AS (
  UPDATE tributary.checkpoints c
     SET version = c.version + 1, epoch = n.epoch, incarnation = n.incarnation, system_id = n.system_id, timeline = n.timeline, slot = n.slot,
         phase = n.phase, commit_lsn = n.commit_lsn, change_index = n.index, end_lsn = n.end_lsn, leader = n.leader, saved_at = clock_timestamp()
    FROM new n WHERE c.source = n.source AND c.version = n.version AND n.version > 0
  RETURNING c.source),
made AS (
  INSERT INTO tributary.checkpoints (source, version, epoch, incarnation, system_id, timeline, slot, phase, commit_lsn, change_index, end_lsn, leader, saved_at)
  SELECT source, 1, epoch, incarnation, system_id, timeline, slot, phase, commit_lsn, index, end_lsn, leader, clock_timestamp()
    FROM new WHERE version = 0
  ON CONFLICT DO NOTHING RETURNING source),
written AS (SELECT source FROM replaced UNION ALL SELECT source FROM made),
told AS (
  INSERT INTO tributary.checkpoint_history (source, saved_at, who, why, earlier, later)
  SELECT n.source, clock_timestamp(), h.who, h.why, h.earlier, h.later
    FROM written JOIN new n USING (source), json_to_recordset(n.history) AS h(who text, why text, earlier jsonb, later jsonb))
SELECT source FROM written`

func (s *Store) write(ctx context.Context, rows []newRow) (map[string]bool, error) {
	if len(rows) == 0 {
		return nil, nil
	}
	data, err := json.Marshal(rows)
	if err != nil {
		return nil, fmt.Errorf("encode checkpoints: %w", err)
	}
	answers, err := s.pool.Query(ctx, writeSQL, string(data))
	if err != nil {
		return nil, err
	}
	sources, err := pgx.CollectRows(answers, pgx.RowTo[string])
	if err != nil {
		return nil, err
	}
	written := make(map[string]bool, len(sources))
	for _, source := range sources {
		written[source] = true
	}
	return written, nil
}

// refresh reads what the table holds for sources.
func (s *Store) refresh(ctx context.Context, sources []string) error {
	if len(sources) == 0 {
		return nil
	}
	found, err := s.read(ctx, sources)
	if err != nil {
		return err
	}
	for _, source := range sources {
		s.known[source] = row{}
	}
	for i := range found {
		s.known[found[i].Source] = row{Checkpoint: found[i].Checkpoint, version: found[i].version}
	}
	return nil
}

// pruneSometimes prunes at most hourly, and only behind something new: an idle database stays idle.
func (s *Store) pruneSometimes(ctx context.Context) {
	if time.Since(s.pruned) < time.Hour {
		return
	}
	s.pruned = time.Now()
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	_ = s.Prune(ctx, s.keep) // the next time is soon enough
}
