package pgcdc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/tributary-dev/tributary/internal/pgtest"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/ingest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const patience = time.Minute

// stored is an event as EVENTS would hold it.
type stored struct {
	ID, Subject, Data string
	At                events.Sequence
	Through           events.LSN
}

func (s stored) row(t testing.TB) *events.Row {
	t.Helper()
	event, err := events.Parse([]byte(s.Data))
	if err != nil {
		t.Fatal(err)
	}
	row, err := event.Row()
	if err != nil {
		t.Fatal(err)
	}
	return row
}

// store stands for EVENTS: it takes what a feed brings, and knows from where to go on.
type store struct {
	t testing.TB

	mu     sync.Mutex
	events []stored
	ids    map[string]bool
	state  ingest.State
	marks  int
	marked []ingest.Position
}

func newStore(t testing.TB) *store { return &store{t: t, ids: map[string]bool{}} }

// take stores the items of a batch up to limit events, as the pipeline does: a batch that ends with a mark whole.
func (s *store) take(b *ingest.Batch, limit int) (taken int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	items := b.Items
	whole := len(items) > 0 && items[len(items)-1].Mark != nil
	if whole && len(items) > ingest.MaxBatchItems {
		s.t.Errorf("a batch with a mark has %d items", len(items))
	}
	for i := range items {
		if !whole && taken >= limit {
			return taken
		}
		if items[i].Mark != nil {
			s.mark(items[i].Mark)
			continue
		}
		s.add(&items[i])
		taken++
	}
	return taken
}

func (s *store) add(item *ingest.Item) {
	event, err := events.Parse(item.Data)
	if err != nil {
		s.t.Errorf("%v: %s", err, item.Data)
		return
	}
	if s.ids[event.ID] {
		s.t.Errorf("%s came twice", event.ID)
	}
	if item.At.Compare(s.state.Last) <= 0 || item.At != event.Sequence {
		s.t.Errorf("%s at %s comes behind %s", event.ID, item.At, s.state.Last)
	}
	s.ids[event.ID] = true
	s.events = append(s.events, stored{event.ID, item.Subject, string(item.Data), item.At, item.Through})
	s.state.Last = item.At
	s.state.Through = max(s.state.Through, item.Through)
	p := &s.state.Position
	p.CommitLSN, p.Index, p.XID = events.LSN(item.At.Commit), item.At.Index, item.XID
}

func (s *store) mark(p *ingest.Position) {
	s.marks++
	s.marked = append(s.marked, *p)
	next := *p
	if next.Incarnation != s.state.Position.Incarnation {
		s.state.Last, s.state.Through = events.Sequence{}, 0
	}
	s.state.Position = next
	if at := (events.Sequence{Commit: uint64(next.CommitLSN), Index: next.Index}); at.Compare(s.state.Last) > 0 {
		s.state.Last = at
	}
	s.state.Through = max(s.state.Through, next.EndLSN)
}

func (s *store) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.events)
}

func (s *store) all() []stored {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]stored(nil), s.events...)
}

// positions gives all that were put.
func (s *store) positions() []ingest.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]ingest.Position(nil), s.marked...)
}

// where gives how far the source is stored.
func (s *store) where() ingest.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// session is one run of a source into a store.
type session struct {
	t      testing.TB
	store  *store
	feed   *ingest.Feed
	cancel context.CancelFunc
	moved  chan struct{} // holds a token after something was stored
	done   chan struct{}
	err    error // of Run, after done
}

// start runs source until stop, or until limit more events are stored; 0 is no limit.
func (s *store) start(source ingest.Source, limit int) *session {
	return s.startConfirming(source, limit, func(ingest.State) events.LSN { return s.where().Through })
}

// startConfirming is start with a say in what may be confirmed.
func (s *store) startConfirming(source ingest.Source, limit int, confirm func(ingest.State) events.LSN) *session {
	ctx, cancel := context.WithCancel(context.Background())
	r := &session{t: s.t, store: s, feed: ingest.NewFeed(1 << 20), cancel: cancel, moved: make(chan struct{}, 1), done: make(chan struct{})}
	if limit == 0 {
		limit = 1 << 60
	}
	consumed := make(chan struct{})
	go func() {
		defer close(consumed)
		for limit > 0 {
			batches, err := r.feed.Take(ctx)
			if err != nil {
				return
			}
			for _, b := range batches {
				limit -= s.take(b, limit)
				r.feed.Confirm(confirm(s.where()))
				r.feed.Stored(b)
				if limit <= 0 {
					break
				}
			}
			select {
			case r.moved <- struct{}{}:
			default:
			}
		}
		cancel()
	}()
	go func() {
		defer close(r.done)
		r.err = source.Run(ctx, s.where(), r.feed)
		cancel()
		<-consumed
	}()
	s.t.Cleanup(func() { r.stop() })
	return r
}

// stop ends the session, and gives the error of Run where it ended by itself.
func (r *session) stop() error {
	r.cancel()
	return r.wait()
}

func (r *session) wait() error {
	r.t.Helper()
	select {
	case <-r.done:
	case <-time.After(patience):
		r.t.Fatal("Run does not end")
	}
	if errors.Is(r.err, context.Canceled) {
		return nil
	}
	return r.err
}

