package checkpoint_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"github.com/tributary-dev/tributary/internal/pgtest"
	"github.com/tributary-dev/tributary/pkg/checkpoint"
	"github.com/tributary-dev/tributary/pkg/events"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func open(t testing.TB, url string) *checkpoint.Store {
	t.Helper()
	s, err := checkpoint.New(url, checkpoint.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// migrated opens a store in a database of its own.
func migrated(t testing.TB) (*checkpoint.Store, string) {
	t.Helper()
	url := pgtest.Database(t)
	s := open(t, url)
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s, url
}

func connect(t testing.TB, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func exec(t testing.TB, conn *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// first is a checkpoint for tests to begin with.
func first() checkpoint.Checkpoint {
	return checkpoint.Checkpoint{
		Source: "shop", Epoch: 3, Incarnation: 2, SystemID: "7311", Timeline: 1, Slot: "tributary_shop", Phase: "streaming",
		Commit: 0x2_0000_0010, Index: 5, End: 0x2_0000_0020, Leader: "a",
	}
}

func mustSave(t testing.TB, s *checkpoint.Store, c checkpoint.Checkpoint) {
	t.Helper()
	if err := s.Save(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

func mustGet(t testing.TB, s *checkpoint.Store, source string) checkpoint.Checkpoint {
	t.Helper()
	saved, err := s.Get(t.Context(), source)
	if err != nil {
		t.Fatal(err)
	}
	return saved.Checkpoint
}

func TestSave(t *testing.T) {
	type cp = checkpoint.Checkpoint
	cases := map[string]struct {
		change func(*cp)
		want   error
		kept   bool   // the table holds what it held
		why    string // the new line of the history; empty for none
	}{
		"the same again":                      {func(*cp) {}, nil, true, ""},
		"the same by another of the epoch":    {func(c *cp) { c.Leader = "b" }, nil, true, ""},
		"a later commit":                      {func(c *cp) { c.Commit += 100; c.Index = 1; c.End += 100 }, nil, false, ""},
		"a later index":                       {func(c *cp) { c.Index++ }, nil, false, ""},
		"a later end":                         {func(c *cp) { c.End++ }, nil, false, ""},
		"an earlier epoch":                    {func(c *cp) { c.Epoch--; c.Commit += 100 }, checkpoint.ErrStale, true, ""},
		"an earlier epoch at the same place":  {func(c *cp) { c.Epoch-- }, checkpoint.ErrStale, true, ""},
		"an earlier commit":                   {func(c *cp) { c.Commit--; c.Index = 9; c.End += 100 }, checkpoint.ErrBackwards, true, ""},
		"an earlier index":                    {func(c *cp) { c.Index-- }, checkpoint.ErrBackwards, true, ""},
		"an earlier end":                      {func(c *cp) { c.End-- }, checkpoint.ErrBackwards, true, ""},
		"an earlier place by a later leader":  {func(c *cp) { c.Epoch++; c.Index-- }, checkpoint.ErrBackwards, true, ""},
		"an earlier incarnation":              {func(c *cp) { c.Epoch++; c.Incarnation--; c.Commit += 100 }, checkpoint.ErrBackwards, true, ""},
		"a takeover":                          {func(c *cp) { c.Epoch++; c.Leader = "b" }, nil, false, "takeover: epoch 3 → 4"},
		"a phase":                             {func(c *cp) { c.Phase = "snapshot" }, nil, false, "phase streaming → snapshot"},
		"another timeline":                    {func(c *cp) { c.Timeline = 2 }, nil, false, "timeline 1 → 2"},
		"a later incarnation begins anywhere": {func(c *cp) { c.Incarnation++; c.Commit, c.Index, c.End = 0, 0, 0 }, nil, false, "incarnation 2 → 3"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s, url := migrated(t)
			before := first()
			mustSave(t, s, before)
			next := before
			c.change(&next)
			for i, store := range []*checkpoint.Store{s, open(t, url)} { // one that knows the row, one that does not
				if err := store.Save(t.Context(), next); !errors.Is(err, c.want) {
					t.Fatalf("store %d: got %v, want %v", i, err, c.want)
				}
			}
			want := next
			if c.kept {
				want = before
			}
			if diff := cmp.Diff(want, mustGet(t, s, "shop")); diff != "" {
				t.Errorf("the table holds something else (-want +got):\n%s", diff)
			}
			whys := []string{"first checkpoint"}
			if c.why != "" {
				whys = append(whys, c.why)
			}
			if diff := cmp.Diff(whys, reasons(t, s)); diff != "" {
				t.Errorf("the history says something else (-want +got):\n%s", diff)
			}
		})
	}
}

// reasons gives the history of shop, the oldest line first.
func reasons(t testing.TB, s *checkpoint.Store) (whys []string) {
	t.Helper()
	changes, err := s.History(t.Context(), "shop", 1000)
	if err != nil {
		t.Fatal(err)
	}
	for i := len(changes) - 1; i >= 0; i-- {
		whys = append(whys, changes[i].Why)
	}
	return whys
}

func TestSameAgainByADeposedLeaderIsStale(t *testing.T) {
	old, url := migrated(t)
	mustSave(t, old, first())
	next := first()
	next.Epoch++
	mustSave(t, open(t, url), next)
	if err := old.Save(t.Context(), first()); !errors.Is(err, checkpoint.ErrStale) {
		t.Fatalf("got %v by what it remembered, want ErrStale", err)
	}
}

func TestSameAgainWritesNothing(t *testing.T) {
	s, url := migrated(t)
	mustSave(t, s, first())
	conn := connect(t, url)
	version := func() (xmin string) {
		if err := conn.QueryRow(t.Context(), `SELECT xmin::text || ctid::text FROM tributary.checkpoints`).Scan(&xmin); err != nil {
			t.Fatal(err)
		}
		return xmin
	}
	before := version()
	for range 3 {
		mustSave(t, s, first())
	}
	if after := version(); after != before {
		t.Errorf("the row was written again: %s, then %s", before, after)
	}
}

func TestSetGoesBackwardsAndSaysWhy(t *testing.T) {
	s, _ := migrated(t)
	mustSave(t, s, first())
	back := first()
	back.Commit, back.End, back.Leader = 0x10, 0x20, "ann"
	if err := s.Set(t.Context(), back, "EVENTS was restored"); !errors.Is(err, checkpoint.ErrStale) {
		t.Fatalf("set under the leader's own epoch: got %v, want ErrStale", err)
	}
	back.Epoch++
	if err := s.Set(t.Context(), back, ""); err == nil {
		t.Fatal("set without a reason")
	}
	if err := s.Set(t.Context(), back, "EVENTS was restored"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(back, mustGet(t, s, "shop")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	changes, err := s.History(t.Context(), "shop", 1)
	if err != nil || len(changes) != 1 {
		t.Fatalf("%d changes, %v", len(changes), err)
	}
	from := first()
	want := checkpoint.Change{Source: "shop", Who: "ann", Why: "EVENTS was restored", From: &from, To: back}
	got := changes[0]
	if got.At.IsZero() || time.Since(got.At) > time.Hour {
		t.Errorf("changed at %v", got.At)
	}
	got.ID, got.At = 0, time.Time{}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestReadingWhatIsNotThere(t *testing.T) {
	s, _ := migrated(t)
	if _, err := s.Get(t.Context(), "shop"); !errors.Is(err, checkpoint.ErrNotFound) {
		t.Errorf("a source that has none: got %v, want ErrNotFound", err)
	}
	without := open(t, pgtest.Database(t))
	if _, err := without.Get(t.Context(), "shop"); !errors.Is(err, checkpoint.ErrNotFound) || !strings.Contains(err.Error(), "tributary.checkpoints") {
		t.Errorf("a database without a mirror: got %v, want ErrNotFound, naming the table", err)
	}
	if _, err := without.List(t.Context()); !errors.Is(err, checkpoint.ErrNotFound) {
		t.Errorf("a database without a mirror: got %v, want ErrNotFound", err)
	}
}

func TestPruneKeepsTheYoungAndTheLast(t *testing.T) {
	s, url := migrated(t)
	c := first()
	for range 10 {
		c.Epoch++
		mustSave(t, s, c)
	}
	conn := connect(t, url)
	count := func(of string) (n int) {
		if err := conn.QueryRow(t.Context(), `SELECT count(*) FROM tributary.checkpoint_history WHERE source = $1`, of).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	other := first()
	other.Source = "other"
	mustSave(t, s, other)
	steps := []struct {
		prepare string
		keep    checkpoint.Keep
		want    int
	}{
		{"SELECT", checkpoint.Keep{}, 10},
		{"SELECT", checkpoint.Keep{Count: 7}, 7},
		{`UPDATE tributary.checkpoint_history SET saved_at = saved_at - interval '1 day' WHERE id <= 6`, checkpoint.Keep{Age: time.Hour}, 4},
		{`UPDATE tributary.checkpoint_history SET saved_at = saved_at - interval '1 day'`, checkpoint.Keep{Age: time.Hour}, 1},
	}
	for i, step := range steps {
		exec(t, conn, step.prepare)
		if err := s.Prune(t.Context(), step.keep); err != nil {
			t.Fatal(err)
		}
		if got := count("shop"); got != step.want {
			t.Errorf("step %d: %d lines stay, want %d", i, got, step.want)
		}
	}
	if count("other") != 1 {
		t.Error("the last line of a source went")
	}
}

// TestSaveFollowsTheRules compares random calls, by several stores, with the rules written down once more.
func TestSaveFollowsTheRules(t *testing.T) {
	_, url := migrated(t)
	stores := []*checkpoint.Store{open(t, url), open(t, url)}
	run := 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		small := rapid.Uint64Range(1, 3)
		var now checkpoint.Checkpoint
		for range rapid.IntRange(1, 8).Draw(t, "calls") {
			next := checkpoint.Checkpoint{
				Source: fmt.Sprint("source", run), Epoch: small.Draw(t, "epoch"), Incarnation: small.Draw(t, "incarnation"),
				Commit: events.LSN(small.Draw(t, "commit")), Index: uint32(small.Draw(t, "index")), End: events.LSN(small.Draw(t, "end")),
			}
			var want error
			switch place := func(c checkpoint.Checkpoint) uint64 {
				return c.Incarnation<<12 | uint64(c.Commit)<<8 | uint64(c.Index)<<4 | uint64(c.End)
			}; {
			case next.Epoch < now.Epoch:
				want = checkpoint.ErrStale
			case place(next) < place(now):
				want = checkpoint.ErrBackwards
			default:
				now = next
			}
			err := stores[rapid.IntRange(0, 1).Draw(t, "store")].Save(context.Background(), next)
			if !errors.Is(err, want) {
				t.Fatalf("save %+v: got %v, want %v", next, err, want)
			}
		}
		saved, err := stores[0].Get(context.Background(), now.Source)
		if err != nil || saved.Checkpoint != now {
			t.Fatalf("the table holds %+v, %v; want %+v", saved, err, now)
		}
	})
}
