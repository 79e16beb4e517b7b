package pgcdc

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/ingest"
)

// Kinds of readings of rows.
const (
	ReadSnapshot = "snapshot" // of the source's first start, or of what was left of it
	ReadAdded    = "added"    // of tables that were added while running
	ReadAsked    = "asked"    // of a table that somebody asked for
)

// Progress is how far a reading of rows has come.
type Progress struct {
	Kind        string     `json:"kind"`
	ID          string     `json:"id,omitempty"` // of what was asked for
	LSN         events.LSN `json:"lsn"`          // in the ids of its events
	Table       string     `json:"table,omitempty"`
	Where       string     `json:"where,omitempty"`
	Tables      int        `json:"tables_left,omitempty"` // of a reading among changes
	Rows        uint64     `json:"rows"`
	Bytes       uint64     `json:"bytes"`
	Done        float64    `json:"done"`                   // from 0 to 1, by PostgreSQL's estimates
	SecondsLeft *float64   `json:"seconds_left,omitempty"` // absent where nobody knows
	Waiting     bool       `json:"waiting,omitempty"`      // for another reading
}

// Ended is what came of a reading that was asked for.
type Ended struct {
	ID        string     `json:"id"`
	LSN       events.LSN `json:"lsn"`
	Table     string     `json:"table"`
	Rows      uint64     `json:"rows"`
	Error     string     `json:"error,omitempty"`
	Cancelled bool       `json:"cancelled,omitempty"` // Error says by whom
	Time      time.Time  `json:"time"`
}

// ReadProgress tells what a position knows of rows that are being read, in their order, and of those that were asked for
// and are read. It errs where another version wrote the position.
func ReadProgress(p ingest.Position) ([]Progress, []Ended, error) {
	if len(p.Cursor) == 0 {
		return nil, nil, nil
	}
	if p.Phase == ingest.PhaseSnapshot {
		var c cursor
		if err := json.Unmarshal(p.Cursor, &c); err != nil {
			return nil, nil, fmt.Errorf("decode the cursor of a snapshot: %w", err)
		}
		progress := c.tally.progress(ReadSnapshot)
		progress.LSN = p.EndLSN
		return []Progress{progress}, nil, nil
	}
	c, err := parseReadings(p.Cursor)
	if err != nil {
		return nil, nil, fmt.Errorf("decode the cursor of readings: %w", err)
	}
	var list []Progress
	for i := range c.Readings {
		r := &c.Readings[i]
		progress := r.tally.progress(r.kind())
		progress.LSN, progress.Tables, progress.Waiting = r.LSN, len(r.Tables), i > 0
		if r.Asked != nil {
			progress.ID, progress.Where, progress.Table = r.Asked.ID, r.Asked.Where, r.Asked.Table
		}
		list = append(list, progress)
	}
	return list, c.Ended, nil
}

// tally is what was read, and how long the rest may take, as a cursor keeps it.
type tally struct {
	ReadRows    uint64   `json:"read_rows,omitempty"`
	ReadBytes   uint64   `json:"read_bytes,omitempty"`
	Done        float64  `json:"done,omitempty"`
	SecondsLeft *float64 `json:"seconds_left,omitempty"`
}

func (t *tally) progress(kind string) Progress {
	return Progress{Kind: kind, Rows: t.ReadRows, Bytes: t.ReadBytes, Done: t.Done, SecondsLeft: t.SecondsLeft}
}

// pace estimates when a reading ends, by what it did since it, or this session of it, began.
type pace struct {
	began time.Time
	from  float64 // what was done by then, from 0 to 1
}

// left gives seconds; nil where nothing says how many.
func (p pace) left(done float64, now time.Time) *float64 {
	took := now.Sub(p.began).Seconds()
	if done <= p.from || took <= 0 {
		return nil
	}
	left := took * (1 - done) / (done - p.from)
	return &left
}

// logEvery is how often progress is logged.
const logEvery = 5 * time.Second

// report tells logs and metrics how far readings have come. It is safe for concurrent use.
type report struct {
	log     *slog.Logger
	metrics *sourceMetrics

	mu     sync.Mutex
	logged time.Time // guarded by mu
}

func (r *report) read(rows, bytes uint64) {
	r.metrics.snapshotRows.Add(float64(rows))
	r.metrics.snapshotBytes.Add(float64(bytes))
}

// at is told how far a reading is, and logs it now and then.
func (r *report) at(what string, t *tally, now time.Time) {
	r.metrics.snapshotDone.Set(t.Done)
	left := "unknown"
	if t.SecondsLeft != nil {
		r.metrics.snapshotLeft.Set(*t.SecondsLeft)
		left = time.Duration(*t.SecondsLeft * float64(time.Second)).Round(time.Second).String()
	}
	r.mu.Lock()
	due := now.Sub(r.logged) >= logEvery
	if due {
		r.logged = now
	}
	r.mu.Unlock()
	if due {
		r.log.Info("reading rows", "of", what, "rows", t.ReadRows, "bytes", t.ReadBytes, "done", fmt.Sprintf("%.1f%%", 100*t.Done), "left", left)
	}
}

// nothing is told when no row is to be read.
func (r *report) nothing() {
	r.metrics.snapshotDone.Set(1)
	r.metrics.snapshotLeft.Set(0)
}
