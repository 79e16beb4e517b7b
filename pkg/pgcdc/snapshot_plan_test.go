package pgcdc

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tributary-dev/tributary/pkg/ingest"
)

func somePlan(blocks ...uint32) *plan {
	p := &plan{chunkBlocks: 10}
	for i, n := range blocks {
		oid := uint32(100 + i)
		keyed := &snapshotTable{OID: oid, relation: &relation{key: []int{0}}}
		p.pieces = append(p.pieces, &planned{piece: piece{As: oid, OID: oid, File: oid}, table: keyed, blocks: n, bytes: int64(n) * 8192})
	}
	return p
}

// whatIsLeft is what a cursor has of a plan.
type whatIsLeft struct {
	Table, Piece uint32
	Open         []piece
}

func left(p *plan) (w whatIsLeft) {
	w.Table, w.Piece, w.Open = p.left()
	return w
}

func TestAPlanKnowsWhatIsLeft(t *testing.T) {
	p := somePlan(25, 0, 5)
	if diff := cmp.Diff(whatIsLeft{Table: 100, Piece: 100}, left(p)); diff != "" {
		t.Errorf("untouched:\n%s", diff)
	}
	a, b := p.take(), p.take()
	p.advance(b, place{13, 7})
	p.finish(a)
	want := whatIsLeft{Table: 100, Piece: 100, Open: []piece{{As: 100, OID: 100, File: 100, Left: []span{{13, 8, 20}, {Block: 20}}}}}
	if diff := cmp.Diff(want, left(p)); diff != "" {
		t.Errorf("in the middle:\n%s", diff)
	}
	c, d := p.take(), p.take()
	if c.left != (span{Block: 20}) || d.piece.OID != 102 || p.take() != nil {
		t.Fatalf("the last chunks are %+v of %d and %+v of %d", c.left, c.piece.OID, d.left, d.piece.OID)
	}
	p.finish(b)
	p.advance(d, place{2, 1})
	want.Open = []piece{{As: 100, OID: 100, File: 100, Left: []span{{Block: 20}}}, {As: 101, OID: 101, File: 101},
		{As: 102, OID: 102, File: 102, Left: []span{{Block: 2, Item: 2}}}}
	if diff := cmp.Diff(want, left(p)); diff != "" {
		t.Errorf("at the end:\n%s", diff)
	}
	if done := p.done(); done < 0.7 || done > 0.8 {
		t.Errorf("%v is done of 30 blocks, 22 of which are read", done)
	}
	p.finish(c)
	if got := left(p); got.Table != 102 || len(got.Open) != 1 {
		t.Errorf("one table left: %+v", got)
	}
	p.finish(d)
	if got := left(p); got.Open != nil || p.done() != 1 {
		t.Errorf("nothing left: %+v", got)
	}
}

func TestWhatWasRewrittenIsNeverHandedOut(t *testing.T) {
	p := somePlan(5, 5)
	p.pieces[0].past = true
	if c := p.take(); c.piece.OID != 101 || p.take() != nil {
		t.Fatalf("chunk of %d", c.piece.OID)
	}
	if got := left(p); got.Table != 100 || got.Open[0].Left[0] != (span{}) {
		t.Errorf("left is %+v", got)
	}
}

func TestThrottleKeepsToItsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &throttle{rate: 1000}
		began := time.Now()
		for range 10 {
			if err := l.wait(t.Context(), 500); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("5,000 bytes at 1,000 a second took %s", took)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		over := errors.New("over")
		cancel(over)
		if err := l.wait(ctx, 500); !errors.Is(err, over) {
			t.Errorf("the end of its context gives %v", err)
		}
	})
}