// until waits for a fact of the store.
func (r *session) until(what string, fact func(*store) bool) {
	r.t.Helper()
	deadline := time.After(patience)
	for !fact(r.store) {
		select {
		case <-r.moved:
		case <-r.done:
			if !fact(r.store) {
				r.t.Fatalf("waiting for %s with %d events: Run ended: %v", what, r.store.count(), r.err)
			}
		case <-deadline:
			r.t.Fatalf("waiting for %s with %d events", what, r.store.count())
		}
	}
}

// events waits for n events in all, stops, and gives them.
func (r *session) events(n int) []stored {
	r.t.Helper()
	r.until(fmt.Sprintf("%d events", n), func(s *store) bool { return s.count() >= n })
	if err := r.stop(); err != nil {
		r.t.Fatal(err)
	}
	all := r.store.all()
	if len(all) != n {
		r.t.Fatalf("%d events instead of %d", len(all), n)
	}
	return all
}

// streaming waits until the snapshot is done.
func (r *session) streaming() {
	r.t.Helper()
	r.until("the stream", func(s *store) bool { return s.where().Position.Phase == ingest.PhaseStreaming })
}

// database is one for a test, with a connection to it.
type database struct {
	t    testing.TB
	url  string
	conn *pgx.Conn
}

func newDatabase(t testing.TB, url string) *database {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.WithoutCancel(t.Context())) })
	return &database{t: t, url: url, conn: conn}
}

// exec runs statements; several separated by semicolons are one transaction.
func (d *database) exec(sql string, args ...any) {
	d.t.Helper()
	if _, err := d.conn.Exec(context.WithoutCancel(d.t.Context()), sql, args...); err != nil {
		d.t.Fatalf("%s: %v", sql, err)
	}
}

// dropSlot waits until nobody reads the slot, which is the cluster's and not the database's, and drops it.
func (d *database) dropSlot() {
	d.t.Helper()
	waitFor(d.t, "the slot to be free", func() bool { return d.value(`SELECT count(active_pid)::text FROM pg_replication_slots`) == "0" })
	d.exec(`SELECT pg_drop_replication_slot('tributary_shop')`)
}

// value reads one text.
func (d *database) value(sql string, args ...any) string {
	d.t.Helper()
	var value *string
	if err := d.conn.QueryRow(d.t.Context(), sql, args...).Scan(&value); err != nil {
		d.t.Fatalf("%s: %v", sql, err)
	}
	if value == nil {
		return ""
	}
	return *value
}

func (d *database) lsn(sql string) events.LSN {
	d.t.Helper()
	lsn, err := events.ParseLSN(d.value(sql))
	if err != nil {
		d.t.Fatal(err)
	}
	return lsn
}

// source makes a source of the database's tables in public, without a snapshot, unless options say otherwise.
func (d *database) source(options ...func(*Options)) *Source {
	d.t.Helper()
	o := Options{Name: "shop", ConnString: d.url, Tables: []string{"public.*"}, Partitions: 16, Log: testLog(d.t)}
	for _, option := range options {
		option(&o)
	}
	s, err := New(o)
	if err != nil {
		d.t.Fatal(err)
	}
	return s
}

func withSnapshot(o *Options) { o.Snapshot = true }

// data gives the data of an event, but for its transaction's number and place, which no test can know.
func data(t testing.TB, e stored) string {
	t.Helper()
	var envelope struct{ Data map[string]json.RawMessage }
	if err := json.Unmarshal([]byte(e.Data), &envelope); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, name := range []string{"op", "schema", "table", "prefix", "key", "before", "after", "changed", "unchanged", "oversize", "content"} {
		if value, ok := envelope.Data[name]; ok {
			fmt.Fprintf(&b, "%s %s ", name, value)
		}
	}
	if raw, ok := envelope.Data["tx"]; ok {
		var tx events.Tx
		if err := json.Unmarshal(raw, &tx); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "index %d", tx.Index)
		if tx.Last {
			b.WriteString(" last")
		}
	}
	return strings.TrimSpace(b.String())
}

func checkData(t testing.TB, got []stored, want ...string) {
	t.Helper()
	lines := make([]string, len(got))
	for i := range got {
		lines[i] = data(t, got[i])
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("events differ (-want +got):\n%s", diff)
	}
}

// serveTo gives whoever asks a way to ask the source, while it streams.
func serveTo(ask *func(Ask) (Answer, error), asking chan<- struct{}) func(context.Context, func(context.Context, Ask) (Answer, error)) error {
	return func(ctx context.Context, answer func(context.Context, Ask) (Answer, error)) error {
		*ask = func(a Ask) (Answer, error) {
			ctx, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			return answer(ctx, a)
		}
		asking <- struct{}{}
		<-ctx.Done()
		return context.Cause(ctx)
	}
}

// finish is end for a store whose cursor remembers what was asked for.
func finish(t *testing.T, db *database, r *session) []stored {
	t.Helper()
	db.exec(`INSERT INTO last VALUES (1)`)
	r.until("the last event", func(s *store) bool {
		all := s.all()
		return len(all) > 0 && strings.Contains(all[len(all)-1].Subject, ".last.")
	})
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	return r.store.all()
}
