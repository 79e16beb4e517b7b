package pgcdc

import (
	"bytes"
	"context"
	"log/slog"

	"github.com/tributary-dev/tributary/pkg/events"
)

// Candidate is an event that Options.Keep judges.
type Candidate struct {
	Op            events.Op
	Schema, Table string // empty for a logical message
	Envelope      []byte // the event as it would be published, but that tx.last is false; only during the call
	Data          []byte // its member data
}

// Why a change is not published.
const (
	whyTable  = "table"  // it is not one that the patterns name
	whyOp     = "op"     // Options.Ops does not have its operation
	whyFilter = "filter" // Options.Keep does not want it
)

// sieve decides which changes are published. It is for one goroutine. A change that it holds back is as if it were not
// there, but that it is counted in its transaction, so that what is published has the same id under any filter.
type sieve struct {
	ops      map[events.Op]bool // nil takes all
	keep     func(*Candidate) (bool, error)
	metrics  *sourceMetrics
	log      *slog.Logger
	envelope []byte          // memory
	told     map[string]bool // the tables and operations whose failure was logged
}

func (s *Source) newSieve() *sieve {
	return &sieve{ops: s.ops, keep: s.opts.Keep, metrics: s.metrics, log: s.opts.Log, told: map[string]bool{}}
}

// takes tells whether changes with op are published.
func (s *sieve) takes(op events.Op) bool {
	if s.ops == nil || s.ops[op] {
		return true
	}
	s.metrics.filtered[whyOp].Inc()
	return false
}

// passes tells whether a change is to be published. One that can't be judged is: nothing is lost, and what it shows is
// masked.
func (s *sieve) passes(ctx context.Context, c *events.Change) bool {
	if s.keep == nil {
		return true
	}
	s.envelope = events.AppendChange(s.envelope[:0], c)
	_, data, _ := bytes.Cut(s.envelope, []byte(`,"data":`)) // nothing before it holds a quote of its own
	kept, err := s.keep(&Candidate{Op: c.Op, Schema: c.Schema, Table: c.Table, Envelope: s.envelope, Data: data[:len(data)-1]})
	if err != nil {
		s.metrics.filterErrors.Inc()
		s.tell(ctx, c, err)
		return true
	}
	if !kept {
		s.metrics.filtered[whyFilter].Inc()
	}
	return kept
}

// tell logs the first failure of each kind. Its text may hold values of the row, so it is for debugging alone.
func (s *sieve) tell(ctx context.Context, c *events.Change, err error) {
	const most = 1000
	kind := string(c.Op) + " " + c.Schema + "." + c.Table
	if s.told[kind] || len(s.told) >= most {
		return
	}
	s.told[kind] = true
	s.log.Warn("sources[].filter fails for changes, which are published; log.level debug says how", "op", c.Op, "table", c.Schema+"."+c.Table)
	s.log.DebugContext(ctx, "sources[].filter", "event", string(c.ID), "err", err)
}