func TestProgressIsTold(t *testing.T) {
	registry := prometheus.NewRegistry()
	metrics := NewMetrics(registry).of("shop")
	r := &report{log: testLog(t), metrics: metrics}
	seconds := 90.0
	r.read(10, 1000)
	r.at("the snapshot", &tally{ReadRows: 10, Done: 0.25, SecondsLeft: &seconds}, time.Now())
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, family := range families {
		got[family.GetName()] = family.GetMetric()[0].GetGauge().GetValue() + family.GetMetric()[0].GetCounter().GetValue()
	}
	for name, want := range map[string]float64{
		"tributary_ingest_snapshot_left_seconds": 90, "tributary_ingest_snapshot_done_ratio": 0.25,
		"tributary_ingest_snapshot_rows_total": 10, "tributary_ingest_snapshot_bytes_total": 1000,
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	now := time.Now()
	if left := (pace{began: now.Add(-time.Minute), from: 0.5}).left(0.75, now); left == nil || *left != 60 {
		t.Errorf("a quarter in a minute leaves %v", left)
	}
	if left := (pace{began: now, from: 0.5}).left(0.5, now); left != nil {
		t.Errorf("nothing yet leaves %v", *left)
	}
}

func TestProgressIsReadFromPositions(t *testing.T) {
	snapshot, _ := json.Marshal(cursor{tally: tally{ReadRows: 7, Done: 0.5}})
	asks, _ := readingsCursor{
		Readings: []reading{{LSN: 5, Tables: []uint32{1}, Rest: true}, {LSN: 6, Asked: &asked{ID: "a", Table: "public.b", Where: "true"}}},
		Ended:    []Ended{{ID: "z"}},
	}.encode()
	for name, c := range map[string]struct {
		position ingest.Position
		want     []Progress
		ended    int
	}{
		"none":     {ingest.Position{Phase: ingest.PhaseStreaming}, nil, 0},
		"snapshot": {ingest.Position{Phase: ingest.PhaseSnapshot, EndLSN: 9, Cursor: snapshot}, []Progress{{Kind: ReadSnapshot, LSN: 9, Rows: 7, Done: 0.5}}, 0},
		"readings": {ingest.Position{Phase: ingest.PhaseStreaming, Cursor: asks}, []Progress{{Kind: ReadSnapshot, LSN: 5, Tables: 1},
			{Kind: ReadAsked, ID: "a", LSN: 6, Table: "public.b", Where: "true", Waiting: true}}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			got, ended, err := ReadProgress(c.position)
			if diff := cmp.Diff(c.want, got); diff != "" || err != nil || len(ended) != c.ended {
				t.Errorf("%v, %d ended:\n%s", err, len(ended), diff)
			}
		})
	}
}

func TestASlotInDangerIsSeen(t *testing.T) {
	for name, c := range map[string]struct {
		there Standing
		want  bool
	}{
		"no bound":       {Standing{Exists: true, SafeBytes: -1, Flushed: 1 << 40, Restart: 1}, false},
		"far from it":    {Standing{Exists: true, SafeBytes: 500, Flushed: 1001, Restart: 1}, false},
		"near it":        {Standing{Exists: true, SafeBytes: 99, Flushed: 1001, Restart: 1}, true},
		"past it":        {Standing{Exists: true, SafeBytes: -1, WALStatus: "unreserved"}, true},
		"no slot at all": {Standing{}, false},
	} {
		if got := c.there.inDanger(); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestRowsThatChangedSinceAViewAreKnownByTheirTransaction(t *testing.T) {
	view, later := &visibility{min: 100, max: 110, running: []uint64{103}}, &visibility{min: 200, max: 200}
	wrapped := &visibility{min: 1<<32 - 5, max: 1<<32 - 5}
	for name, c := range map[string]struct {
		view, later *visibility
		xmin        uint32
		want        bool
	}{
		"before":                           {view, later, 50, false},
		"between, and ended":               {view, later, 102, false},
		"between, and running":             {view, later, 103, true},
		"after":                            {view, later, 150, true},
		"frozen long ago, above all":       {view, later, 4_000_000_000, false},
		"frozen by a rule of old":          {view, later, 2, false},
		"after, where numbers begin anew":  {wrapped, &visibility{min: 1<<32 + 50, max: 1<<32 + 50}, 20, true},
		"before, where numbers begin anew": {wrapped, &visibility{min: 1<<32 + 50, max: 1<<32 + 50}, 60, false},
	} {
		if got := c.view.changed(c.xmin, c.later); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
